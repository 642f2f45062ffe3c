// kedge_open, kedge_close and what concerns a client as a whole.

#include <errno.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/c/handles.h"
#include "client/client_limits.h"
#include "proto/result_code.h"

namespace kedge::c {
namespace {

void CopyText(const std::string& from, char (&to)[64]) {
  const size_t n = std::min(from.size(), sizeof to - 1);
  std::memcpy(to, from.data(), n);
  to[n] = '\0';
}

}  // namespace
}  // namespace kedge::c

using namespace kedge;     // NOLINT: the ABI's functions live in no namespace
using namespace kedge::c;  // NOLINT

extern "C" {

const char* kedge_code_name(kedge_code code) {
  if (code == KEDGE_PENDING) return "pending";
  if (code < 0 || code > kResultCodeMax) return "unknown";
  return ResultCodeName(static_cast<ResultCode>(code));
}

const char* kedge_last_error(void) { return LastError().c_str(); }

const char* kedge_version(void) { return "kedge 0.1.0 (abi 1)"; }

kedge_code kedge_open(const kedge_options* caller_options, kedge_client** client) {
  KEDGE_NEED_POINTER(client);
  *client = nullptr;
  kedge_options options;
  if (kedge_code code = ReadStruct("options", caller_options, options); code != KEDGE_OK) {
    return code;
  }
  if (options.address == nullptr) return Fail(KEDGE_INVALID, "options.address is NULL");
  if (options.salt == nullptr) return Fail(KEDGE_INVALID, "options.salt is NULL");
  if ((options.flags & ~KEDGE_OPEN_NO_WAIT) != 0) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.flags: ", options.flags, " is unknown"));
  }
  if (options.window_bytes != 0 && options.window_bytes < kWindowMinBytes) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.window_bytes: ", options.window_bytes,
                                            " is less than ", kWindowMinBytes));
  }
  const std::string name =
      options.client_name != nullptr ? options.client_name : program_invocation_short_name;
  if (name.size() > kTextBytesMax) {
    return Fail(KEDGE_INVALID, absl::StrCat("options.client_name: ", name.size(),
                                            " bytes are more than ", kTextBytesMax));
  }
  auto salt = TenantSalt::FromText(options.salt);
  if (!salt.ok()) return Fail(salt.status());

  auto state = std::make_shared<ClientState>();
  state->salt = *salt;
  state->forks = Forks();
  state->deadline_ms = options.deadline_ms != 0 ? options.deadline_ms : kDeadlineDefaultMs;
  state->tenant = options.tenant;
  state->window_bytes = options.window_bytes != 0 ? options.window_bytes : kWindowDefaultBytes;
  auto engine = Engine::Open({options.address, name, options.tenant});
  if (!engine.ok()) return Fail(engine.status());
  state->engine = *std::move(engine);
  if ((options.flags & KEDGE_OPEN_NO_WAIT) == 0) {
    const uint32_t wait_ms = options.connect_ms != 0 ? options.connect_ms : kConnectDefaultMs;
    if (absl::Status status = state->engine->WaitConnected(wait_ms); !status.ok()) {
      return Fail(status);
    }
  }
  *client = new kedge_client{std::move(state)};
  return Ok();
}

void kedge_close(kedge_client* client) {
  if (client == nullptr || CarriedThroughFork(*client->state)) return;
  client->state->engine->Close();
  delete client;
}

kedge_code kedge_client_info(kedge_client* client, kedge_info* info) {
  KEDGE_NEED(client);
  KEDGE_NEED_POINTER(info);
  kedge_info checked;
  if (kedge_code code = ReadStruct("info", info, checked); code != KEDGE_OK) return code;
  const EngineInfo now = client->state->engine->info();
  kedge_info out{};
  out.connected = now.connected ? 1 : 0;
  out.session = now.session;
  out.epoch = now.epoch;
  out.reconnects = now.reconnects;
  out.requests = now.requests;
  out.corrupt_parts = now.corrupt_parts;
  out.dropped_chunks = now.dropped_chunks;
  out.bytes_received = now.bytes_received;
  out.bytes_sent = now.bytes_sent;
  out.lease_ms_max = now.lease_ms_max;
  out.put_idle_ms = now.put_idle_ms;
  CopyText(now.node_id, out.node_id);
  CopyText(now.wire, out.wire);
  WriteStruct(out, info);
  return Ok();
}

kedge_code kedge_register_memory(kedge_client* client, void* data, uint64_t bytes) {
  KEDGE_NEED(client);
  const absl::Status status = client->state->memory.Add(data, bytes);
  return status.ok() ? Ok() : Fail(status);
}

kedge_code kedge_unregister_memory(kedge_client* client, void* data) {
  KEDGE_NEED(client);
  const absl::Status status = client->state->memory.Remove(data);
  return status.ok() ? Ok() : Fail(status);
}

kedge_code kedge_release(kedge_client* client, uint64_t lease) {
  KEDGE_NEED(client);
  Engine* engine = client->state->engine.get();
  std::vector<uint64_t> leases = client->state->leases.Take(lease);
  if (leases.empty()) return Ok();
  engine->Post([engine, leases = std::move(leases)] {
    if (!engine->connected()) return;  // they ended with their session
    ReleaseBody body;
    body.leases = leases;
    EncodeRelease(body, engine->Body());
    engine->Send(FrameType::kRelease, 0, 0);
  });
  return Ok();
}

}  // extern "C"
