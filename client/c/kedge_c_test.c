/* The C ABI from C, through libkedge.so: compiles as C99, and works. */

#include "client/c/kedge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define EXPECT(condition)                                                                       \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "%s:%d: not true: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
              kedge_last_error());                                                              \
      ++failures;                                                                               \
    }                                                                                           \
  } while (0)

static void BadArguments(void) {
  kedge_client* client = NULL;
  kedge_options options;
  memset(&options, 0, sizeof options);
  EXPECT(kedge_open(NULL, &client) == KEDGE_INVALID);
  EXPECT(kedge_open(&options, &client) == KEDGE_INVALID); /* no size */
  EXPECT(strstr(kedge_last_error(), "size") != NULL);
  options.size = sizeof options;
  EXPECT(kedge_open(&options, &client) == KEDGE_INVALID); /* no address */
  EXPECT(strstr(kedge_last_error(), "address") != NULL);
  options.address = "nowhere";
  options.salt = "s";
  EXPECT(kedge_open(&options, &client) == KEDGE_INVALID);
  EXPECT(strstr(kedge_last_error(), "nowhere") != NULL);
  EXPECT(client == NULL);
  EXPECT(kedge_wait(NULL, 0) == KEDGE_INVALID);
  kedge_close(NULL);
  kedge_request_free(NULL);
  kedge_store_abort(NULL);
}

static void PutAndGet(kedge_client* client) {
  kedge_put_item put;
  kedge_get_item get;
  kedge_request* request = NULL;
  kedge_item item;
  char hex[65];
  char landed[16] = {0};
  EXPECT(kedge_key_of_name(client, "name", 4, &put.key) == KEDGE_OK);
  put.data = "value";
  put.bytes = 5;
  EXPECT(kedge_put(client, &put, 1, KEDGE_DURABILITY_DEFAULT, 0, &request) == KEDGE_OK);
  EXPECT(kedge_finish(request, NULL, 0) == KEDGE_OK);

  kedge_key_to_hex(&put.key, hex);
  EXPECT(strlen(hex) == 64);
  EXPECT(kedge_key_from_hex(hex, &get.key) == KEDGE_OK);
  get.data = landed;
  get.capacity = sizeof landed;
  EXPECT(kedge_get(client, &get, 1, 0, &request) == KEDGE_OK);
  EXPECT(kedge_wait(request, KEDGE_FOREVER) == KEDGE_OK);
  EXPECT(kedge_request_items(request, &item, 1) == KEDGE_OK);
  EXPECT(item.code == KEDGE_OK && item.bytes == 5 && item.provenance == KEDGE_PROVENANCE_EXACT);
  EXPECT(kedge_request_items(request, &item, 2) == KEDGE_INVALID);
  EXPECT(memcmp(landed, "value", 5) == 0);
  kedge_request_free(request);

  get.key.bytes[0] ^= 1;
  EXPECT(kedge_get(client, &get, 1, 0, &request) == KEDGE_OK);
  EXPECT(kedge_finish(request, NULL, 0) == KEDGE_ABSENT);
  EXPECT(kedge_get(client, &get, KEDGE_BATCH_MAX + 1, 0, &request) == KEDGE_INVALID);
  EXPECT(strstr(kedge_last_error(), "1025") != NULL);
}

/* Without a profile nothing is pruned, and nothing that is pruned is found. */
static void Pruned(kedge_client* client) {
  const char* const chain = "prefixkv0.5-keydiff+kivi4g32";
  const int32_t tokens[128] = {0};
  kedge_model_options options;
  kedge_model* model = NULL;
  kedge_sequence* sequence = NULL;
  kedge_match_pruned_result match;
  kedge_prune_options prune;
  kedge_store_pruned_options store;
  kedge_fetch_pruned_options fetch;
  kedge_store_scores_options scores;
  kedge_request* request = NULL;
  kedge_item item;
  uint32_t rows[2];
  kedge_key key;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.dtype = KEDGE_F16;
  options.weights_id = "w";
  options.tokenizer_id = "t";
  options.layer_count = 2;
  options.kv_heads = 1;
  options.head_size = 32;
  EXPECT(kedge_model_open(client, &options, &model) == KEDGE_OK);
  EXPECT(kedge_sequence_from_tokens(model, tokens, 128, NULL, 0, &sequence) == KEDGE_OK);
  EXPECT(kedge_pruned_rows(sequence, 2, chain, rows, 2) == KEDGE_DENIED);
  EXPECT(strstr(kedge_last_error(), "profile") != NULL);
  EXPECT(kedge_pruned_rows(sequence, 3, chain, rows, 2) == KEDGE_INVALID);
  EXPECT(kedge_pruned_key(sequence, 2, chain, &key) == KEDGE_DENIED);
  EXPECT(kedge_pruned_key(sequence, 2, NULL, &key) == KEDGE_INVALID);
  memset(&match, 0, sizeof match);
  match.size = sizeof match;
  EXPECT(kedge_match_pruned(sequence, NULL, &match) == KEDGE_OK);
  EXPECT(match.block_count == 0 && match.lease == 0);
  memset(&prune, 0, sizeof prune);
  EXPECT(kedge_prune(sequence, &prune, &item) == KEDGE_INVALID);
  prune.size = sizeof prune;
  prune.block_count = 2;
  prune.variant = chain;
  EXPECT(kedge_prune(sequence, &prune, &item) == KEDGE_DENIED && item.code == KEDGE_DENIED);
  memset(&store, 0, sizeof store);
  store.size = sizeof store;
  EXPECT(kedge_store_pruned(sequence, &store, &request) == KEDGE_INVALID);
  memset(&fetch, 0, sizeof fetch);
  fetch.size = sizeof fetch;
  EXPECT(kedge_fetch_pruned(sequence, &fetch, &request) == KEDGE_INVALID);
  memset(&scores, 0, sizeof scores);
  scores.size = sizeof scores;
  scores.scores = tokens;
  scores.score_bytes = sizeof tokens;
  EXPECT(kedge_store_scores(sequence, &scores, &request) == KEDGE_INVALID);
  EXPECT(strstr(kedge_last_error(), "magic") != NULL);
  EXPECT(request == NULL);
  EXPECT(kedge_pruned_rows(NULL, 1, chain, rows, 2) == KEDGE_INVALID);
  kedge_sequence_free(sequence);
  kedge_model_free(model);
}

int main(void) {
  kedge_options options;
  kedge_client* client = NULL;
  kedge_info info;
  BadArguments();
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.address = "embedded:?host=128MiB";
  options.salt = "secret";
  EXPECT(kedge_open(&options, &client) == KEDGE_OK);
  if (client == NULL) return 1;
  PutAndGet(client);
  Pruned(client);
  memset(&info, 0, sizeof info);
  info.size = sizeof info;
  EXPECT(kedge_client_info(client, &info) == KEDGE_OK);
  EXPECT(info.connected == 1 && info.requests >= 3);
  kedge_close(client);
  EXPECT(strcmp(kedge_code_name(KEDGE_PENDING), "pending") == 0);
  EXPECT(strcmp(kedge_code_name(99), "unknown") == 0);
  printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
