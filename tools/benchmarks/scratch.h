// How much memory a call takes for itself: what it allocates at most at one time, and its stack.
//
// Programs that link this have operators new and delete that count (and are slower by that).
// Memory that does not come through them, malloc by C libraries, is not seen.
#pragma once

#include <cstdint>
#include <functional>

namespace kedge::bench {

struct ScratchUse {
  int64_t heap_bytes = 0;   // the peak, less what was there before
  int64_t stack_bytes = 0;  // of a thread that does nothing else
};

// Runs `call` twice on a thread of its own and looks at the second time.
ScratchUse MeasureScratch(const std::function<void()>& call);

}  // namespace kedge::bench
