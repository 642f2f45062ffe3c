// kedgectl: looks at a Kedge node and handles single values.

#include <iostream>

#include "tools/kedgectl/kedgectl.h"

namespace {

constexpr char kFooter[] =
    "KEY is 64 hex digits, or name:TEXT, which is hashed under the tenant's salt.\n"
    "\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 unhealthy, 4 unreachable.\n"
    "\n"
    "Examples:\n"
    "  kedgectl status\n"
    "  echo hello | kedgectl put name:greeting - --salt secret\n"
    "  kedgectl get name:greeting --salt secret\n"
    "  kedgectl inspect name:greeting --salt secret --output json\n"
    "  kedgectl verify\n"
    "  kedgectl rm name:greeting --salt secret";

void AddSettings(CLI::App& app, kedge::ctl::Settings& settings) {
  app.add_option("--data", settings.data, "data address: tcp://HOST:PORT or shm://HOST:PORT")
      ->envname("KEDGE_DATA")
      ->capture_default_str();
  app.add_option("--control", settings.control, "control address: HOST:PORT")
      ->envname("KEDGE_CONTROL")
      ->capture_default_str();
  CLI::Option* salt = app.add_option("--salt", settings.salt, "the tenant's secret, for name:TEXT")
                          ->envname("KEDGE_SALT");
  app.add_option("--salt-file", settings.salt_file, "a file whose first line is the salt")
      ->envname("KEDGE_SALT_FILE")
      ->excludes(salt);
  app.add_option("--output,-o", settings.output, "table, json or yaml")
      ->envname("KEDGE_OUTPUT")
      ->check(CLI::IsMember({"table", "json", "yaml"}))
      ->capture_default_str();
  app.add_option("--timeout-ms", settings.timeout_ms, "of the whole command")
      ->envname("KEDGE_TIMEOUT_MS")
      ->check(CLI::Range(1u, 3'600'000u))
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace kedge::ctl;  // NOLINT
  Settings settings;
  Run run;
  CLI::App app("kedgectl: looks at a Kedge node and handles single values", "kedgectl");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(kedge_version()));
  AddSettings(app, settings);
  AddStatus(app, settings, &run);
  AddPut(app, settings, &run);
  AddGet(app, settings, &run);
  AddInspect(app, settings, &run);
  AddVerify(app, settings, &run);
  AddRm(app, settings, &run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return Report({kExitUsage, error.what(), "kedgectl --help"});
  }
  return run();
}
