// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/iface.hpp"

#include <algorithm>
#include <cerrno>
#include <regex>
#include <tuple>
#include <utility>

namespace twill {

namespace {

constexpr unsigned kEthernet = 1;        // ARPHRD_ETHER
constexpr std::uint8_t kScopeLink = 253; // RT_SCOPE_LINK: this and wider numbers reach no other network
constexpr std::uint32_t kMainTable = 254;
constexpr std::uint8_t kUnicast = 1; // RTN_UNICAST

bool is_link_local(const nl::Address& address)
{
    const std::uint8_t* bytes = address.ip.network();
    const bool by_range =
        address.ip.is_v4() ? bytes[0] == 169 && bytes[1] == 254 : bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
    return by_range || address.scope >= kScopeLink;
}

/// An interface under consideration, and the addresses that the selector itself named.
struct Candidate {
    const nl::Link* link = nullptr;
    PerFamily<std::optional<Ip>> address;
};

/// One choice being made: borrows everything for its duration.
class Chooser {
public:
    Chooser(const IfaceOptions& options, const PerFamily<bool>& enabled, const IfaceView& view)
        : options_(options), enabled_(enabled), view_(view)
    {}

    Result<WireChoice> run()
    {
        if (!enabled_.v4 && !enabled_.v6) return Error{EINVAL, "interface: both address families are off"};
        if (options_.names.empty() && options_.regexes.empty() && options_.can_reach.empty()) {
            if (accept(by_default())) return *std::move(choice_);
            return failure();
        }
        for (const auto& name : options_.names)
            if (accept(by_name("-iface " + name, name))) return *std::move(choice_);
        for (const auto& text : options_.regexes)
            if (by_regex(text)) return *std::move(choice_);
        if (!options_.can_reach.empty() && accept(by_can_reach())) return *std::move(choice_);
        return failure();
    }

private:
    const nl::Link* link_of(IfIndex index) const
    {
        const auto found = std::ranges::find(view_.links, index, &nl::Link::index);
        return found == view_.links.end() ? nullptr : &*found;
    }

    const nl::Link* holder_of(const Ip& ip) const
    {
        const auto found = std::ranges::find(view_.addresses, ip, &nl::Address::ip);
        return found == view_.addresses.end() ? nullptr : link_of(found->ifindex);
    }

    /// A public IP without a selector is one itself, as with flannel; else the default routes decide.
    Result<Candidate> by_default() const
    {
        const Family first = enabled_.v4 ? Family::v4 : Family::v6;
        if (const auto& ip = options_.public_ip[first])
            return by_name((first == Family::v4 ? "-public-ip " : "-public-ipv6 ") + ip->to_string(), ip->to_string());
        Candidate candidate;
        for (const Family family : kFamilies) {
            if (!enabled_[family]) continue;
            const nl::Link* link = default_route_link(family);
            if (link == nullptr)
                return Error{ENODEV, "no " + std::string(to_string(family)) +
                                         " default route leads to an interface: choose one with -iface"};
            if (candidate.link != nullptr && candidate.link != link)
                return Error{ENODEV, "the default routes differ: IPv4 by " + candidate.link->name + ", IPv6 by " +
                                         link->name + ": choose an interface with -iface"};
            candidate.link = link;
        }
        return candidate;
    }

    const nl::Link* default_route_link(Family family) const
    {
        const nl::Route* best = nullptr;
        for (const auto& route : view_.routes) {
            if (route.dst.bits() != 0 || route.dst.family() != family) continue;
            if (route.table != kMainTable || route.type != kUnicast || link_of(route.ifindex) == nullptr) continue;
            if (best == nullptr || route.metric < best->metric) best = &route;
        }
        return best == nullptr ? nullptr : link_of(best->ifindex);
    }

    /// `name` is an interface's name or an address on it.
    Result<Candidate> by_name(const std::string& selector, const std::string& name) const
    {
        Candidate candidate;
        const auto ip = Ip::parse(name);
        if (!ip) {
            const auto found = std::ranges::find(view_.links, name, &nl::Link::name);
            if (found == view_.links.end()) return Error{ENODEV, selector + ": no such interface"};
            candidate.link = &*found;
            return candidate;
        }
        candidate.link = holder_of(*ip);
        if (candidate.link == nullptr) return Error{ENODEV, selector + ": no interface has this address"};
        candidate.address[ip->family()] = *ip;
        const Family other = ip->is_v4() ? Family::v6 : Family::v4;
        const auto& other_ip = options_.public_ip[other];
        if (!enabled_[other] || !other_ip) return candidate;
        if (holder_of(*other_ip) != candidate.link)
            return Error{ENODEV, selector + ": " + other_ip->to_string() + " is not on the same interface, " +
                                     candidate.link->name};
        candidate.address[other] = *other_ip;
        return candidate;
    }

    /// Tries addresses of all interfaces, then names; takes the first match that can serve.
    bool by_regex(const std::string& text)
    {
        std::regex regex;
        try {
            regex.assign(text, std::regex::ECMAScript);
        } catch (const std::regex_error&) {
            tried_.push_back({EINVAL, "-iface-regex " + text + ": not a regular expression"});
            return false;
        }
        bool has_match = false;
        for (const auto& address : view_.addresses) {
            const nl::Link* link = link_of(address.ifindex);
            if (link == nullptr || address.is_deprecated || !enabled_[address.ip.family()]) continue;
            if (!std::regex_search(address.ip.to_string(), regex)) continue;
            has_match = true;
            Candidate candidate{link, {}};
            candidate.address[address.ip.family()] = address.ip;
            if (accept(candidate)) return true;
        }
        for (const auto& link : view_.links) {
            if (!std::regex_search(link.name, regex)) continue;
            has_match = true;
            if (accept(Candidate{&link, {}})) return true;
        }
        if (!has_match)
            tried_.push_back({ENODEV, "-iface-regex " + text + ": matches no address and no interface name"});
        return false;
    }

    Result<Candidate> by_can_reach() const
    {
        const std::string selector = "-iface-can-reach " + options_.can_reach;
        const auto ip = Ip::parse(options_.can_reach);
        if (!ip) return Error{EINVAL, selector + ": not an IP address"};
        if (!view_.lookup) return Error{ENODEV, selector + ": no route lookup"};
        const auto route = view_.lookup(*ip);
        if (!route) return Error{route.error().code, selector + ": " + route.error().what};
        Candidate candidate{link_of(route->ifindex), {}};
        if (candidate.link == nullptr || route->type != kUnicast) return Error{ENODEV, selector + ": no route to it"};
        candidate.address[ip->family()] = route->source;
        return candidate;
    }

    /// Takes the candidate if it can carry every family that is on; remembers why not otherwise.
    bool accept(const Result<Candidate>& candidate)
    {
        auto choice = candidate ? complete(*candidate) : Result<WireChoice>(candidate.error());
        if (choice) {
            choice_ = *std::move(choice);
            return true;
        }
        if (std::ranges::find(tried_, choice.error()) == tried_.end()) tried_.push_back(choice.error());
        return false;
    }

    Result<WireChoice> complete(const Candidate& candidate) const
    {
        const nl::Link& link = *candidate.link;
        if (link.type != kEthernet)
            return Error{EOPNOTSUPP, "interface " + link.name + " has no Ethernet header (type " +
                                         std::to_string(link.type) +
                                         "): twill needs an Ethernet-like interface, choose one with -iface"};
        if (link.mtu == 0) return Error{EINVAL, "interface " + link.name + " has MTU 0"};
        WireChoice choice{link, {}, {}};
        for (const Family family : kFamilies) {
            if (!enabled_[family]) continue;
            auto& address = choice.address[family];
            address = candidate.address[family];
            if (!address) address = preferred_address(view_.addresses, link.index, family);
            if (!address)
                return Error{EADDRNOTAVAIL,
                             "interface " + link.name + " has no " + std::string(to_string(family)) + " address"};
            choice.public_ip[family] = options_.public_ip[family] ? options_.public_ip[family] : address;
        }
        return choice;
    }

    Error failure() const
    {
        if (tried_.size() == 1) return tried_.front();
        std::string what = "no usable interface";
        for (std::size_t i = 0; i < tried_.size(); ++i) what += (i == 0 ? ": " : "; ") + tried_[i].what;
        return {ENODEV, what};
    }

    const IfaceOptions& options_;
    const PerFamily<bool>& enabled_;
    const IfaceView& view_;
    std::optional<WireChoice> choice_;
    std::vector<Error> tried_;
};

} // namespace

std::optional<Ip> preferred_address(const std::vector<nl::Address>& addresses, IfIndex ifindex, Family family)
{
    const auto rank = [](const nl::Address& address) {
        return std::tuple(is_link_local(address), !address.is_permanent, address.is_temporary);
    };
    const nl::Address* best = nullptr;
    for (const auto& address : addresses) {
        if (address.ifindex != ifindex || address.ip.family() != family || address.is_deprecated) continue;
        if (best == nullptr || rank(address) < rank(*best)) best = &address;
    }
    if (best == nullptr) return std::nullopt;
    return best->ip;
}

Result<WireChoice> choose_wire(const IfaceOptions& options, const PerFamily<bool>& enabled, const IfaceView& view)
{
    return Chooser(options, enabled, view).run();
}

} // namespace twill
