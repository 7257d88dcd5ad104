// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/masq_ports.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

std::string text(const PortSet& ports)
{
    std::string out;
    for (unsigned port = 0; port < ports.size();) {
        if (!ports.test(port)) {
            ++port;
            continue;
        }
        unsigned last = port;
        while (last + 1 < ports.size() && ports.test(last + 1)) ++last;
        out += (out.empty() ? "" : " ") + std::to_string(port) + "-" + std::to_string(last);
        port = last + 1;
    }
    return out;
}

} // namespace

TEST_CASE("masq_ports: the default leaves out what belongs to the host and to Kubernetes")
{
    const auto chosen = choose_masq_ports({}, PortSysctls{}, 8472);
    CHECK(text(chosen.ports) == "1024-8471 8473-29999 61000-65535");
    CHECK_FALSE(chosen.is_shared);
    const PortSysctls reserved{{40000, 65535}, {{8080, 8080}, {9000, 9010}}};
    CHECK(text(choose_masq_ports({}, reserved, 8472).ports) == "1024-8079 8081-8471 8473-8999 9011-29999 32768-39999");
}

TEST_CASE("masq_ports: where the host takes all, its ports are shared")
{
    const auto chosen = choose_masq_ports({}, PortSysctls{{1024, 65535}, {{1024, 2000}}}, 8472);
    CHECK(chosen.is_shared);
    CHECK(text(chosen.ports) == "2001-8471 8473-29999 32768-65535");
}

TEST_CASE("masq_ports: -masq-ports is taken as it is, but for the VXLAN port")
{
    const auto ranges = parse_port_ranges("30000-30010,4789,1-2,65535");
    REQUIRE(ranges);
    CHECK(text(choose_masq_ports(*ranges, PortSysctls{}, 4789).ports) == "1-2 30000-30010 65535-65535");
}
