// Which variant a tier holds, as an operator says it. Default: what was put, for ever.
//
//     ssd: kivi4g32                    what goes down to the SSD goes as kivi4g32
//     ssd after 7d: kivi2g32           what the SSD has and nobody used for 7 days becomes kivi2g32
//     tenant 42: ssd: kivi2g32         the same for one tenant (its public id), in place of the
//                                      lines without one
//     tenant 42: ssd: raw              this tenant's blocks stay as they are
//     host: raw                        host memory: as put; nothing else can be said of it
//
// Times are in hours (36h) or days (7d). A line names one chain of gpu/codec/codec_chain.h.
//
// Put with durability `ssd`, a block lies on the SSD as it was put, because that was acknowledged;
// of the lines only `after` counts for it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/block_header.h"

namespace kedge {

class RecodePolicy {
 public:
  // InvalidArgument names the line and what was expected.
  static absl::StatusOr<RecodePolicy> Parse(std::span<const std::string> lines);

  // Nothing is ever recoded.
  bool empty() const { return variants().empty(); }
  // What a tenant's blocks become on their way to the SSD; `raw` when they stay.
  const Variant& OnSsd(uint64_t tenant) const;
  // And when nobody used them for `idle_hours`; `raw` when they stay. A block that is `held` as
  // what a line with a longer time names stays that, however often it is used meanwhile.
  const Variant& AfterIdle(uint64_t tenant, uint32_t idle_hours, const Variant& held) const;
  // The shortest time in any line; UINT32_MAX when none has one.
  uint32_t shortest_idle_hours() const;
  // Every chain that a line names, without `raw`.
  std::vector<Variant> variants() const;

 private:
  struct Rule {
    uint32_t after_hours = 0;  // 0: at once
    Variant variant;
  };
  // Sorted by time. The lines of one tenant, or those without one.
  using Rules = std::vector<Rule>;
  const Rules& Of(uint64_t tenant) const;

  std::map<uint64_t, Rules> rules_;  // by tenant
  Rules others_;
};

}  // namespace kedge
