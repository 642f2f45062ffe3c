// Every limit of the client, with its reason. What the node and the wire allow is in proto/.
#pragma once

#include <cstdint>

namespace kedge {

// Requests that name no deadline. Long enough for a batch of 1 GiB on a slow link.
inline constexpr uint32_t kDeadlineDefaultMs = 10'000;
// How long kedge_open waits for the node: a node that restarts on the same machine is back by then.
inline constexpr uint32_t kConnectDefaultMs = 3'000;

// Bulk bytes of one request that are asked for, or promised to the node, at once. Bounds what a
// batch of 1 GiB pins in the node, and covers a round trip of 10 ms at 3 GB/s.
inline constexpr uint64_t kWindowDefaultBytes = 32ull << 20;
inline constexpr uint64_t kWindowMinBytes = 1ull << 20;
// A batch goes to the node in sub-requests of about this many bytes: the next one is on the way
// while one is served.
inline constexpr uint64_t kSubRequestBytes = 8ull << 20;
// Bulk bytes handed to the transport and not yet sent. The wire has buffers of its own; what waits
// here was digested already, and is to be in the second-level cache still when its turn comes.
// (With 8 MiB a put of 1 MiB values costs the client 10% more over tcp and shared memory.) A cancel
// gets so much memory back within a millisecond.
inline constexpr uint64_t kSendWindowBytes = 1ull << 20;
// Segments smaller than this are gathered into messages of up to kStagingBytes: a message costs
// about as much as copying 16 KiB.
inline constexpr uint32_t kGatherBelowBytes = 16u << 10;
inline constexpr uint32_t kStagingBytes = 32u << 10;

// One message of a put: it is digested and then copied by the transport, which finds it in the
// second-level cache (1 to 2 MiB a core) as long as it is no larger.
inline constexpr uint32_t kPutPieceBytesMax = 512u << 10;

// A layer group of a fetch carries at least this much: below it round trips dominate.
inline constexpr uint64_t kLayerGroupBytesMin = 128u << 10;
// Layer groups on the way at once: one that is served and one that waits behind it; more would
// smear the order. Small groups go deeper, to cover a round trip.
inline constexpr uint32_t kLayerGroupsInFlight = 2;
inline constexpr uint64_t kLayerBytesInFlightMin = 1ull << 20;
// Sub-requests of one request on the way at once. Below what a node queues for one session.
inline constexpr uint32_t kSubRequestsInFlightMax = 64;

// Digest and copy go in stripes that stay in the second-level cache.
inline constexpr uint32_t kStripeBytes = 64u << 10;
// Pieces of one item that arrived out of order and do not touch. A correct node stays far below.
inline constexpr uint32_t kGapsMax = 4096;
// Bytes that arrived before the header that says where they belong, for one item.
inline constexpr uint64_t kEarlyBytesMax = 8ull << 20;

inline constexpr int64_t kTickMs = 20;        // deadlines are checked this often
inline constexpr int64_t kPingAfterMs = 500;  // silence, with requests outstanding, before a ping
inline constexpr int64_t kSilenceMaxMs =
    5'000;  // and before the connection is given up: a stopped node
inline constexpr int64_t kHelloMaxMs = 3'000;  // from connect to welcome
inline constexpr int64_t kBackoffMinMs = 50;   // between attempts to connect, doubling
inline constexpr int64_t kBackoffMaxMs = 1'000;
// After a cancel or a deadline: how long borrowed memory may stay in the send queue before the
// connection is closed to get it back.
inline constexpr int64_t kSendDrainMs = 100;
// A waiting thread looks this many times before it sleeps.
inline constexpr int kSpinsBeforeSleep = 200;

inline constexpr uint32_t kSequenceBlocksMax = 65536;
inline constexpr uint32_t kSegmentsMax = 4096;
inline constexpr uint32_t kStaleEpochRetries = 2;

}  // namespace kedge
