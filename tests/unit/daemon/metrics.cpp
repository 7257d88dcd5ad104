// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/metrics.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

bool has(const std::string& text, const std::string& line)
{
    return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

} // namespace

TEST_CASE("metrics: counters by reason and hook, flows that live, and the remote ends with the most")
{
    MetricsView view;
    view.is_ready = true;
    view.packets.resize(TW_R__MAX);
    view.packets[TW_R_NAT_PORTS].to_wire = 7;
    auto& nat = view.nat.emplace();
    nat.capacity = 100000;
    nat.ports = 33000;
    NatFlow flow;
    flow.remote = *Ip::parse("2001:db8::7");
    flow.addr = *Ip::parse("2001:db8:1::10");
    flow.remote_port = 443;
    flow.proto = 6;
    flow.left = 10;
    nat.flows = {flow, flow, flow, flow};
    nat.flows[2].plain = true;
    nat.flows[3].left = 0; // its time is over
    const std::string text = metrics_text(view);
    CHECK(has(text, "twill_ready 1"));
    CHECK(has(text, R"(twill_packets_total{reason="nat_ports",class="drop",hook="to_wire"} 7)"));
    CHECK(has(text, R"(twill_packets_total{reason="nat_ports",class="drop",hook="from_pod"} 0)"));
    CHECK(has(text, R"(twill_nat_flows{protocol="tcp"} 2)"));
    CHECK(has(text, R"(twill_nat_flows{protocol="udp"} 0)"));
    CHECK(has(text, "twill_nat_plain_flows 1"));
    CHECK(has(text, "twill_nat_capacity 100000"));
    CHECK(has(text, "twill_nat_ports 33000"));
    CHECK(has(
        text,
        R"(twill_nat_destination_flows{remote="2001:db8::7",remote_port="443",protocol="tcp",address="2001:db8:1::10"} 2)"));
    CHECK(text.find("# TYPE twill_packets_total counter") != std::string::npos);
}

TEST_CASE("metrics: a node without programs tells whether it is ready, and no more")
{
    const std::string text = metrics_text({});
    CHECK(has(text, "twill_ready 0"));
    CHECK(text.find("twill_packets") == std::string::npos);
    CHECK(text.find("twill_nat") == std::string::npos);
}
