// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/masq_ports.hpp"

#include <charconv>
#include <fstream>
#include <string>

namespace twill {

namespace {

constexpr PortRange kUnprivileged{1024, 65535};
constexpr PortRange kNodePorts{30000, 32767};

std::optional<std::uint16_t> parse_port(std::string_view text)
{
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc{} || end != text.data() + text.size() || port == 0) return std::nullopt;
    return port;
}

void set(PortSet& ports, const PortRange& range, bool value)
{
    for (unsigned port = range.first; port <= range.last; ++port) ports.set(port, value);
}

} // namespace

std::optional<std::vector<PortRange>> parse_port_ranges(std::string_view text)
{
    std::vector<PortRange> ranges;
    for (;;) {
        const auto comma = text.find(',');
        const auto item = text.substr(0, comma);
        const auto dash = item.find('-');
        const auto first = parse_port(item.substr(0, dash));
        const auto last = dash == item.npos ? first : parse_port(item.substr(dash + 1));
        if (!first || !last || *last < *first) return std::nullopt;
        ranges.push_back({*first, *last});
        if (comma == text.npos) return ranges;
        text.remove_prefix(comma + 1);
    }
}

PortSysctls read_port_sysctls()
{
    PortSysctls sysctls;
    std::ifstream local("/proc/sys/net/ipv4/ip_local_port_range");
    unsigned first = 0, last = 0;
    if (local >> first >> last && first != 0 && last <= 0xffff && first <= last)
        sysctls.local = {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
    std::ifstream reserved("/proc/sys/net/ipv4/ip_local_reserved_ports");
    std::string list;
    if (reserved >> list) sysctls.reserved = parse_port_ranges(list).value_or(std::vector<PortRange>{});
    return sysctls;
}

MasqPorts choose_masq_ports(const std::vector<PortRange>& wanted, const PortSysctls& sysctls, std::uint16_t vxlan_port)
{
    MasqPorts chosen;
    for (const auto& range : wanted) set(chosen.ports, range, true);
    if (wanted.empty()) {
        set(chosen.ports, kUnprivileged, true);
        set(chosen.ports, kNodePorts, false);
        for (const auto& range : sysctls.reserved) set(chosen.ports, range, false);
        PortSet others = chosen.ports;
        set(others, sysctls.local, false);
        others.reset(vxlan_port);
        chosen.is_shared = others.none();
        if (!chosen.is_shared) chosen.ports = others;
    }
    chosen.ports.reset(vxlan_port);
    return chosen;
}

} // namespace twill
