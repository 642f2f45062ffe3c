// Which node a key lives on: the client's copy of the member list, and its epoch.
//
// The list comes with the node's welcome, and again with every answer that says the epoch was an
// old one. With one node every key is at home there. [loop]
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proto/messages.h"

namespace kedge {

class Route {
 public:
  // The address that the caller gave; what is there until a node has said otherwise.
  explicit Route(std::string seed_address) : seed_address_(std::move(seed_address)) {}

  uint64_t epoch() const { return epoch_; }
  const std::vector<Member>& members() const { return members_; }
  // Takes a newer list; an older one (a late answer) changes nothing. Returns whether it was taken.
  bool Update(uint64_t epoch, const std::vector<Member>& members) {
    if (epoch < epoch_) return false;
    epoch_ = epoch;
    members_ = members;
    return true;
  }
  // A node that came back may count its epochs anew: its welcome is believed whatever was known.
  void Reset(uint64_t epoch, const std::vector<Member>& members) {
    epoch_ = epoch;
    members_ = members;
  }
  // Data address of the node where blocks of this placement live.
  const std::string& HomeOf(uint64_t /*placement*/) const { return seed_address_; }

 private:
  std::string seed_address_;
  uint64_t epoch_ = 0;
  std::vector<Member> members_;
};

}  // namespace kedge
