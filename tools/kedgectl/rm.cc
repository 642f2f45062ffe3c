// kedgectl rm KEY: removes a key in every variant, or in the one that is named.

#include <memory>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

struct Arguments {
  std::string key;
  std::string variant;  // empty: all
  bool force = false;
};

int Rm(const Settings& settings, const Arguments& arguments) {
  Failure failure;
  sdk::Key key;
  if (!ParseKey(settings, arguments.key, &key, &failure)) return Report(failure);
  control::v1::RemoveRequest request;
  request.set_key(key.bytes, sizeof key.bytes);
  request.set_force(arguments.force);
  control::v1::RemoveReply reply;
  control::v1::RemoveVariantRequest one;
  one.set_key(request.key());
  one.set_variant(arguments.variant);
  one.set_force(arguments.force);
  const auto call = [&](ControlStub& stub, grpc::ClientContext& context) {
    return arguments.variant.empty() ? stub.Remove(&context, request, &reply)
                                     : stub.RemoveVariant(&context, one, &reply);
  };
  if (!CallControl(settings, call, &failure)) return Report(failure);
  Print(settings, {{"key", sdk::ToHex(key)}, {"variants", reply.variants()}});
  return kExitOk;
}

}  // namespace

void AddRm(CLI::App& app, const Settings& settings, Run* run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("rm", "Remove a key in every variant, or in one");
  verb->add_option("KEY", arguments->key, "64 hex digits, or name:TEXT")->required();
  verb->add_option("--variant", arguments->variant, "only this codec chain, e.g. raw or kivi4g32");
  verb->add_flag("--force", arguments->force, "also when somebody holds a lease on it");
  verb->footer("Example:\n  kedgectl rm name:greeting --salt secret");
  verb->callback([&settings, run, arguments] {
    *run = [&settings, arguments] { return Rm(settings, *arguments); };
  });
}

}  // namespace kedge::ctl
