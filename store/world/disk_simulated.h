// A disk in memory that behaves as badly as a real one may.
//
// Power cuts. What was written since a file's last Sync is not safe. `CutPower` keeps of each such
// write all, nothing, or a random set of its 512-byte sectors; the last write of a file is torn: a
// random prefix, sometimes with holes. A file whose directory entry was not synced (its creation
// was cut short) may be gone; a removal that was not synced may not have happened. Open files and
// locks of the time before are dead: they answer UNAVAILABLE. `FailAfter(n)` turns the power off in
// the middle of the n-th operation from now; everything after it answers UNAVAILABLE, until
// `CutPower` decides what survived.
//
// Also: a capacity, a read-only switch, damage at rest and damage on the way of a read. Every error
// text names path and offset, as the real disk's do. Any thread; one lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "store/world/disk.h"
#include "store/world/random.h"

namespace kedge {

class SimulatedDisk final : public Disk {
 public:
  static constexpr uint32_t kSectorBytes = 512;

  SimulatedDisk();
  ~SimulatedDisk() override;

  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, bool create) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status Remove(const std::string& path) override;
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<File>> Lock(const std::string& directory) override;

  // Off and on again.
  void CutPower(Random& random);
  // Operations: a write (each piece of a gather write), a sync, a creation, a sync of a directory,
  // a removal.
  void FailAfter(uint64_t operations);
  uint64_t operations() const;  // done since the disk was made
  bool power_failed() const;

  void SetCapacityBytes(uint64_t bytes);
  void SetReadOnly(bool read_only);
  // The next `syncs` syncs answer DATA_LOSS, and what they should have made safe stays unsafe.
  void FailSyncs(int syncs);
  // Each read returns one flipped bit with this probability. 0 turns it off.
  void FlipBitsOnRead(double probability, uint64_t seed);
  // Flips the bits of `mask` in one stored byte, for good.
  void Damage(const std::string& path, uint64_t offset, uint8_t mask = 0xff);
  // Cuts a file's end off, for good.
  void Truncate(const std::string& path, uint64_t bytes);
  // Paths of all files, sorted.
  std::vector<std::string> Paths() const;

 private:
  class OpenFile;
  struct Contents;

  // The parts of the public calls; `mutex_` is held.
  absl::Status Operation(const char* verb, const std::string& path);
  absl::Status Write(Contents& file, uint64_t generation, uint64_t offset,
                     std::span<const uint8_t> bytes);
  absl::Status Read(Contents& file, uint64_t generation, uint64_t offset, std::span<uint8_t> bytes);
  absl::Status Sync(Contents& file, uint64_t generation);
  absl::Status CheckGeneration(uint64_t generation, const std::string& path) const;
  uint64_t UsedBytes() const;

  mutable std::mutex mutex_;  // guards all below
  std::set<std::string> directories_;
  std::map<std::string, std::shared_ptr<Contents>> files_;
  std::map<std::string, std::shared_ptr<Contents>> removed_unsynced_;
  std::set<std::string> locks_;
  uint64_t generation_ = 0;  // counts power cuts
  uint64_t operations_ = 0;
  uint64_t fail_at_ = ~0ull;
  bool power_failed_ = false;
  bool read_only_ = false;
  int failing_syncs_ = 0;
  uint64_t capacity_bytes_ = ~0ull;
  double flip_probability_ = 0;
  Random flips_{1};
};

}  // namespace kedge
