#include "store/tier/ssd_live.h"

#include <map>

#include "gtest/gtest.h"
#include "store/tier/ssd_testing.h"
#include "store/world/random.h"

namespace kedge {
namespace {

TEST(SsdLiveMap, AgreesWithANaiveModel) {
  Random random(3);
  SsdLiveMap live(99);
  std::map<std::pair<uint64_t, int>, SsdLocation> model;
  const Variant variants[] = {*Variant::Parse("a"), *Variant::Parse("b"), *Variant::Parse("c")};
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t id = random.Below(30);
    const int variant = static_cast<int>(random.Below(3));
    const uint64_t what = random.Below(100);
    const SsdLocation location{static_cast<uint32_t>(random.Below(6)),
                               static_cast<uint32_t>(step + 1), 1};
    if (what < 60) {
      live.Put(TestKey(id), variants[variant], location);
      model[{id, variant}] = location;
    } else if (what < 75) {
      live.RemoveKey(TestKey(id));
      for (int v = 0; v < 3; ++v) model.erase({id, v});
    } else if (what < 98) {
      const auto found = model.find({id, variant});
      ASSERT_FALSE(live.RemoveAt(TestKey(id), variants[variant], location));
      ASSERT_EQ(found != model.end(),
                live.RemoveAt(TestKey(id), variants[variant],
                              found != model.end() ? found->second : location));
      if (found != model.end()) model.erase(found);
    } else {
      live.RemoveSegment(location.segment);
      for (auto it = model.begin(); it != model.end();) {
        it = it->second.segment == location.segment ? model.erase(it) : std::next(it);
      }
    }
    ASSERT_EQ(live.blocks(), model.size());
    for (const auto& [name, at] : model) {
      ASSERT_TRUE(live.IsLive(TestKey(name.first), variants[name.second], at));
    }
  }
}

}  // namespace
}  // namespace kedge
