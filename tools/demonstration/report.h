// What a demonstration found, for people (stdout) and for programs (JSON).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/demonstration/agents.h"
#include "tools/demonstration/metrics_page.h"
#include "tools/demonstration/reuse.h"
#include "tools/demonstration/serving.h"
#include "tools/replay/replay.h"

namespace kedge {

struct DemoFigures {
  std::string node;            // its address
  std::string wire;            // what carried the bytes
  std::string dataset;         // path
  std::string trace;           // path
  std::string policy = "raw";  // the codec chain that questions and agents store as
  bool quick = false;
  double seconds = 0;
  uint64_t host_bytes = 0;  // sizes of the tiers
  uint64_t ssd_bytes = 0;
  std::vector<std::string> questions;  // texts
  ServingFigures serving;
  ReplaySums replay;
  std::optional<AgentsFigures> agents;               // nothing without a model to run them on
  std::optional<ReuseFigures> reuse;                 // nothing without words to ask in
  std::optional<std::vector<MetricSample>> metrics;  // nothing for an embedded node
};

void PrintServing(const DemoFigures& figures);
void PrintReplay(const DemoFigures& figures);
void PrintAgents(const DemoFigures& figures);
void PrintReuse(const DemoFigures& figures);
// What was stored takes, by variant, before and after encoding.
void PrintStored(const DemoFigures& figures);
void PrintNode(const DemoFigures& figures);

// One object with all figures; ends with a newline.
std::string FiguresJson(const DemoFigures& figures);

// A text cut to `columns` characters, padded with spaces. UTF-8 counts by characters; control
// characters become spaces.
std::string FitColumns(const std::string& text, size_t columns);

}  // namespace kedge
