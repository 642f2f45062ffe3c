// kedgectl status: the node on one screen. Exits 3 when it is not healthy.

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

std::string HealthText(control::v1::Health health) {
  switch (health) {
    case control::v1::HEALTH_OK:
      return "ok";
    case control::v1::HEALTH_WARN:
      return "warn";
    case control::v1::HEALTH_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

int Status(const Settings& settings) {
  control::v1::StatusReply reply;
  Failure failure;
  const auto call = [&](ControlStub& stub, grpc::ClientContext& context) {
    return stub.Status(&context, {}, &reply);
  };
  if (!CallControl(settings, call, &failure)) return Report(failure);
  const bool people = settings.output == "table";
  const auto bytes = [people](uint64_t n) { return people ? Json(ByteText(n)) : Json(n); };
  Json out;
  out["node"] = reply.node_id();
  out["version"] = reply.version();
  out["health"] = HealthText(reply.health());
  if (reply.reasons_size() > 0) {
    out["reasons"] = std::vector<std::string>(reply.reasons().begin(), reply.reasons().end());
  }
  out["uptime_ms"] = reply.uptime_ms();
  out["epoch"] = reply.epoch();
  out["data"] = reply.data_address();
  out["metrics"] = reply.metrics_address();
  out["sessions"] = reply.sessions();
  out["leases"] = reply.leases();
  out["puts_open"] = reply.puts_open();
  out["blocks"] = reply.blocks();
  out["write_backlog"] = reply.write_backlog();
  out["index_bytes"] = bytes(reply.index_bytes());
  out["tiers"] = Json::array();
  for (const auto& tier : reply.tiers()) {
    out["tiers"].push_back({{"tier", tier.tier()},
                            {"used", bytes(tier.used_bytes())},
                            {"capacity", bytes(tier.capacity_bytes())},
                            {"blocks", tier.blocks()}});
  }
  out["variants"] = Json::array();
  for (const auto& variant : reply.variants()) {
    out["variants"].push_back({{"variant", variant.variant()},
                               {"host_blocks", variant.host_blocks()},
                               {"host_bytes", bytes(variant.host_bytes())},
                               {"ssd_blocks", variant.ssd_blocks()},
                               {"ssd_bytes", bytes(variant.ssd_bytes())}});
  }
  Print(settings, out);
  return reply.health() == control::v1::HEALTH_OK ? kExitOk : kExitUnhealthy;
}

}  // namespace

void AddStatus(CLI::App& app, const Settings& settings, Run* run) {
  CLI::App* verb = app.add_subcommand("status", "The node's state; exits 3 when it is not healthy");
  verb->footer("Example:\n  kedgectl status --control 127.0.0.1:7421 --output json");
  verb->callback([&settings, run] { *run = [&settings] { return Status(settings); }; });
}

}  // namespace kedge::ctl
