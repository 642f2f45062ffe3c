// A kPutBegin whose answer waits: for held blocks to be written to the SSD, because this caller
// wants them that durable, or for room in host memory. Loop only.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "proto/frame.h"
#include "proto/messages.h"

namespace kedge {

struct PutWait {
  uint64_t session = 0;
  FrameHeader request;
  int64_t started_us = 0;
  std::vector<PutReadyItem> items;  // the answer, as far as it is known
  size_t waits_for = 0;             // items of it that are not

  Variant variant;                                        // of the items below
  std::vector<std::pair<size_t, PutBeginItem>> for_room;  // index in `items`, what was asked
  int64_t room_until_ms = 0;
};

}  // namespace kedge
