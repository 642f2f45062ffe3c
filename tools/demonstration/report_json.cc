#include <nlohmann/json.hpp>

#include "tools/demonstration/report.h"

namespace kedge {
namespace {

using nlohmann::ordered_json;

ordered_json ServedJson(const Served& served) {
  return {{"ttft_ms", served.ttft_ms},
          {"total_ms", served.total_ms},
          {"match_ms", served.match_ms},
          {"fetch_ms", served.fetch_ms},
          {"matched_tokens", served.matched_tokens},
          {"fetched_tokens", served.fetched_tokens},
          {"computed_tokens", served.computed_tokens},
          {"fetched_bytes", served.fetched_bytes},
          {"stored_blocks", served.stored_blocks},
          {"stored_bytes", served.stored_bytes},
          {"trouble", served.trouble}};
}

ordered_json ServingJson(const DemoFigures& figures) {
  const ServingFigures& serving = figures.serving;
  ordered_json questions = ordered_json::array();
  for (size_t i = 0; i < serving.questions.size(); ++i) {
    const ServedQuestion& question = serving.questions[i];
    questions.push_back({{"question", figures.questions[i]},
                         {"prompt_tokens", question.dense.prompt_tokens},
                         {"same_tokens", question.same_tokens()},
                         {"dense", ServedJson(question.dense)},
                         {"first", ServedJson(question.first)},
                         {"again", ServedJson(question.again)}});
  }
  using Q = ServedQuestion;
  const double dense_ms = serving.Sum(&Q::dense, &Served::ttft_ms);
  const double first_ms = serving.Sum(&Q::first, &Served::ttft_ms);
  const double again_ms = serving.Sum(&Q::again, &Served::ttft_ms);
  return {{"dataset", figures.dataset},
          {"model", serving.model},
          {"parameters", serving.parameters},
          {"block_tokens", serving.block_tokens},
          {"block_bytes", serving.block_bytes},
          {"instruction_tokens", serving.instruction_tokens},
          {"prompt_tokens", serving.Sum(&Q::dense, &Served::prompt_tokens)},
          {"same_tokens", serving.same_tokens()},
          {"dense_ttft_ms", dense_ms},
          {"first_ttft_ms", first_ms},
          {"again_ttft_ms", again_ms},
          {"first_speed_up", first_ms > 0 ? dense_ms / first_ms : 0},
          {"again_speed_up", again_ms > 0 ? dense_ms / again_ms : 0},
          {"questions", questions}};
}

ordered_json StoredJson(const StoredSums& stored) {
  return {{"variant", stored.variant},
          {"blocks", stored.blocks},
          {"bytes_before", stored.raw_bytes},
          {"bytes", stored.bytes}};
}

ordered_json ReplayJson(const DemoFigures& figures) {
  const ReplaySums& sums = figures.replay;
  const double blocks = static_cast<double>(sums.hits.blocks());
  const double tokens = static_cast<double>(sums.input_tokens);
  return {{"trace", figures.trace},
          {"requests", sums.requests},
          {"block_tokens", kTraceBlockTokens},
          {"block_bytes", sums.block_bytes},
          {"host_tier_bytes", figures.host_bytes},
          {"ssd_tier_bytes", figures.ssd_bytes},
          {"input_tokens", sums.input_tokens},
          {"hit_tokens", sums.hit_tokens},
          {"hit_rate_blocks", blocks > 0 ? sums.hits.hit_blocks() / blocks : 0},
          {"hit_rate_tokens", tokens > 0 ? sums.hit_tokens / tokens : 0},
          {"blocks",
           {{"gpu", sums.hits.gpu_blocks},
            {"host", sums.hits.host_blocks},
            {"ssd", sums.hits.ssd_blocks},
            {"miss", sums.hits.miss_blocks}}},
          {"fetched_blocks", sums.fetched_blocks},
          {"fetched_bytes", sums.fetched_bytes},
          {"unfetched_blocks", sums.unfetched_blocks},
          {"stored_blocks", sums.stored_blocks},
          {"stored_bytes", sums.stored_bytes},
          {"held_blocks", sums.held_blocks},
          {"evicted_blocks", sums.evicted_blocks},
          {"refused_blocks", sums.refused_blocks},
          {"match_seconds", sums.match_seconds},
          {"fetch_gb_per_second", sums.fetch_gb_per_second()},
          {"store_gb_per_second", sums.store_gb_per_second()}};
}

ordered_json AgentsJson(const DemoFigures& figures) {
  if (!figures.agents) return nullptr;
  const AgentsFigures& agents = *figures.agents;
  ordered_json list = ordered_json::array();
  for (const AgentSums& sums : agents.agents) {
    list.push_back({{"prompt_tokens", sums.prompt_tokens},
                    {"dense_ttft_ms", sums.dense_ttft_ms},
                    {"first_ttft_ms", sums.first_ttft_ms},
                    {"again_ttft_ms", sums.again_ttft_ms},
                    {"first_matched_tokens", sums.first_matched_tokens},
                    {"again_matched_tokens", sums.again_matched_tokens},
                    {"messages", sums.messages},
                    {"same_messages", sums.same_messages},
                    {"answers", sums.answers},
                    {"same_answers", sums.same_answers},
                    {"right_answers", sums.right_answers}});
  }
  return {{"model", agents.model},
          {"requests", agents.requests},
          {"input_tokens", agents.workload.input_tokens},
          {"prefix_tokens", agents.workload.prefix_tokens},
          {"output_tokens", agents.workload.output_tokens},
          {"block_tokens", agents.block_tokens},
          {"same_answers", agents.same_answers()},
          {"same_tokens", agents.same_tokens()},
          {"trouble", agents.trouble},
          {"agents", list}};
}

ordered_json ReuseJson(const DemoFigures& figures) {
  if (!figures.reuse) return nullptr;
  ordered_json ways = ordered_json::array();
  for (const ReuseWayFigures& way : figures.reuse->ways) {
    ordered_json agents = ordered_json::array();
    for (const ReuseSums& sums : way.agents) {
      ordered_json tokens = ordered_json::object();
      for (int i = 0; i < kTreatments; ++i)
        tokens[TreatmentName(static_cast<Treatment>(i))] = sums.tokens[static_cast<size_t>(i)];
      agents.push_back({{"prompt_tokens", sums.prompt_tokens},
                        {"ttft_ms", sums.ttft_ms},
                        {"tokens", tokens},
                        {"reused_tokens", sums.reused_tokens},
                        {"answers", sums.answers},
                        {"same_answers", sums.same_answers},
                        {"provenance", ProvenanceName(sums.worst)}});
    }
    ways.push_back({{"way", way.name}, {"agents", agents}});
  }
  return {{"learnt_requests", figures.reuse->learnt},
          {"requests", figures.reuse->requests},
          {"mixed_by", figures.reuse->node_pools ? "node" : "client"},
          {"ways", ways}};
}

ordered_json StoredListJson(const DemoFigures& figures) {
  ordered_json list = ordered_json::object();
  list["questions"] = StoredJson(figures.serving.stored);
  if (figures.agents) list["agents"] = StoredJson(figures.agents->stored);
  return list;
}

// Every counter and gauge; histograms would only make it long.
ordered_json NodeJson(const DemoFigures& figures) {
  if (!figures.metrics) return nullptr;
  ordered_json node = ordered_json::object();
  for (const MetricSample& sample : *figures.metrics) {
    if (sample.name.rfind("kedge_", 0) != 0 || sample.name.ends_with("_bucket")) continue;
    node[sample.labels.empty() ? sample.name : sample.name + "{" + sample.labels + "}"] =
        sample.value;
  }
  return node;
}

}  // namespace

std::string FiguresJson(const DemoFigures& figures) {
  ordered_json object = {{"demo", "kedge"},
                         {"node", figures.node},
                         {"wire", figures.wire},
                         {"quick", figures.quick},
                         {"seconds", figures.seconds},
                         {"serving", ServingJson(figures)},
                         {"replay", ReplayJson(figures)},
                         {"agents", AgentsJson(figures)},
                         {"reuse", ReuseJson(figures)},
                         {"policy", figures.policy},
                         {"stored", StoredListJson(figures)},
                         {"node_metrics", NodeJson(figures)}};
  return object.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace kedge
