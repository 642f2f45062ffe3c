// kedgectl inspect KEY: every variant that is held under a key.

#include <memory>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

int Inspect(const Settings& settings, const std::string& text) {
  Failure failure;
  sdk::Key key;
  if (!ParseKey(settings, text, &key, &failure)) return Report(failure);
  control::v1::InspectRequest request;
  request.set_key(key.bytes, sizeof key.bytes);
  control::v1::InspectReply reply;
  const auto call = [&](ControlStub& stub, grpc::ClientContext& context) {
    return stub.Inspect(&context, request, &reply);
  };
  if (!CallControl(settings, call, &failure)) return Report(failure);
  Json out{{"key", sdk::ToHex(key)}, {"variants", Json::array()}};
  for (const auto& variant : reply.variants()) {
    out["variants"].push_back(
        {{"variant", variant.variant()},
         {"fidelity", variant.fidelity()},
         {"keyspace", variant.keyspace()},
         {"tiers", std::vector<std::string>(variant.tiers().begin(), variant.tiers().end())},
         {"bytes", variant.payload_bytes()},
         {"parts", variant.parts()},
         {"root", variant.root_digest()},
         {"parent", HexText(variant.parent())},
         {"depth", variant.chain_depth()},
         {"placement", variant.placement()},
         {"shape", variant.shape()},
         {"rope", variant.rope()},
         {"model", variant.model()},
         {"tenant", variant.tenant()},
         {"pins", variant.pins()},
         {"lease_ms_left", variant.lease_ms_left()},
         {"ssd", variant.ssd_location()}});
  }
  if (out["variants"].empty()) {
    return Report({kExitFailed, "KEY: " + sdk::ToHex(key) + " is not held",
                   "kedgectl status --control " + settings.control});
  }
  Print(settings, out);
  return kExitOk;
}

}  // namespace

void AddInspect(CLI::App& app, const Settings& settings, Run* run) {
  auto key = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("inspect", "What is held under a key");
  verb->add_option("KEY", *key, "64 hex digits, or name:TEXT")->required();
  verb->footer("Example:\n  kedgectl inspect name:greeting --salt secret --output yaml");
  verb->callback(
      [&settings, run, key] { *run = [&settings, key] { return Inspect(settings, *key); }; });
}

}  // namespace kedge::ctl
