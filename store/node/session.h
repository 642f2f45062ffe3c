// One client on one connection. Everything a client holds (leases, slots, running gets) hangs on
// its session and ends with it. Loop only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proto/offset_messages.h"
#include "store/node/get_stream.h"
#include "store/transfer/transport.h"

namespace kedge {

// A question to a pool whose sketch comes in several frames, in any order.
struct MixInParts {
  FrameHeader request;  // of the first that came
  MixBody mix;
  std::vector<bool> rows;  // of the sketch, that are there
  uint32_t missing = 0;
  int64_t deadline_us = 0;
};

// A question that is asked: setting the flag is all that ends it early.
struct MixAsked {
  uint64_t request = 0;
  std::shared_ptr<std::atomic<bool>> cancelled;
};

struct Session {
  Connection* connection = nullptr;
  uint64_t id = 0;  // 0: before kHello
  uint64_t tenant = 0;
  std::string client_name;
  int64_t last_heard_ms = 0;
  int64_t close_at_ms = 0;  // not 0: nothing more is heard, the connection closes when the last
                            // words had time to leave
  std::string close_why;

  GetSender sender;
  std::vector<uint32_t> streams;  // running gets
  std::vector<uint64_t> puts;     // open slots
  std::vector<MixInParts> mixes_in_parts;
  std::vector<MixAsked> mixes;
  bool stalled = false;  // waits for the node's window, not its own
  bool pumping = false;

  // Cancels of requests that are not known: they may have overtaken their kGet.
  std::array<uint64_t, 16> early_cancels{};
  uint32_t next_early_cancel = 0;
};

}  // namespace kedge
