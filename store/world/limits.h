// Every limit of a node, each with its reason. Sizes that cross the wire or lie on disk are
// proto's; they are named here only where a limit of the node stands in relation to them.
//
// Queues are bounded by these numbers. A full one answers RESOURCE_EXHAUSTED before anything is
// half done.
#pragma once

#include <cstdint>

#include "proto/block_header.h"
#include "proto/frame.h"
#include "proto/messages.h"

namespace kedge {

// --- Leases ---

// Long enough to fetch 1,024 blocks of 1 MiB over 1 Gb/s; short enough that a client that died
// frees its blocks soon.
inline constexpr uint32_t kLeaseMsDefault = 10'000;
// A scheduler may hold a match while its request waits in a queue. Past a minute it asks again: a
// lease pins memory.
inline constexpr uint32_t kLeaseMsMax = 60'000;
// Leases of one session at a time: one per waiting request of a large engine.
inline constexpr uint32_t kLeasesPerSessionMax = 4096;
// How often expired leases are swept. A lease lives at most this much longer than granted.
inline constexpr uint32_t kLeaseSweepMs = 100;

// --- Puts ---

// A slot without traffic is dropped after this. A layer-by-layer store has gaps as long as a
// layer's prefill, which is seconds for a long chunk on a slow machine.
inline constexpr uint32_t kPutIdleMs = 10'000;
// How often idle slots are looked for.
inline constexpr uint32_t kPutSweepMs = 500;
// Two full batches: one being filled while the one before is committed.
inline constexpr uint32_t kPutSlotsPerSessionMax = 2 * kBatchItemsMax;
// Of all sessions. Each slot holds a host slot that cannot be evicted.
inline constexpr uint32_t kPutSlotsMax = 16 * kBatchItemsMax;
// Uncommitted puts may take this share of the host tier, so that a crowd of abandoned ones cannot
// push out all that is good.
inline constexpr uint32_t kPutShareOfHostPercent = 50;

// A put that finds host memory full of blocks that the SSD does not have yet waits so long for the
// mover to write some: 1 GiB at 500 MB/s. Less when the request's own deadline comes first.
inline constexpr uint32_t kPutRoomWaitMs = 2'000;
// Requests that wait so at one time; more are refused at once.
inline constexpr uint32_t kPutRoomWaitersMax = 1024;

// --- Sessions ---

// Engine ranks of a large pod, each with a few connections.
inline constexpr uint32_t kSessionsMax = 4096;
// A session with something under way that says nothing for so long is over: its client has died, or
// is stopped. Clients ping while requests are outstanding.
inline constexpr uint32_t kSilenceMs = 20'000;
// Requests under way in one session. More only wait longer.
inline constexpr uint32_t kRequestsPerSessionMax = 256;

// --- Near matches ---

// Spans of about 256 tokens, so 16 million tokens of text that can be found again: some 38 MB.
inline constexpr uint32_t kNearDonorsDefault = 65'536;
// Of a donor of 256 tokens: 16 bands, about as many minimizers, and a window a block.
inline constexpr uint32_t kNearPostingsOfDonor = 40;

// --- Data plane ---

// A new connection says who it is within this: a round trip and the set-up of a queue, with room
// for a machine that is overloaded.
inline constexpr uint32_t kGreetingMs = 5'000;
// Connections that have not yet said so. Past it new ones are dropped, and try again.
inline constexpr uint32_t kGreetingsMax = 256;
// Payload bytes handed to the transport and not yet sent, of all sessions: what clients that were
// stopped can pin. One connection has a window of its own (GetStream::kWindowBytes).
inline constexpr uint64_t kInFlightBytesMax = 1ull << 30;
// A request whose caller gave no deadline ends after this.
inline constexpr uint32_t kRequestMsDefault = 30'000;
inline constexpr uint32_t kRequestMsMax = 600'000;

// --- Pools of anchors ---

// Pools that a node remembers; each has some 200 bytes while it is not in memory. A model of a
// hundred agents with ten placeholders each has a thousand.
inline constexpr uint32_t kPoolsMax = 1u << 16;
// Changes of one pool that wait for each other: a pool takes hundreds a second.
inline constexpr uint32_t kPoolTasksMax = 1024;
// Of anchors in memory, where the config does not say. An anchor of a 7B model (32 layers of 1,024,
// 500 tokens, fp32) has 125 MiB, one of the evaluation model 1 MiB.
inline constexpr uint64_t kPoolMemoryBytesDefault = 1ull << 30;
// Activations and inserts that need not be durable reach the SSD so long after: what a crash may
// take of them.
inline constexpr uint32_t kPoolCheckpointMs = 2'000;
// Mixing is bound by memory bandwidth: two of them use what a socket has, and leave executor
// threads to the mover.
inline constexpr uint32_t kMixesRunningMax = 2;
// Longer waits than about a second help nobody: dense prefill is always there.
inline constexpr uint32_t kMixesWaitingMax = 128;
// Of one answer. As the largest anchor block, in fp32.
inline constexpr uint64_t kMixBytesMax = 4 * uint64_t{kBlockBytesMax};
// Of all answers that wait, are mixed or are being sent.
inline constexpr uint64_t kMixBytesHeldMax = 4 * kMixBytesMax;
// Questions of one session whose sketches have not come whole.
inline constexpr uint32_t kMixesInPartsMax = 16;

// --- Mover (host -> ssd, ssd -> host) ---

// Blocks that wait to be written. At 1 MiB a block this is the gap between a burst and the SSD's
// speed.
inline constexpr uint32_t kMoverQueueMax = 4096;
// A promotion that finds host memory full of pinned blocks tries again: what is being sent is
// unpinned within milliseconds, what is leased is not. Half a second in all.
inline constexpr uint32_t kPromoteRetryMs = 5;
inline constexpr uint32_t kPromoteAttemptsMax = 100;
// While the mover writes, host memory may be full of what the SSD does not have yet: as long as a
// put waits for that.
inline constexpr uint32_t kPromoteAttemptsWritingMax = kPutRoomWaitMs / kPromoteRetryMs;
// One append: large enough that the sync is a small part of it, small enough that it does not hold
// up a durable put for long.
inline constexpr uint64_t kMoverBatchBytes = 32ull << 20;

// --- SSD tier ---

// Appends that arrive while one is being synced share the next sync, up to this size. It bounds how
// long the first of them waits for the others: 100 ms at 640 MB/s.
inline constexpr uint64_t kSsdGroupBytesMax = 64ull << 20;
// Records in one gather write: two pieces each, and the kernel takes 1,024 pieces at once.
inline constexpr uint32_t kSsdGatherRecordsMax = 256;
// Open files of sealed segments, of the 1,024 that a process has by default.
inline constexpr uint32_t kSsdOpenFilesMax = 256;
// When the disk turns out to be full, so many of the oldest segments are dropped for one append
// before it fails.
inline constexpr uint32_t kSsdDropsPerAppendMax = 4;
// What opening RocksDB may write before it can be read, and then some: its log of up to 32 MiB
// becomes a table, and there are a manifest and a new log. A sixteenth of a small tier's capacity.
inline constexpr uint64_t kSsdBallastBytes = 64ull << 20;
// RocksDB holds locations and headers only, and is read in order when the node starts: little
// memory is enough.
inline constexpr uint64_t kSsdIndexWriteBufferBytes = 8ull << 20;
inline constexpr uint64_t kSsdIndexCacheBytes = 8ull << 20;
inline constexpr int kSsdIndexOpenFilesMax = 64;

// --- Relations ---

static_assert(kLeaseMsDefault <= kLeaseMsMax);
static_assert(kLeaseSweepMs * 10 <= kLeaseMsDefault, "a lease ends about when it should");
static_assert(kPutSweepMs * 10 <= kPutIdleMs, "a slot ends about when it should");
static_assert(kPutRoomWaitMs < kPutIdleMs, "slots of a put that waits for one more stay open");
static_assert(kPutSlotsPerSessionMax >= kBatchItemsMax, "a full batch finds slots");
static_assert(kPutSlotsMax >= 2 * kPutSlotsPerSessionMax, "one session cannot take all slots");
static_assert(kRequestMsDefault <= kRequestMsMax);
static_assert(kPutIdleMs < kSilenceMs, "slots of a client that vanished end before its connection");
static_assert(kMoverBatchBytes <= kSsdGroupBytesMax, "a mover's batch is one group");
static_assert(kBlockHeaderBytesMax + 1024 <= kHeadBytesMax, "a block header fits a frame");
static_assert(kSsdGroupBytesMax >= kBlockBytesMax, "a group holds the largest payload");
static_assert(kSsdGatherRecordsMax * 2 <= 1024, "IOV_MAX of Linux");

}  // namespace kedge
