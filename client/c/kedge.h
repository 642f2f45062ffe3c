/* Kedge for inference workers: the stable C ABI (C99). The C++ SDK, client/kv_client.h, is
 * header-only over it.
 *
 *   kedge_options options = {sizeof options};
 *   options.address = "tcp://127.0.0.1:7420";
 *   options.salt = "secret of this tenant";
 *   kedge_client* client = NULL;
 *   if (kedge_open(&options, &client) != KEDGE_OK) fprintf(stderr, "%s\n", kedge_last_error());
 *
 * Results. Calls return a code. On a code that is no success, kedge_last_error() says in words
 * which field or argument it was and which value it had. Batches have one code for each item.
 *
 * Structs. Each starts with `size`, set by the caller to sizeof the struct. Fields are only ever
 * added at the end, and zero always means "the default".
 *
 * Handles. Opaque. NULL where a handle is needed gives KEDGE_INVALID. *_free and kedge_close take
 * NULL. Handles that outlive their client may still be freed; other calls on them give
 * KEDGE_UNAVAILABLE.
 *
 * Threads. Every call may be made on any thread, on one client by many threads at once, except
 * where a call says otherwise. A client has one loop of its own and
 * calls nothing of the caller's. Freeing or closing a handle while another thread is inside a call
 * with it is an error of the caller.
 *
 * Blocking. Calls that say "blocks" may wait for the network; all others return without waiting.
 *
 * Memory. Buffers that are handed to a request belong to it until the request has *ended*:
 * kedge_wait returned KEDGE_OK, or kedge_cancel or kedge_request_free returned. Once it has ended
 * no byte is read from them or written to them, whatever the node does later.
 *
 * Never wrong bytes. An item whose code is KEDGE_OK arrived whole, and every part matched its
 * digest under this key. With any other code the contents of the item's buffers are undefined.
 *
 * Fork. A client does not survive fork(). In the child every call on it fails with KEDGE_DENIED and
 * a text that says so; *_free and kedge_close in the child release nothing. Open a client in the
 * child.
 */
#ifndef KEDGE_CLIENT_C_KEDGE_H_
#define KEDGE_CLIENT_C_KEDGE_H_

#include <stdint.h>

#if defined(__GNUC__)
#define KEDGE_API __attribute__((visibility("default")))
#else
#define KEDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define KEDGE_ABI_VERSION 1

/* ---- Codes: of calls and of items. Values never change meaning. ---- */

typedef int32_t kedge_code;

#define KEDGE_PENDING (-1) /* a wait ended first; the request goes on */
#define KEDGE_OK 0
#define KEDGE_ABSENT 1     /* not held, never seen */
#define KEDGE_EVICTED 2    /* a recorded eviction */
#define KEDGE_REMOVED 3    /* a recorded removal */
#define KEDGE_NO_VARIANT 4 /* held, but in none of the accepted variants */
#define KEDGE_CORRUPT 5    /* a copy did not match its digest; nothing of it may be used */
#define KEDGE_EXISTS 6     /* put: already held (a success) */
#define KEDGE_EXHAUSTED 7  /* no room, or a queue is full: try later */
#define KEDGE_DEADLINE 8   /* the deadline passed first */
#define KEDGE_CANCELLED 9
#define KEDGE_UNAVAILABLE \
  10 /* the node is away, draining or restarting: a miss; the client reconnects by itself */
#define KEDGE_INVALID 11   /* an argument is wrong: the text names it */
#define KEDGE_TOO_SMALL 12 /* the buffer is smaller than the block */
#define KEDGE_MISMATCH \
  13 /* put: other bytes are held under that key, or the bytes changed while they were sent */
#define KEDGE_STALE_EPOCH \
  14 /* the member list was an old one; retried inside, seen only when that failed too */
#define KEDGE_DENIED 15 /* another tenant's, or a client carried through fork() */
#define KEDGE_INTERNAL 16

KEDGE_API const char* kedge_code_name(kedge_code code); /* "ok", "absent", ...; a static text */

/* Why the last call on this thread failed, in words; "" when it did not. Valid until this thread's
 * next call. */
KEDGE_API const char* kedge_last_error(void);
/* "kedge 0.1.0 (abi 1)"; a static text. */
KEDGE_API const char* kedge_version(void);

/* ---- Client ---- */

typedef struct kedge_client kedge_client;

#define KEDGE_OPEN_NO_WAIT \
  1u /* return at once; requests give KEDGE_UNAVAILABLE until the node answers */

typedef struct kedge_options {
  uint32_t size;
  uint32_t flags;      /* KEDGE_OPEN_* */
  const char* address; /* "tcp://host:port", "shm://host:port",
                          "embedded:?host=256MiB&ssd=/dir&ssd_size=1GiB" */
  const char* salt; /* the tenant's secret: 64 hex digits, or any text. Never leaves this process */
  const char* client_name; /* shows in the node's log; default: the program's name */
  uint64_t tenant;         /* public number of the tenant */
  uint32_t deadline_ms;    /* of requests that name none; default 10,000 */
  uint32_t connect_ms;     /* how long kedge_open waits for the node; default 3,000 */
  uint64_t window_bytes;   /* bulk bytes in flight in each direction; default 32 MiB */
} kedge_options;

/* Blocks until the node answered or connect_ms passed (KEDGE_UNAVAILABLE; nothing is open then). */
KEDGE_API kedge_code kedge_open(const kedge_options* options, kedge_client** client);
/* Ends all requests (KEDGE_CANCELLED), gives back all leases, closes. Blocks until no buffer is in
 * use any more. An embedded node is drained: what was acknowledged as durable is on its disk when
 * this returns. */
KEDGE_API void kedge_close(kedge_client* client);

typedef struct kedge_info {
  uint32_t size;
  uint32_t connected; /* 1 while a session is open */
  uint64_t session;
  uint64_t epoch;
  uint64_t reconnects;     /* sessions that were opened after the first */
  uint64_t requests;       /* requests begun */
  uint64_t corrupt_parts;  /* parts that did not match their digest */
  uint64_t dropped_chunks; /* messages for requests that had ended (late, after a cancel) */
  uint64_t bytes_received; /* bulk */
  uint64_t bytes_sent;     /* bulk */
  uint32_t lease_ms_max;   /* the node's limit */
  uint32_t put_idle_ms;    /* a store without traffic for that long is dropped by the node */
  char node_id[64];
  char wire[64]; /* what carries the bytes, e.g. "tcp/lo" */
} kedge_info;
KEDGE_API kedge_code kedge_client_info(kedge_client* client, kedge_info* info);

/* Tells the client about memory that requests will use, so that RDMA transports need not pin it
 * each time. Over tcp, shm and embedded it is recorded and checked only (a buffer that starts
 * inside a registered range must end inside it, else KEDGE_INVALID), and makes nothing faster. */
KEDGE_API kedge_code kedge_register_memory(kedge_client* client, void* data, uint64_t bytes);
/* `data` as it was registered. The caller ends the requests that use it first. */
KEDGE_API kedge_code kedge_unregister_memory(kedge_client* client, void* data);

/* ---- Requests: every verb below that takes `kedge_request**` is asynchronous ---- */

typedef struct kedge_request kedge_request;

#define KEDGE_FOREVER 0xffffffffu /* as a timeout; requests have deadlines, so it ends */

/* Blocks until the request has ended (KEDGE_OK, whatever its items' codes are) or timeout_ms passed
 * (KEDGE_PENDING). Several threads may wait for one request. */
KEDGE_API kedge_code kedge_wait(kedge_request* request, uint32_t timeout_ms);
/* KEDGE_OK when it has ended, else KEDGE_PENDING. */
KEDGE_API kedge_code kedge_poll(kedge_request* request);
/* Fetches with layer_group set: blocks until the first `layers` layers of the range are there and
 * verified in every block that has not failed (KEDGE_OK), or timeout_ms passed (KEDGE_PENDING).
 * `blocks`, if not NULL, receives how many leading blocks have those layers. It may become smaller
 * with later layers when a block without a lease is evicted in between. */
KEDGE_API kedge_code kedge_wait_layers(kedge_request* request, uint32_t layers, uint32_t timeout_ms,
                                       uint32_t* blocks);
/* Ends the request early. Blocks (for milliseconds, even when the node is stopped or gone) until
 * none of its buffers is read or written any more. Items that were complete keep their codes, the
 * others become KEDGE_CANCELLED. When the node takes nothing, a put can only give its memory back
 * by closing the connection: other requests of this client then end with KEDGE_UNAVAILABLE. */
KEDGE_API kedge_code kedge_cancel(kedge_request* request);
/* Cancels it when it has not ended (then it blocks as kedge_cancel does), and frees it. */
KEDGE_API void kedge_request_free(kedge_request* request);

#define KEDGE_TIER_NONE 0
#define KEDGE_TIER_GPU 1
#define KEDGE_TIER_HOST 2
#define KEDGE_TIER_SSD 3
#define KEDGE_PROVENANCE_NONE 0
#define KEDGE_PROVENANCE_EXACT 1
/* Of KV in an engine's hands: computed over all that stands before it; base KV and an offset; with
 * some tokens computed anew; moved from elsewhere. It is that of all that it was computed from. */
#define KEDGE_PROVENANCE_DENSE 2
#define KEDGE_PROVENANCE_CORRECTED 3
#define KEDGE_PROVENANCE_RECOMPUTED 4
#define KEDGE_PROVENANCE_MOVED 5
#define KEDGE_FIDELITY_NONE 0
#define KEDGE_FIDELITY_LOSSLESS 1
#define KEDGE_FIDELITY_QUANTIZED 2
#define KEDGE_FIDELITY_PRUNED 3

/* One item: a block of a fetch or store, a key of a put, get, exists or remove. */
typedef struct kedge_item {
  kedge_code code; /* KEDGE_PENDING while the request runs */
  uint8_t tier;    /* where it was found */
  uint8_t fidelity;
  uint8_t provenance; /* EXACT: the KV (or bytes) that was stored under this key, as good as
                         `fidelity` says */
  uint8_t variant;    /* index into the accepted variants; 0 when none were named */
  uint64_t bytes;     /* get, fetch: bytes written to the buffers. exists: size. put, store: size */
} kedge_item;

/* Copies the first `count` items (or codes) in the order of the batch; `count` may not be larger
 * than the batch. */
KEDGE_API kedge_code kedge_request_items(kedge_request* request, kedge_item* items, uint32_t count);
KEDGE_API kedge_code kedge_request_codes(kedge_request* request, kedge_code* codes, uint32_t count);
/* The variant that an item of a fetch came as: its codec chain, "raw" for the lossless one. Valid
 * until the request is freed. */
KEDGE_API const char* kedge_request_variant(kedge_request* request, uint32_t item);
KEDGE_API uint32_t kedge_request_count(const kedge_request* request);
/* How many leading items succeeded: the usable prefix of a fetch. */
KEDGE_API uint32_t kedge_request_prefix(kedge_request* request);
/* The text of the first item that failed, "" when none did. Valid until the request is freed; call
 * it after the request has ended. */
KEDGE_API const char* kedge_request_text(kedge_request* request);
/* Waits, copies the codes (if not NULL), frees the request: makes any verb synchronous. Returns
 * KEDGE_OK when every item succeeded, else the first item's code that did not. Blocks until the
 * request's deadline at the latest. */
KEDGE_API kedge_code kedge_finish(kedge_request* request, kedge_code* codes, uint32_t count);

/* ---- Opaque values: any bytes under a name ---- */

typedef struct kedge_key {
  uint8_t bytes[32];
} kedge_key;

#define KEDGE_BATCH_MAX 1024u          /* items of one request */
#define KEDGE_BLOCK_BYTES_MAX 67108864 /* 64 MiB, one value or block */

/* The key of a name of any bytes under the client's salt. */
KEDGE_API kedge_code kedge_key_of_name(const kedge_client* client, const void* name,
                                       uint64_t name_bytes, kedge_key* key);
KEDGE_API kedge_code kedge_key_from_hex(const char* hex, kedge_key* key); /* 64 hex digits */
KEDGE_API void kedge_key_to_hex(const kedge_key* key, char hex[65]);

#define KEDGE_DURABILITY_DEFAULT 0 /* the node's setting */
#define KEDGE_DURABILITY_HOST 1    /* acknowledged when it is in host memory */
#define KEDGE_DURABILITY_SSD 2     /* acknowledged when it is on disk, synced */

typedef struct kedge_put_item {
  kedge_key key;
  const void* data;
  uint64_t bytes; /* 1 to KEDGE_BLOCK_BYTES_MAX */
} kedge_put_item;

typedef struct kedge_get_item {
  kedge_key key;
  void* data;
  uint64_t capacity; /* a larger value gives KEDGE_TOO_SMALL; ask kedge_exists for the size */
} kedge_get_item;

/* Item arrays are copied before the call returns; data is borrowed until the request has ended.
 * Leave it unchanged until then: what is digested and stored is what is there when it is sent, and
 * bytes that change in between give KEDGE_MISMATCH. deadline_ms 0: the client's. A value that is
 * held already gives KEDGE_EXISTS, and KEDGE_MISMATCH when it is known to be another one: bytes
 * under a key never change. */
KEDGE_API kedge_code kedge_put(kedge_client* client, const kedge_put_item* items, uint32_t count,
                               uint32_t durability, uint32_t deadline_ms, kedge_request** request);
KEDGE_API kedge_code kedge_get(kedge_client* client, const kedge_get_item* items, uint32_t count,
                               uint32_t deadline_ms, kedge_request** request);
/* Items: OK with tier and size, or why not. */
KEDGE_API kedge_code kedge_exists(kedge_client* client, const kedge_key* keys, uint32_t count,
                                  uint32_t deadline_ms, kedge_request** request);
/* All variants of each key. Items: OK, ABSENT, or EXHAUSTED when leased. */
KEDGE_API kedge_code kedge_remove(kedge_client* client, const kedge_key* keys, uint32_t count,
                                  uint32_t deadline_ms, kedge_request** request);

/* ---- Models and sequences: KV by tokens ---- */

typedef struct kedge_model kedge_model;
typedef struct kedge_sequence kedge_sequence;

#define KEDGE_F32 1u
#define KEDGE_F16 2u
#define KEDGE_BF16 3u
#define KEDGE_F8E4M3 4u
#define KEDGE_U8 5u

/* Parts of a layer; their order inside a layer. A set is made of bits 1 << (component - 1). */
#define KEDGE_K 1u
#define KEDGE_V 2u
#define KEDGE_LATENT 3u
#define KEDGE_STATE 4u
#define KEDGE_INDEX 5u

/* Lossy variants of blocks (codec chains: "kivi4g32", "fp8", ...) are used only where they are
 * named, and only as the model's gate lets them: with the profile that tools/profile_model made of
 * the model, those chains that pass it; without one none, unless ALLOW_UNPROFILED says so. What is
 * refused gives KEDGE_DENIED, with the figure in the text. */
#define KEDGE_MODEL_ALLOW_UNPROFILED 1u

/* Everything that makes KV interchangeable; KV is shared between models only when all of it is
 * equal. What comes after `components` does not count for that. */
typedef struct kedge_model_options {
  uint32_t size;
  uint32_t dtype;         /* KEDGE_F32.. */
  const char* weights_id; /* "org/name@revision", or a digest of the weights */
  const char* adapter_id; /* LoRA; NULL for none */
  const char* tokenizer_id;
  const char* rope_scaling; /* canonical text; NULL for none */
  const char* kv_scales_id; /* fp8 scales; NULL for none */
  double rope_theta;        /* 0: keys are not rotated */
  uint32_t layer_begin;     /* first layer of this shard */
  uint32_t layer_count;
  uint32_t kv_head_begin; /* first KV head of this shard */
  uint32_t kv_heads;
  uint32_t head_size;    /* elements */
  uint32_t block_tokens; /* a multiple of 32; default 64 */
  uint32_t components;   /* a set; default K and V */
  uint32_t flags;        /* KEDGE_MODEL_* */
  const char* profile;   /* path of the model's profile; NULL for none */
} kedge_model_options;

KEDGE_API kedge_code kedge_model_open(kedge_client* client, const kedge_model_options* options,
                                      kedge_model** model);
KEDGE_API void kedge_model_free(kedge_model* model);
KEDGE_API uint64_t kedge_model_part_bytes(
    const kedge_model*
        model); /* one component of one layer of one block: [block_tokens][kv_heads][head_size] */
KEDGE_API uint64_t
kedge_model_layer_bytes(const kedge_model* model); /* all components of one layer of one block */
KEDGE_API uint64_t kedge_model_block_bytes(const kedge_model* model);
KEDGE_API void kedge_model_fingerprint(const kedge_model* model, char hex[65]);

/* The chain of the whole blocks in `tokens` (a tail shorter than a block has none); names are
 * computed once, here. `extra`: ids of multimodal inputs that stand beside the tokens; NULL for
 * none. At most KEDGE_SEQUENCE_BLOCKS_MAX blocks. */
KEDGE_API kedge_code kedge_sequence_from_tokens(kedge_model* model, const int32_t* tokens,
                                                uint64_t token_count, const void* extra,
                                                uint64_t extra_bytes, kedge_sequence** sequence);
/* The same over an engine's own chained block hashes: `hash_count` of them, `hash_bytes` (1 to 64)
 * each, one after the other. Each must cover everything before its block. Their keys differ from
 * those made of tokens. */
KEDGE_API kedge_code kedge_sequence_from_hashes(kedge_model* model, const void* hashes,
                                                uint32_t hash_bytes, uint64_t hash_count,
                                                kedge_sequence** sequence);
KEDGE_API void kedge_sequence_free(kedge_sequence* sequence); /* requests made from it go on */
#define KEDGE_SEQUENCE_BLOCKS_MAX 65536u
KEDGE_API uint32_t kedge_sequence_blocks(const kedge_sequence* sequence);
/* The key of one block, for logs and `kedgectl inspect`. A block of a chain lives where its chain
 * does, which its key does not tell: kedge_get, kedge_exists and kedge_remove look where a value of
 * that key would live and mostly answer KEDGE_ABSENT. Ask with kedge_match, read with kedge_fetch.
 */
KEDGE_API kedge_code kedge_sequence_key(const kedge_sequence* sequence, uint32_t block,
                                        kedge_key* key);

/* ---- match, release ---- */

typedef struct kedge_match_options {
  uint32_t size;
  uint32_t lease_ms; /* pin what is found for that long (the node may grant less); 0: no lease */
  const char* const* variants; /* accepted codec chains, best first; NULL: any lossless one */
  uint32_t variant_count;
  uint32_t deadline_ms;
  uint32_t lowest_fidelity; /* KEDGE_FIDELITY_*, in place of `variants`: all chains that the gate
                               lets through and that are no worse, raw first, then by what the
                               profile says they lose */
  uint32_t reserved;
} kedge_match_options;

typedef struct kedge_match_result {
  uint32_t size;
  uint32_t blocks;   /* leading blocks that are held: fetch [0, blocks) */
  uint64_t tokens;   /* blocks * block_tokens */
  uint64_t lease;    /* 0: none. Give it back with kedge_release */
  uint32_t lease_ms; /* granted */
  uint32_t blocks_gpu;
  uint32_t blocks_host;
  uint32_t blocks_ssd;
  uint64_t payload_bytes; /* of the matched blocks, as they are stored */
  uint32_t fidelity;      /* KEDGE_FIDELITY_*: the lowest of the matched blocks */
  uint32_t blocks_lossy;
} kedge_match_result;

/* The longest held run of the sequence's blocks. Blocks for one round trip (one for each 1024
 * blocks). When the node is away this is KEDGE_UNAVAILABLE with 0 blocks: a miss. `options` may be
 * NULL. */
KEDGE_API kedge_code kedge_match(kedge_sequence* sequence, const kedge_match_options* options,
                                 kedge_match_result* result);
/* A lease that has run out or was given back already is no error. Does not wait for the node. */
KEDGE_API kedge_code kedge_release(kedge_client* client, uint64_t lease);

/* ---- fetch ---- */

typedef struct kedge_segment {
  void* data; /* only read by a store */
  uint64_t bytes;
} kedge_segment;

/* Caller memory for one block: segments that are filled (or read) one after the other, as if they
 * were one. */
typedef struct kedge_buffer {
  const kedge_segment* segments;
  uint32_t segment_count; /* at most KEDGE_SEGMENTS_MAX */
} kedge_buffer;
#define KEDGE_SEGMENTS_MAX 4096u

typedef struct kedge_fetch_options {
  uint32_t size;
  uint32_t block_begin; /* of the sequence */
  uint32_t block_count; /* 1 to KEDGE_BATCH_MAX */
  uint32_t layer_begin; /* counts from 0 in the model, as kedge_model_options::layer_begin does; 0
                           also means the shard's first */
  uint32_t layer_count; /* 0: to the shard's last */
  uint32_t layer_group; /* 0: in any order. Else layers arrive in groups of so many, in order;
                           raised until a group carries 128 KiB in all. Needed by kedge_wait_layers
                           before the end */
  const kedge_buffer* buffers; /* one for each block; its bytes take the range's parts in order:
                                  layer by layer, in a layer by component */
  const char* const* variants; /* accepted, best first; NULL: any lossless one */
  uint32_t variant_count;
  uint32_t deadline_ms;
  uint32_t lowest_fidelity; /* as in kedge_match_options */
  uint32_t reserved;
} kedge_fetch_options;

/* Block by block into the caller's memory. Segment lists are copied before the call returns. A
 * buffer larger than its parts is filled from its start; kedge_item::bytes says how far. A lossy
 * variant is decoded on the way, its keys rotated to their true positions: the buffers hold what an
 * engine expects, in any case. A lossy variant never comes where a better accepted one is held. */
KEDGE_API kedge_code kedge_fetch(kedge_sequence* sequence, const kedge_fetch_options* options,
                                 kedge_request** request);

/* ---- store ---- */

typedef struct kedge_store_options {
  uint32_t size;
  uint32_t block_begin;
  uint32_t block_count;        /* 1 to KEDGE_BATCH_MAX */
  uint32_t durability;         /* KEDGE_DURABILITY_* */
  const kedge_buffer* buffers; /* kedge_store: one for each block, exactly block_bytes each.
                                  kedge_store_begin: NULL */
  uint32_t deadline_ms;        /* kedge_store_begin: counts from the commit */
  uint32_t computed_over; /* KEDGE_FIDELITY_LOSSLESS: the caller promises that no lossy KV went into
                             these blocks, whatever was fetched. Else the SDK's own knowledge counts
                           */
  const char* variant;    /* codec chain to store as; NULL: "raw" */
  uint32_t provenance;    /* KEDGE_PROVENANCE_*, the worst of these blocks; 0: exact or dense, the
                             caller promises */
  uint32_t reserved;
} kedge_store_options;

/* Stores whole blocks as variant "raw": lossless and exact. The caller promises that the KV was
 * computed densely, or from lossless exact KV, for these very tokens. Segment lists are copied
 * before the call returns; the memory is borrowed, unchanged, until the request has ended.
 *
 * With `variant` the blocks are encoded inside the call, on this thread (keys are turned back from
 * their positions first); the memory is not used after it. A value that the chain cannot encode (a
 * NaN) is KEDGE_INVALID, naming block, layer and token, and nothing is stored. Another variant of a
 * block that is held already is stored beside it.
 *
 * KV that was computed over lossy KV is no better than that. Once a fetch on this sequence brought
 * a block in a lossy variant, blocks from there on may be stored as that variant only; anything
 * else is KEDGE_DENIED, unless `computed_over` says better.
 *
 * A prefix's key promises the KV of these tokens behind the very same ones. KV that is corrected,
 * recomputed or moved is not that, in whatever variant: KEDGE_DENIED. */
KEDGE_API kedge_code kedge_store(kedge_sequence* sequence, const kedge_store_options* options,
                                 kedge_request** request);

/* Layer by layer, while the prefill runs. A writer belongs to one thread at a time. With `variant`
 * parts are encoded as they are given, and sent with the commit. As "raw" they are sent as they
 * are given; what a part points to is borrowed, unchanged, until the commit's request has
 * ended, or until kedge_store_abort returned. A writer that gets no part for put_idle_ms
 * (kedge_info) is dropped by the node: its blocks then end with KEDGE_ABSENT or KEDGE_UNAVAILABLE
 * at commit, and nothing of them was ever visible. */
typedef struct kedge_writer kedge_writer;
KEDGE_API kedge_code kedge_store_begin(kedge_sequence* sequence, const kedge_store_options* options,
                                       kedge_writer** writer);
/* One part: `block` counts from options.block_begin, `layer` from 0 in the model; `bytes` must be
 * the part's size. Each part once, in any order. */
KEDGE_API kedge_code kedge_store_part(kedge_writer* writer, uint32_t block, uint32_t layer,
                                      uint32_t component, const void* data, uint64_t bytes);
/* One layer of all blocks: `buffers` has one entry for each block, layer_bytes each. */
KEDGE_API kedge_code kedge_store_layer(kedge_writer* writer, uint32_t layer,
                                       const kedge_buffer* buffers);
/* Makes the blocks visible once all parts have arrived. Takes the writer (also on an error: it is
 * gone then, as after kedge_store_abort). A block that lacks a part gives KEDGE_INVALID; the others
 * are stored. */
KEDGE_API kedge_code kedge_store_commit(kedge_writer* writer, kedge_request** request);
/* Nothing becomes visible; blocks until no part's memory is in use. Takes the writer. */
KEDGE_API void kedge_store_abort(kedge_writer* writer);

/* ---- Pruned sequences: the KV of a prefix without the tokens that matter least ----
 *
 * Beside the blocks of a prefix a store can hold what a pruned chain ("prefixkv0.5+kivi4g32") made
 * of its first `block_count` blocks: of each layer some of the rows, and the positions that they
 * stand at. It is one object of its own, found by sequence, extent, chain and profile, and never in
 * the place of blocks: kedge_match and kedge_fetch know nothing of it.
 *
 * What is kept is a function of that name. It follows from the KV of these blocks, from scores of
 * queries inside of them and from the model's profile; no call here takes positions, a question, or
 * tokens behind the extent. The profile is needed, and its gate: a chain that it does not pass is
 * KEDGE_DENIED, with the figure. KV that is computed over pruned KV has seen less than its tokens
 * say: once a fetch on a sequence brought some, blocks of it are stored as nothing (KEDGE_DENIED,
 * unless kedge_store_options::computed_over says that it was not used). */

/* How many rows each of the model's layers keeps; `layer_count` is the shard's. Known before
 * anything was fetched, so that pages can be taken. KEDGE_INVALID where the chain cannot prune so
 * few tokens. */
KEDGE_API kedge_code kedge_pruned_rows(kedge_sequence* sequence, uint32_t block_count,
                                       const char* variant, uint32_t* rows, uint32_t layer_count);
/* Its name, for logs and `kedgectl inspect`. */
KEDGE_API kedge_code kedge_pruned_key(kedge_sequence* sequence, uint32_t block_count,
                                      const char* variant, kedge_key* key);

typedef struct kedge_store_scores_options {
  uint32_t size;
  uint32_t durability; /* KEDGE_DURABILITY_* */
  const void* scores; /* a score sidecar (gpu/codec/score_sidecar.h has the bytes) of the sequence's
                         first tokens: whole blocks of all of the shard's layers, of the last 32
                         queries or of all */
  uint64_t score_bytes;
  uint32_t deadline_ms;
  uint32_t computed_over; /* as in kedge_store_options */
} kedge_store_scores_options;

/* Attention scores beside the raw blocks, so that another process, without a GPU, can prune these
 * later (kedge_prune). Copied before the call returns. KEDGE_INVALID names the field that is wrong,
 * KEDGE_CORRUPT a CRC. */
KEDGE_API kedge_code kedge_store_scores(kedge_sequence* sequence,
                                        const kedge_store_scores_options* options,
                                        kedge_request** request);

typedef struct kedge_store_pruned_options {
  uint32_t size;
  uint32_t block_count;        /* the sequence's first blocks */
  const char* variant;         /* the pruned chain */
  const kedge_buffer* buffers; /* one for each block, block_bytes each: the KV as an engine has it,
                                  all of it, as kedge_store takes it */
  const void* scores; /* where the chain ranks by attention ("prefixkv0.5+...", "-sum"): a sidecar
                         of exactly these blocks. Else NULL */
  uint64_t score_bytes;
  uint32_t durability;
  uint32_t deadline_ms;
  uint32_t computed_over; /* as in kedge_store_options */
  uint32_t reserved;
} kedge_store_pruned_options;

/* Chooses, encodes and stores. All is chosen and encoded inside the call, on this thread; no memory
 * of the caller's is used after it. One item. KEDGE_INVALID names part, token or field; also an
 * object past KEDGE_BLOCK_BYTES_MAX. */
KEDGE_API kedge_code kedge_store_pruned(kedge_sequence* sequence,
                                        const kedge_store_pruned_options* options,
                                        kedge_request** request);

typedef struct kedge_prune_options {
  uint32_t size;
  uint32_t block_count;
  const char* variant;
  uint32_t durability;
  uint32_t deadline_ms; /* of all of it */
} kedge_prune_options;

/* The same from what the store holds: the raw blocks, and their scores where the chain needs them.
 * Makes the very bytes that kedge_store_pruned makes. Blocks; takes memory for one layer of the
 * blocks and for the object. `item`, if not NULL, has the object's code (KEDGE_OK, or KEDGE_EXISTS
 * when it is held already) and size. KEDGE_ABSENT (or why else) names the block that is not held as
 * "raw", or the scores. */
KEDGE_API kedge_code kedge_prune(kedge_sequence* sequence, const kedge_prune_options* options,
                                 kedge_item* item);

typedef struct kedge_match_pruned_options {
  uint32_t size;
  uint32_t lease_ms;           /* pin what is found for that long; 0: no lease */
  const char* const* variants; /* accepted pruned chains, best first; NULL: all that the gate lets
                                  through, by what they lose */
  uint32_t variant_count;
  uint32_t deadline_ms;
  uint32_t block_count_min; /* shorter ones are not looked for */
  uint32_t reserved;
} kedge_match_pruned_options;

typedef struct kedge_match_pruned_result {
  uint32_t size;
  uint32_t block_count; /* 0: none is held */
  uint64_t tokens;
  uint64_t lease; /* 0: none. Give it back with kedge_release */
  uint32_t lease_ms;
  uint32_t fidelity;      /* KEDGE_FIDELITY_PRUNED; KV computed over it is no better */
  uint64_t payload_bytes; /* as it is stored */
  char variant[48];
} kedge_match_pruned_result;

/* The longest prefix of the sequence that is held pruned; of one length the first accepted chain.
 * None is an answer, not an error. Blocks for a round trip, one more for each 1024 names (lengths
 * times chains) and one for the lease. */
KEDGE_API kedge_code kedge_match_pruned(kedge_sequence* sequence,
                                        const kedge_match_pruned_options* options,
                                        kedge_match_pruned_result* result);

/* One layer of a pruned sequence: room for its rows, [rows][kv_heads][head_size] each. Rows are in
 * ascending order of their positions. */
typedef struct kedge_pruned_layer {
  kedge_buffer keys;
  kedge_buffer values;
  int32_t* positions;
  uint32_t position_count; /* at least the layer's rows */
} kedge_pruned_layer;

typedef struct kedge_fetch_pruned_options {
  uint32_t size;
  uint32_t block_count; /* as it was matched */
  const char* variant;  /* as it was matched */
  uint32_t layer_begin; /* as in kedge_fetch_options */
  uint32_t layer_count;
  uint32_t layer_group;
  uint32_t deadline_ms;
  const kedge_pruned_layer* layers; /* one for each layer of the range */
} kedge_fetch_pruned_options;

/* One item: kedge_item::bytes counts what was written into keys and values. Keys come rotated to
 * their true positions, whatever the chain; tokens computed behind them stand at `tokens` and on,
 * as if nothing were missing. Layer groups and kedge_wait_layers work as for kedge_fetch. Segment
 * lists are copied before the call returns; positions are written before their layer is there. */
KEDGE_API kedge_code kedge_fetch_pruned(kedge_sequence* sequence,
                                        const kedge_fetch_pruned_options* options,
                                        kedge_request** request);

/* ---- near matches ----
 *
 * Text that was computed before is found again wherever it stands in a prompt, also with words
 * changed. What is found are rows of *donors*: prompts of the same tenant and model whose blocks
 * were stored and whose text was registered. Keys and values of a donor were computed behind other
 * text: moved to the prompt they are an approximation, to be corrected or recomputed, and never to
 * be stored as lossless. Nodes learn neither text nor tokens (proto/README.md, "Match ids"). */

typedef struct kedge_near_options {
  uint32_t size;
  uint32_t prefix_tokens; /* the prompt's first tokens, which have KV already: left alone */
  uint32_t min_run;       /* tokens that a run of rows has at least; 0: 5 */
  uint32_t last_tokens;   /* of the prompt, that are computed in any case; 0: 3 */
  uint32_t donors_max;    /* whose text is read, the most promising first; 0: 64 */
  uint32_t deadline_ms;
} kedge_near_options;

/* Tokens [prompt, prompt + tokens) stand in the donor as its rows [row, row + tokens). */
typedef struct kedge_near_run {
  uint32_t prompt;
  uint32_t tokens;
  uint32_t donor;
  uint32_t row;
} kedge_near_run;

typedef struct kedge_near_donor {
  uint32_t size;
  uint32_t first_token; /* position of its row 0 in the text that it was computed in */
  uint32_t tokens;      /* rows; row r is in block r / block_tokens of its sequence */
  uint32_t reserved;
} kedge_near_donor;

typedef struct kedge_near kedge_near;

/* Makes the whole blocks of a prompt findable; they are to be stored as well, before or after.
 * Again for the same text costs a round trip and changes nothing: do it with every prompt that is
 * served, since a node's index does not outlive the node's process. Blocks for two round trips.
 * KEDGE_DENIED: the node keeps no index. */
KEDGE_API kedge_code kedge_near_register(kedge_model* model, const int32_t* tokens,
                                         uint64_t token_count, uint32_t durability,
                                         uint32_t deadline_ms);
/* Blocks for two round trips. No run is an answer, not an error. `options` may be NULL. */
KEDGE_API kedge_code kedge_near_find(kedge_model* model, const int32_t* tokens,
                                     uint64_t token_count, const kedge_near_options* options,
                                     kedge_near** near);
KEDGE_API void kedge_near_free(kedge_near* near);
/* In the order of the prompt, disjoint; they live as long as `near`. */
KEDGE_API uint32_t kedge_near_runs(const kedge_near* near, const kedge_near_run** runs);
KEDGE_API uint32_t kedge_near_donors(const kedge_near* near);
/* `sequence`: its blocks, to match (and lease) and fetch like any other; freed by the caller. NULL
 * where it is not wanted. A donor may be gone when it is fetched: its tokens are computed then. */
KEDGE_API kedge_code kedge_near_donor_get(const kedge_near* near, uint32_t donor,
                                          kedge_near_donor* info, kedge_sequence** sequence);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* tidy: long-file, one header is the whole ABI */
#endif /* KEDGE_CLIENT_C_KEDGE_H_ */
