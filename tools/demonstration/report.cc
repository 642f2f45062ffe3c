#include "tools/demonstration/report.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/demonstration/progress.h"

namespace kedge {
namespace {

constexpr size_t kQuestionColumns = 26;
constexpr size_t kLabelColumns = 30;

void Title(const std::string& text) {
  const bool color = ColorStdout();
  std::printf("\n%s%s%s\n", color ? "\033[1m" : "", text.c_str(), color ? "\033[0m" : "");
}

void Line(const std::string& label, const std::string& value) {
  std::printf("  %s %s\n", FitColumns(label, kLabelColumns).c_str(), value.c_str());
}

std::string Verdict(bool same) {
  const char* text = same ? "yes" : "NO";
  if (!ColorStdout()) return text;
  return absl::StrCat(same ? "\033[32m" : "\033[31m", text, "\033[0m");
}

std::string Size(double bytes) {
  if (bytes < 1 << 20) return absl::StrFormat("%.0f KiB", bytes / 1024);
  if (bytes < 1 << 30) return absl::StrFormat("%.1f MiB", bytes / (1 << 20));
  return absl::StrFormat("%.2f GiB", bytes / (1 << 30));
}

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }
double Percent(double part, double whole) { return 100 * Ratio(part, whole); }

void QuestionLine(const std::string& name, int64_t tokens, double dense_ms, int64_t first_tokens,
                  double first_ms, int64_t again_tokens, double again_ms, bool same) {
  std::printf("  %s %6d %6.0f ms | %7d %6.0f ms %6.1fx | %7d %6.0f ms %6.1fx | %s\n",
              FitColumns(name, kQuestionColumns).c_str(), static_cast<int>(tokens), dense_ms,
              static_cast<int>(first_tokens), first_ms, Ratio(dense_ms, first_ms),
              static_cast<int>(again_tokens), again_ms, Ratio(dense_ms, again_ms),
              Verdict(same).c_str());
}

// How one kind of hit did: "1234 blocks   12.3%".
std::string Share(uint64_t blocks, const ReplayHits& hits) {
  return absl::StrFormat("%7d blocks  %5.1f%%", blocks, Percent(blocks, hits.blocks()));
}

}  // namespace

void PrintServing(const DemoFigures& figures) {
  const ServingFigures& serving = figures.serving;
  Title("Questions behind shared instructions");
  std::printf(
      "  %s\n  Questions of %s behind %d tokens of instructions (a token is a byte).\n"
      "  Blocks of %d tokens, %s each, through %s.\n\n",
      serving.model.c_str(), figures.dataset.c_str(), static_cast<int>(serving.instruction_tokens),
      static_cast<int>(serving.block_tokens), Size(serving.block_bytes).c_str(),
      figures.wire.c_str());
  std::printf("  %s %6s %9s | %-26s | %-26s |\n", FitColumns("", kQuestionColumns).c_str(), "",
              "no Kedge", "Kedge, first time", "again, by another worker");
  std::printf("  %s %6s %9s | %7s %9s %8s | %7s %9s %8s | same tokens\n",
              FitColumns("question", kQuestionColumns).c_str(), "tokens", "TTFT", "matched", "TTFT",
              "speed-up", "matched", "TTFT", "speed-up");
  for (size_t i = 0; i < serving.questions.size(); ++i) {
    const ServedQuestion& question = serving.questions[i];
    QuestionLine(figures.questions[i], question.dense.prompt_tokens, question.dense.ttft_ms,
                 question.first.matched_tokens, question.first.ttft_ms,
                 question.again.matched_tokens, question.again.ttft_ms, question.same_tokens());
    for (const Served* served : {&question.first, &question.again})
      if (!served->trouble.empty()) std::printf("    trouble: %s\n", served->trouble.c_str());
  }
  using Q = ServedQuestion;
  QuestionLine(
      "all", serving.Sum(&Q::dense, &Served::prompt_tokens),
      serving.Sum(&Q::dense, &Served::ttft_ms), serving.Sum(&Q::first, &Served::matched_tokens),
      serving.Sum(&Q::first, &Served::ttft_ms), serving.Sum(&Q::again, &Served::matched_tokens),
      serving.Sum(&Q::again, &Served::ttft_ms), serving.same_tokens());
  std::printf("\n  Stored %s; fetched %s the first time and %s again. TTFT: time to first token.\n",
              Size(serving.Sum(&Q::first, &Served::stored_bytes)).c_str(),
              Size(serving.Sum(&Q::first, &Served::fetched_bytes)).c_str(),
              Size(serving.Sum(&Q::again, &Served::fetched_bytes)).c_str());
}

void PrintReplay(const DemoFigures& figures) {
  const ReplaySums& sums = figures.replay;
  const ReplayHits& hits = sums.hits;
  Title("The opening of a trace, replayed");
  std::printf(
      "  The first %d requests of %s.\n"
      "  Blocks of %d tokens, cut to %s each; tiers of %s (host) and %s (SSD).\n\n",
      static_cast<int>(sums.requests), figures.trace.c_str(), kTraceBlockTokens,
      Size(sums.block_bytes).c_str(), Size(figures.host_bytes).c_str(),
      Size(figures.ssd_bytes).c_str());
  Line("hits in GPU memory", Share(hits.gpu_blocks, hits));
  Line("hits in host memory", Share(hits.host_blocks, hits));
  Line("hits on SSD", Share(hits.ssd_blocks, hits));
  Line("misses", Share(hits.miss_blocks, hits));
  Line("prompt tokens not to prefill",
       absl::StrFormat("%d of %d  (%.1f%%)", sums.hit_tokens, sums.input_tokens,
                       Percent(sums.hit_tokens, sums.input_tokens)));
  Line("fetched", absl::StrFormat("%9s  %5.2f GB/s, every byte as it was stored",
                                  Size(sums.fetched_bytes), sums.fetch_gb_per_second()));
  Line("stored",
       absl::StrFormat("%9s  %5.2f GB/s", Size(sums.stored_bytes), sums.store_gb_per_second()));
  if (sums.evicted_blocks > 0)
    Line("stored again after eviction", absl::StrFormat("%7d blocks", sums.evicted_blocks));
  if (sums.unfetched_blocks > 0)
    Line("matched, but not delivered", absl::StrFormat("%7d blocks", sums.unfetched_blocks));
  if (sums.refused_blocks > 0)
    Line("refused, the node was full", absl::StrFormat("%7d blocks", sums.refused_blocks));
}

void PrintAgents(const DemoFigures& figures) {
  if (!figures.agents) return;
  const AgentsFigures& agents = *figures.agents;
  Title("Agents that read each other");
  std::printf(
      "  %s\n  %d agents, %d requests: role text of %d tokens, question of %d, messages of %d; "
      "blocks of %d.\n  Means over the requests; Kedge reuses exact prefixes.\n\n",
      agents.model.c_str(), static_cast<int>(agents.workload.agents),
      static_cast<int>(agents.requests), static_cast<int>(agents.workload.prefix_tokens),
      static_cast<int>(agents.workload.input_tokens),
      static_cast<int>(agents.workload.output_tokens), static_cast<int>(agents.block_tokens));
  std::printf("  %s %6s %9s | %-26s | %-26s |\n", FitColumns("", 10).c_str(), "", "no Kedge",
              "Kedge, another user", "the same request again");
  std::printf("  %s %6s %9s | %7s %9s %8s | %7s %9s %8s | same answers\n",
              FitColumns("agent", 10).c_str(), "tokens", "TTFT", "matched", "TTFT", "speed-up",
              "matched", "TTFT", "speed-up");
  const double requests = static_cast<double>(std::max<int64_t>(agents.requests, 1));
  int64_t answers = 0;
  int64_t right = 0;
  for (size_t i = 0; i < agents.agents.size(); ++i) {
    const AgentSums& sums = agents.agents[i];
    std::printf(
        "  %s %6.0f %6.1f ms | %7.0f %6.1f ms %6.1fx | %7.0f %6.1f ms %6.1fx | %d of %d %s, "
        "messages %d of "
        "%d\n",
        FitColumns(absl::StrCat(i + 1), 10).c_str(), sums.prompt_tokens / requests,
        sums.dense_ttft_ms / requests, sums.first_matched_tokens / requests,
        sums.first_ttft_ms / requests, Ratio(sums.dense_ttft_ms, sums.first_ttft_ms),
        sums.again_matched_tokens / requests, sums.again_ttft_ms / requests,
        Ratio(sums.dense_ttft_ms, sums.again_ttft_ms), static_cast<int>(sums.same_answers),
        static_cast<int>(sums.answers), Verdict(sums.same_answers == sums.answers).c_str(),
        static_cast<int>(sums.same_messages), static_cast<int>(sums.messages));
    answers += sums.answers;
    right += sums.right_answers;
  }
  std::printf("\n  Questions about single facts: %d of %d answered rightly without Kedge.\n",
              static_cast<int>(right), static_cast<int>(answers));
  if (!agents.sample.empty())
    std::printf("  The last message: %s\n", FitColumns(agents.sample, 76).c_str());
  if (!agents.trouble.empty()) std::printf("    trouble: %s\n", agents.trouble.c_str());
}

void PrintReuse(const DemoFigures& figures) {
  if (!figures.reuse) return;
  const ReuseFigures& reuse = *figures.reuse;
  Title("Agents that reuse what others computed");
  std::printf(
      "  The same agents, %d other users; offsets learnt from %d earlier ones and mixed %s.\n"
      "  Tokens of the prompts by provenance; answers to single facts, against dense ones.\n\n",
      static_cast<int>(reuse.requests), static_cast<int>(reuse.learnt),
      reuse.node_pools ? "by the node" : "in this process");
  std::printf("  agent way    %9s %8s | %6s %9s %10s %6s | reused | same answers\n", "TTFT",
              "speed-up", "exact", "corrected", "recomputed", "dense");
  const double requests = static_cast<double>(std::max<int64_t>(reuse.requests, 1));
  for (size_t agent = 0; !reuse.ways.empty() && agent < reuse.ways[0].agents.size(); ++agent) {
    for (const ReuseWayFigures& way : reuse.ways) {
      const ReuseSums& sums = way.agents[agent];
      const auto tokens = [&](Treatment treatment) {
        return static_cast<double>(sums.tokens[static_cast<size_t>(treatment)]) / requests;
      };
      std::printf(
          "  %-5s %-6s %6.1f ms %7.1fx | %6.0f %9.0f %10.0f %6.0f | %5.1f%% | %d of %d %s\n",
          &way == &reuse.ways[0] ? absl::StrCat(agent + 1).c_str() : "", way.name.c_str(),
          sums.ttft_ms / requests, Ratio(reuse.ways[0].agents[agent].ttft_ms, sums.ttft_ms),
          tokens(Treatment::kExact), tokens(Treatment::kCorrected), tokens(Treatment::kRecomputed),
          tokens(Treatment::kDense),
          Percent(static_cast<double>(sums.reused_tokens), static_cast<double>(sums.prompt_tokens)),
          static_cast<int>(sums.same_answers), static_cast<int>(sums.answers),
          Verdict(sums.same_answers == sums.answers).c_str());
    }
  }
}

void PrintStored(const DemoFigures& figures) {
  Title("What was stored takes, by variant");
  std::printf("  %s %-12s %7s %11s %11s %7s\n", FitColumns("", 10).c_str(), "variant", "blocks",
              "before", "stored", "ratio");
  const auto line = [](const char* name, const StoredSums& stored) {
    std::printf("  %s %-12s %7d %11s %11s %6.2fx\n", FitColumns(name, 10).c_str(),
                stored.variant.c_str(), static_cast<int>(stored.blocks),
                Size(static_cast<double>(stored.raw_bytes)).c_str(),
                Size(static_cast<double>(stored.bytes)).c_str(),
                Ratio(static_cast<double>(stored.raw_bytes), static_cast<double>(stored.bytes)));
  };
  line("questions", figures.serving.stored);
  if (figures.agents) line("agents", figures.agents->stored);
  const bool same =
      figures.serving.same_tokens() && (!figures.agents || figures.agents->same_answers());
  std::printf("  answers as without Kedge: %s\n", Verdict(same).c_str());
  if (figures.policy != "raw") {
    std::printf("  (%s loses something; tools/bench quality says how much)\n",
                figures.policy.c_str());
  }
}

void PrintNode(const DemoFigures& figures) {
  Title("The node's own view");
  if (!figures.metrics) {
    std::printf("  An embedded node has no metrics page.\n");
    return;
  }
  const std::vector<MetricSample>& m = *figures.metrics;
  auto count = [&](const char* name, const std::vector<std::string>& labels = {}) {
    return absl::StrFormat("%.0f", SumOf(m, name, labels));
  };
  auto bytes = [&](const char* name, const std::vector<std::string>& labels = {}) {
    return Size(SumOf(m, name, labels));
  };
  Line("blocks put",
       absl::StrCat(count("kedge_put_blocks_total"), "  (", bytes("kedge_put_bytes_total"), ")"));
  for (const MetricSample& sample : m) {
    if (sample.name != "kedge_variant_bytes" || sample.value == 0) continue;
    Line("held " + sample.labels, Size(sample.value));
  }
  Line("bytes got", bytes("kedge_get_bytes_total"));
  Line("keys matched in host memory",
       count("kedge_lookup_hit_keys_total", {"op=\"match\"", "tier=\"host\""}));
  Line("keys matched on SSD",
       count("kedge_lookup_hit_keys_total", {"op=\"match\"", "tier=\"ssd\""}));
  Line("blocks written to SSD", absl::StrCat(count("kedge_mover_written_blocks_total"), "  (",
                                             bytes("kedge_mover_written_bytes_total"), ")"));
  Line("blocks read back from SSD", count("kedge_promotions_total"));
  Line("host tier in use", absl::StrCat(bytes("kedge_tier_used_bytes", {"tier=\"host\""}), " of ",
                                        bytes("kedge_tier_capacity_bytes", {"tier=\"host\""})));
  Line("SSD tier in use", absl::StrCat(bytes("kedge_tier_used_bytes", {"tier=\"ssd\""}), " of ",
                                       bytes("kedge_tier_capacity_bytes", {"tier=\"ssd\""})));
}

std::string FitColumns(const std::string& text, size_t columns) {
  std::string fitted;
  size_t used = 0;
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    const size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (used == columns) {
      // The last three characters make room for the dots; they may be several bytes each.
      for (int back = 0; back < 3 && !fitted.empty(); ++back) {
        while ((static_cast<uint8_t>(fitted.back()) & 0xc0) == 0x80) fitted.pop_back();
        fitted.pop_back();
      }
      return fitted + "...";
    }
    if (lead < 0x20 || lead == 0x7f) {
      fitted += ' ';
    } else {
      fitted += text.substr(i, length);
    }
    i += length;
    ++used;
  }
  return fitted + std::string(columns - used, ' ');
}

}  // namespace kedge
