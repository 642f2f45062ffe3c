// rANS with vectors: the same symbols as rans.cc, eight lanes in a register, four registers a turn.
#include "gpu/codec/rans.h"
#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/codec/rans_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::codec {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<uint32_t, 8>;
using WordTag = hn::Rebind<uint16_t, Tag>;
using SymbolTag = hn::Rebind<uint8_t, Tag>;

// For each set of lanes that need a word: which of the next words each of them gets.
struct Places {
  alignas(32) uint32_t of[256][8];
};
constexpr Places MakePlaces() {
  Places places{};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    uint32_t next = 0;
    for (uint32_t lane = 0; lane < 8; ++lane)
      places.of[mask][lane] = (mask >> lane & 1) ? next++ : 0;
  }
  return places;
}
constexpr Places kPlaces = MakePlaces();

// One turn of eight lanes. Reads up to 16 bytes at reader.next.
HWY_INLINE hn::Vec<Tag> Turn(const uint32_t* slots, hn::Vec<Tag> state, RansReader& reader,
                             uint8_t* symbols) {
  const Tag d;
  const hn::RebindToSigned<Tag> di;
  const auto low12 = hn::Set(d, kRansTotal - 1);
  const auto slot = hn::GatherIndex(d, slots, hn::BitCast(di, hn::And(state, low12)));
  hn::StoreU(hn::TruncateTo(SymbolTag(), slot), SymbolTag(), symbols);
  const auto share = hn::Add(hn::And(hn::ShiftRight<8>(slot), low12), hn::Set(d, 1));
  state = hn::Add(hn::Mul(share, hn::ShiftRight<kRansBits>(state)), hn::ShiftRight<20>(slot));
  const auto hungry = hn::Eq(hn::ShiftRight<16>(state), hn::Zero(d));
  uint8_t bits[8] = {};
  hn::StoreMaskBits(d, hungry, bits);
  const auto words =
      hn::PromoteTo(d, hn::LoadU(WordTag(), reinterpret_cast<const uint16_t*>(reader.next)));
  const auto placed = hn::TableLookupLanes(words, hn::SetTableIndices(d, kPlaces.of[bits[0]]));
  reader.next += 2 * hwy::PopCount(uint32_t{bits[0]});
  return hn::IfThenElse(hungry, hn::Or(hn::ShiftLeft<16>(state), placed), state);
}

int64_t DecodeVectors(const RansTable& table, int64_t count, RansReader& reader, uint8_t* symbols) {
  const Tag d;
  if (hn::Lanes(d) != 8 || reader.lanes != kRansLanesMax) return 0;
  const uint32_t* slots = table.slots();
  auto a = hn::LoadU(d, reader.states.data());
  auto b = hn::LoadU(d, reader.states.data() + 8);
  auto c = hn::LoadU(d, reader.states.data() + 16);
  auto e = hn::LoadU(d, reader.states.data() + 24);
  int64_t done = 0;
  // A turn takes 32 words at most, and looks at no more.
  while (done + kRansLanesMax <= count && reader.words_left() >= kRansLanesMax) {
    a = Turn(slots, a, reader, symbols + done);
    b = Turn(slots, b, reader, symbols + done + 8);
    c = Turn(slots, c, reader, symbols + done + 16);
    e = Turn(slots, e, reader, symbols + done + 24);
    done += kRansLanesMax;
  }
  hn::StoreU(a, d, reader.states.data());
  hn::StoreU(b, d, reader.states.data() + 8);
  hn::StoreU(c, d, reader.states.data() + 16);
  hn::StoreU(e, d, reader.states.data() + 24);
  return done;
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::codec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::codec {

HWY_EXPORT(DecodeVectors);

int64_t RansDecodeVectors(const RansTable& table, int64_t count, RansReader& reader,
                          uint8_t* symbols) {
  return HWY_DYNAMIC_DISPATCH(DecodeVectors)(table, count, reader, symbols);
}

}  // namespace kedge::codec
#endif  // HWY_ONCE
