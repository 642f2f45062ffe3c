#include "store/transfer/transport_counters.h"

#include <utility>

namespace kedge {

void TransportCounters::Visit(std::string_view transport, MetricsVisitor& visitor) const {
  const auto visit = [&](std::string_view name, std::string_view help, std::string_view direction,
                         const std::atomic<uint64_t>& value) {
    const std::pair<std::string_view, std::string_view> labels[] = {{"transport", transport},
                                                                    {"direction", direction}};
    const double number = static_cast<double>(value.load(std::memory_order_relaxed));
    visitor.Counter(name, help, MetricLabels(labels, direction.empty() ? 1 : 2), number);
  };
  visit("kedge_transport_messages_total", "Messages carried.", "out", messages_sent);
  visit("kedge_transport_messages_total", "Messages carried.", "in", messages_received);
  visit("kedge_transport_bytes_total", "Bytes of heads and payloads carried.", "out", bytes_sent);
  visit("kedge_transport_bytes_total", "Bytes of heads and payloads carried.", "in",
        bytes_received);
  visit("kedge_transport_sends_refused_total", "Sends refused because the queue was full.", "",
        sends_refused);
  visit("kedge_transport_connections_opened_total", "Connections on which both sides have greeted.",
        "", connections_opened);
  visit("kedge_transport_connections_closed_total", "Connections that ended.", "",
        connections_closed);
  visit("kedge_transport_greetings_refused_total",
        "Connections ended because the peer's greeting was not Kedge's, or another release's.", "",
        greetings_refused);
}

}  // namespace kedge
