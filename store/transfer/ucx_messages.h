// How a message looks as a UCX active message. Internal to transport_net; part of what two ends
// have to agree on.
#pragma once

#include <cstdint>

namespace kedge {

// Active-message ids. In the first the header of the active message is the head and its data the
// payload.
inline constexpr unsigned kAmHeadInHeader = 1;
// In the second the header is the head's length (4 bytes, little-endian) and the data head and
// payload.
inline constexpr unsigned kAmHeadInData = 2;

}  // namespace kedge
