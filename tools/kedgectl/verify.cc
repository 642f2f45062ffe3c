// kedgectl verify [KEY...]: the node reads blocks and checks every digest. Exits 1 when one is
// damaged.

#include <memory>
#include <vector>

#include "tools/kedgectl/kedgectl.h"

namespace kedge::ctl {
namespace {

int Verify(const Settings& settings, const std::vector<std::string>& texts) {
  Failure failure;
  control::v1::VerifyRequest request;
  for (const std::string& text : texts) {
    sdk::Key key;
    if (!ParseKey(settings, text, &key, &failure)) return Report(failure);
    request.add_keys(key.bytes, sizeof key.bytes);
  }
  control::v1::VerifyReply reply;
  const auto call = [&](ControlStub& stub, grpc::ClientContext& context) {
    return stub.Verify(&context, request, &reply);
  };
  if (!CallControl(settings, call, &failure)) return Report(failure);
  const std::vector<std::string> damaged(reply.damaged().begin(), reply.damaged().end());
  Print(settings, {{"blocks", reply.blocks()}, {"bytes", reply.bytes()}, {"damaged", damaged}});
  if (damaged.empty()) return kExitOk;
  return Report({kExitFailed,
                 std::to_string(damaged.size()) + " damaged copies were found and dropped",
                 "check the disk (smartctl -a DEVICE), then kedgectl verify"});
}

}  // namespace

void AddVerify(CLI::App& app, const Settings& settings, Run* run) {
  auto keys = std::make_shared<std::vector<std::string>>();
  CLI::App* verb =
      app.add_subcommand("verify", "Check the digests of blocks; of all when no key is named");
  verb->add_option("KEY", *keys, "64 hex digits, or name:TEXT");
  verb->footer("Example:\n  kedgectl verify --timeout-ms 600000");
  verb->callback(
      [&settings, run, keys] { *run = [&settings, keys] { return Verify(settings, *keys); }; });
}

}  // namespace kedge::ctl
