// Near matches: text is registered, and found again elsewhere.

#include "client/near.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/client_limits.h"
#include "client/match/matcher.h"
#include "client/match/registration.h"

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

namespace {

kedge_code CheckTokens(const ModelState& model, const int32_t* tokens, uint64_t token_count) {
  if (tokens == nullptr && token_count > 0) return Fail(KEDGE_INVALID, "tokens is NULL");
  const uint64_t most = uint64_t{kSequenceBlocksMax} * model.shape.block_tokens;
  if (token_count <= most) return KEDGE_OK;
  return Fail(KEDGE_INVALID,
              absl::StrCat("token_count: ", token_count, " is more than a sequence's ", most));
}

kedge_code ReadOptions(const kedge_near_options* from, const ModelState& model,
                       kedge_near_options& options, match::MatchOptions& match) {
  options = {};
  if (from != nullptr) {
    if (kedge_code code = ReadStruct("options", from, options); code != KEDGE_OK) return code;
  }
  match.block_tokens = model.shape.block_tokens;
  if (options.min_run != 0) match.min_run = options.min_run;
  if (options.last_tokens != 0) match.last_tokens = options.last_tokens;
  if (options.donors_max > kBatchItemsMax) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.donors_max: ", options.donors_max,
                                            " is more than ", kBatchItemsMax));
  }
  if (options.donors_max != 0) match.donors_max = options.donors_max;
  return KEDGE_OK;
}

NearNodes NodesOf(const ClientState& state, uint32_t deadline_ms) {
  return NearNodes(state.engine, state.DeadlineUs(deadline_ms), state.window_bytes);
}

}  // namespace

extern "C" {

kedge_code kedge_near_register(kedge_model* model, const int32_t* tokens, uint64_t token_count,
                               uint32_t durability, uint32_t deadline_ms) {
  KEDGE_NEED(model);
  const ModelState& state = *model->model;
  if (kedge_code code = CheckTokens(state, tokens, token_count); code != KEDGE_OK) return code;
  uint8_t wire = 0;
  if (kedge_code code = ReadDurability(durability, wire); code != KEDGE_OK) return code;
  const TenantSalt& salt = model->state->salt;
  const std::vector<match::Registration> made = match::Registrations(
      {tokens, token_count}, state.shape.block_tokens, KeyChain(salt, state.fingerprint),
      Keyspace::kPrefix, MatchKeys(salt, state.fingerprint));
  const absl::Status status = NodesOf(*model->state, deadline_ms).Register(made, wire);
  return status.ok() ? Ok() : Fail(status);
}

kedge_code kedge_near_find(kedge_model* model, const int32_t* tokens, uint64_t token_count,
                           const kedge_near_options* caller_options, kedge_near** near) {
  KEDGE_NEED(model);
  KEDGE_NEED_POINTER(near);
  *near = nullptr;
  const ModelState& state = *model->model;
  if (kedge_code code = CheckTokens(state, tokens, token_count); code != KEDGE_OK) return code;
  kedge_near_options options;
  match::MatchOptions match;
  if (kedge_code code = ReadOptions(caller_options, state, options, match); code != KEDGE_OK) {
    return code;
  }
  const match::Matcher matcher(model->state->salt, state.fingerprint, {}, match);
  NearNodes nodes = NodesOf(*model->state, options.deadline_ms);
  match::HybridPlan plan = matcher.Match({tokens, token_count}, options.prefix_tokens, nodes);
  nodes.Strike(plan.stale);
  if (plan.nodes_failed > 0) {
    return Fail(KEDGE_UNAVAILABLE, "near: the node did not answer");
  }
  std::vector<kedge_near_run> runs;
  for (const match::Segment& segment : plan.Segments())
    runs.push_back({segment.prompt, segment.tokens, segment.donor, segment.row});
  *near = new kedge_near{model->state, model->model, std::move(runs), std::move(plan.donors)};
  return Ok();
}

void kedge_near_free(kedge_near* near) { delete near; }

uint32_t kedge_near_runs(const kedge_near* near, const kedge_near_run** runs) {
  if (runs != nullptr) *runs = near == nullptr ? nullptr : near->runs.data();
  return near == nullptr ? 0 : static_cast<uint32_t>(near->runs.size());
}

uint32_t kedge_near_donors(const kedge_near* near) {
  return near == nullptr ? 0 : static_cast<uint32_t>(near->donors.size());
}

kedge_code kedge_near_donor_get(const kedge_near* near, uint32_t donor, kedge_near_donor* info,
                                kedge_sequence** sequence) {
  if (sequence != nullptr) *sequence = nullptr;
  KEDGE_NEED_POINTER(near);
  kedge_near_donor known;
  if (kedge_code code = ReadStruct("info", info, known); code != KEDGE_OK) return code;
  if (donor >= near->donors.size()) {
    return Fail(KEDGE_INVALID,
                absl::StrCat("donor: ", donor, " of ", near->donors.size(), " donors"));
  }
  const match::PlanDonor& found = near->donors[donor];
  known = {};
  known.first_token = found.first_token;
  known.tokens = static_cast<uint32_t>(found.links.size()) * near->model->shape.block_tokens;
  WriteStruct(known, info);
  if (sequence != nullptr) {
    *sequence =
        new kedge_sequence{near->state, near->model, found.links, std::make_shared<LossyLog>()};
  }
  return Ok();
}

}  // extern "C"
