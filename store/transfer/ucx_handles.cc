#include "store/transfer/ucx_handles.h"

#include <ucs/debug/log_def.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// While one is alive, UCX's errors and warnings of this thread are kept instead of printed.
class UcxLogCapture {
 public:
  UcxLogCapture() : lock_(mutex()) {
    kept_here = &text_;
    ucs_log_push_handler(&UcxLogCapture::Keep);
  }
  ~UcxLogCapture() {
    ucs_log_pop_handler();
    kept_here = nullptr;
  }
  const std::string& text() const { return text_; }

 private:
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static ucs_log_func_rc_t Keep(const char*, unsigned, const char*, ucs_log_level_t level,
                                const ucs_log_component_config_t*, const char* format,
                                va_list args) {
    if (kept_here == nullptr || level > UCS_LOG_LEVEL_WARN) return UCS_LOG_FUNC_RC_CONTINUE;
    char line[512];
    va_list copy;
    va_copy(copy, args);
    vsnprintf(line, sizeof(line), format, copy);
    va_end(copy);
    // Somebody else's variables are not our configuration: UCX may say so, and we go on.
    if (std::strncmp(line, "unused env", 10) == 0) return UCS_LOG_FUNC_RC_CONTINUE;
    if (!kept_here->empty()) kept_here->append("; ");
    kept_here->append(line);
    return UCS_LOG_FUNC_RC_STOP;
  }

  static thread_local std::string* kept_here;
  std::lock_guard<std::mutex> lock_;
  std::string text_;
};
thread_local std::string* UcxLogCapture::kept_here = nullptr;

absl::Status SetupError(const char* what, ucs_status_t status, const std::string& log) {
  return absl::FailedPreconditionError(
      absl::StrCat("ucx: ", what, ": ", ucs_status_string(status), log.empty() ? "" : ": ", log));
}

using Settings = std::vector<std::pair<const char*, std::string>>;

Settings AllSettings() {
  return {
      // SysV segments are removed by the kernel with their last user, also after SIGKILL; posix
      // ones are left in /dev/shm. No TCP beside it: UCX would open ports.
      {"TLS", "sysv"},
      {"MM_ERROR_HANDLING", "y"},
      // The socket tells when the peer dies. UCX would look for its pid, which means nothing in
      // another pid namespace.
      {"KEEPALIVE_INTERVAL", "inf"},
      // No rendezvous: it needs the receiver to reach into the sender's memory.
      {"RNDV_THRESH", "inf"},
      {"ZCOPY_THRESH", "inf"},  // shared memory has none
      {"MM_SEG_SIZE", absl::StrCat(kShmPayloadBytes + kFragmentHeadBytes)},
      {"MM_FIFO_SIZE", "64"},
      {"MM_RX_BUFS_GROW", "64"},
  };
}

}  // namespace

absl::Status UcxError(const char* what, ucs_status_t status) {
  return absl::UnavailableError(absl::StrCat(what, ": ", ucs_status_string(status)));
}

absl::StatusOr<UcxContext> UcxContext::Make() {
  UcxLogCapture log;
  ucp_config_t* config = nullptr;
  // Not UCX_*, which may be meant for another user of UCX in this process: KEDGE_UCX_*.
  ucs_status_t status = ucp_config_read("KEDGE", nullptr, &config);
  if (status != UCS_OK) return SetupError("ucp_config_read", status, log.text());
  const std::unique_ptr<ucp_config_t, decltype(&ucp_config_release)> owner(config,
                                                                           &ucp_config_release);
  for (const auto& [name, value] : AllSettings()) {
    status = ucp_config_modify(config, name, value.c_str());
    if (status != UCS_OK) return SetupError(name, status, log.text());
  }
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  status = ucp_init(&params, config, &context);
  if (status != UCS_OK) return SetupError("ucp_init", status, log.text());
  UcxContext result;
  result.context_.reset(context);
  if (!log.text().empty()) return SetupError("ucp_init", UCS_OK, log.text());
  return result;
}

absl::StatusOr<UcxWorker> UcxWorker::Make(const UcxContext& context) {
  UcxLogCapture log;
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucp_worker_h worker = nullptr;
  ucs_status_t status = ucp_worker_create(context.get(), &params, &worker);
  if (status != UCS_OK) return SetupError("ucp_worker_create", status, log.text());
  UcxWorker result;
  result.worker_.reset(worker);
  // Names that no transport knew show up here, as a warning.
  if (!log.text().empty()) return SetupError("ucp_worker_create", UCS_OK, log.text());
  status = ucp_worker_get_efd(worker, &result.event_fd_);
  if (status != UCS_OK) return SetupError("ucp_worker_get_efd", status, log.text());
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  status = ucp_worker_query(worker, &attributes);
  if (status != UCS_OK) return SetupError("ucp_worker_query", status, log.text());
  if (attributes.max_am_header < kAmHeaderBytesMax) {
    return absl::FailedPreconditionError(absl::StrCat(
        "ucx: active-message headers of ", attributes.max_am_header, " bytes, at least ",
        kAmHeaderBytesMax, " needed: the segment sizes did not take effect"));
  }
  result.am_header_bytes_max_ = kAmHeaderBytesMax;
  return result;
}

absl::StatusOr<std::vector<uint8_t>> UcxWorker::Address() const {
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  const ucs_status_t status = ucp_worker_get_address(get(), &address, &bytes);
  if (status != UCS_OK) return UcxError("ucp_worker_get_address", status);
  const auto* begin = reinterpret_cast<const uint8_t*>(address);
  std::vector<uint8_t> result(begin, begin + bytes);
  ucp_worker_release_address(get(), address);
  return result;
}

std::string WireOf(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t bytes = 0;
  FILE* const stream = open_memstream(&text, &bytes);
  if (stream == nullptr) return "";
  ucp_ep_print_info(endpoint, stream);
  fclose(stream);
  const std::string info(text, bytes);
  free(text);
  // "#   lane[1]:  0:sysv/memory.0 md[0] -> md[0]/sysv/sysdev[255] am am_bw#0 ..."
  for (size_t begin = 0; begin < info.size();) {
    const size_t end = std::min(info.find('\n', begin), info.size());
    const std::string line = info.substr(begin, end - begin) + " ";
    begin = end + 1;
    if (line.find("lane[") == std::string::npos || line.find(" am ") == std::string::npos) continue;
    const size_t name = line.find(':', line.find(']') + 2) + 1;
    std::string wire = line.substr(name, line.find('.', name) - name);
    return wire.substr(0, wire.find('/'));
  }
  return "";
}

}  // namespace kedge
