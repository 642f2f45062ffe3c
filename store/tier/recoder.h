// Turns a block's image into that of a smaller variant: the arithmetic of the mover's recoding, and
// its counts. Blocking, no I/O; any executor thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "store/tier/page_buffer.h"
#include "store/tier/profile_set.h"
#include "store/tier/recode_policy.h"
#include "store/world/metrics.h"

namespace kedge {

class Recoder {
 public:
  // `profiles` must outlive the recoder.
  Recoder(RecodePolicy policy, const ProfileSet& profiles)
      : policy_(std::move(policy)), profiles_(profiles) {}

  const RecodePolicy& policy() const { return policy_; }

  // What a block becomes on its way to the SSD, or after so many hours; nothing when it stays: the
  // policy says so, it has that variant or a smaller one already, or it cannot be (counted).
  std::optional<Variant> OnSsd(const BlockHeader& header);
  std::optional<Variant> AfterIdle(const BlockHeader& header, uint32_t idle_hours);

  struct Image {
    BlockHeader header;  // encoded in `bytes`
    PageBuffer bytes;
    uint64_t image_bytes = 0;
  };
  // A verified payload as `variant`. Errors are counted; the block then stays as it is. A lossy one
  // that would not get smaller is FAILED_PRECONDITION.
  absl::StatusOr<Image> Recode(const BlockHeader& header, std::span<const uint8_t> payload,
                               const Variant& variant);

  // The image is on the SSD.
  void Count(const BlockHeader& from, const BlockHeader& to);
  void VisitMetrics(MetricsVisitor& visitor) const;

 private:
  std::optional<Variant> Wanted(const BlockHeader& header, const Variant& variant);
  bool MayGetSmaller(const BlockHeader& header, const Variant& variant) const;

  const RecodePolicy policy_;
  const ProfileSet& profiles_;
  struct Sums {
    uint64_t blocks = 0;
    uint64_t bytes_before = 0;
    uint64_t bytes_after = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Sums> sums_;  // from, to
  std::atomic<uint64_t> refused_{0};  // by the gate, or because the model is not known
  std::atomic<uint64_t> failed_{0};   // a value that the chain cannot encode
  std::atomic<uint64_t> larger_{0};   // lossy, and no smaller afterwards
};

}  // namespace kedge
