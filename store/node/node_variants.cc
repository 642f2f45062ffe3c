// Variants of a block: which may be put, and removing one of them.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {

// Is this block of the session's tenant, and may its model have such a variant?
absl::Status Node::Admit(const PutSlot& slot, const BlockHeader& header) const {
  const auto session = session_by_id_.find(slot.session);
  if (!header.model.is_zero() && session != session_by_id_.end() &&
      header.tenant != session->second->tenant) {
    return absl::PermissionDeniedError(absl::StrCat("put_commit.header.tenant: ", header.tenant,
                                                    ", the session's is ",
                                                    session->second->tenant));
  }
  if (header.fidelity == Fidelity::kLossless) return absl::OkStatus();
  return profiles_->Admits(header, header.variant);
}

void Node::RemoveVariant(const BlockKey& key, const Variant& variant, bool force,
                         std::function<void(absl::StatusOr<uint32_t>)> done) {
  const uint16_t id = map_.variants().Find(variant);
  const std::string name = absl::StrCat("key ", key.ToHex(), " as ", std::string(variant.view()));
  bool pinned = false;
  const uint32_t removed = id == kNoVariantId ? 0 : map_.RemoveAnywhere(key, !force, &pinned, id);
  if (pinned) {
    return done(
        absl::FailedPreconditionError(absl::StrCat(name, ": the block is leased or being read")));
  }
  if (removed == 0) return done(absl::NotFoundError(absl::StrCat(name, ": not held")));
  if (ssd_ == nullptr) return done(removed);
  mover_->WriteTombstones(std::vector<BlockName>{{key, variant}}, [removed, done = std::move(done)](
                                                                      const absl::Status& status) {
    done(status.ok() ? absl::StatusOr<uint32_t>(removed) : absl::StatusOr<uint32_t>(status));
  });
}

}  // namespace kedge
