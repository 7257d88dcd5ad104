// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/iface.hpp"

#include <algorithm>
#include <cerrno>
#include <regex>
#include <tuple>
#include <utility>

#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/route.hpp"

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

bool is_loopback(const Ip& ip)
{
    return ip.is_v4() ? ip.network()[0] == 127 : ip == Ip::from_bytes({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
}

/// The addresses of an interface that flannel looks at, best first.
std::vector<const nl::Address*> usable_addresses(const std::vector<nl::Address>& addresses, IfIndex ifindex,
                                                 Family family)
{
    std::vector<const nl::Address*> usable;
    for (const auto& address : addresses)
        if (address.ifindex == ifindex && address.ip.family() == family && !address.is_deprecated &&
            !is_loopback(address.ip))
            usable.push_back(&address);
    std::ranges::stable_sort(usable, {}, [](const nl::Address* address) {
        return std::tuple(is_link_local(*address), !address->is_permanent, address->is_temporary);
    });
    return usable;
}

/// Go's syntax as far as it is ECMAScript's, and the parts of it that people write for interfaces.
std::optional<std::regex> compile(std::string text)
{
    auto flags = std::regex::ECMAScript;
    if (text.starts_with("(?i)")) {
        flags |= std::regex::icase;
        text.erase(0, 4);
    }
    if (text.starts_with("\\A")) text.replace(0, 2, "^");
    if (text.ends_with("\\z")) text.replace(text.size() - 2, 2, "$");
    try {
        return std::regex(text, flags);
    } catch (const std::regex_error&) {
        return std::nullopt;
    }
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
            if (accept(by_default())) return chosen();
            return failure();
        }
        for (const auto& name : options_.names)
            if (accept(name.empty() ? by_default_route() : by_name("-iface " + name, name))) return chosen();
        for (const auto& text : options_.regexes)
            if (text.empty() ? accept(by_default_route()) : by_regex(text)) return chosen();
        if (!options_.can_reach.empty() && accept(by_can_reach())) return chosen();
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

    WireChoice chosen()
    {
        for (const auto& why : tried_) choice_->passed_over.push_back(why.what);
        return *std::move(choice_);
    }

    /// A public IP without a selector is one itself, as with flannel; else the default routes decide.
    Result<Candidate> by_default() const
    {
        for (const Family family : kFamilies)
            if (const auto& ip = options_.public_ip[family]; ip && enabled_[family])
                return by_name((family == Family::v4 ? "-public-ip " : "-public-ipv6 ") + ip->to_string(),
                               ip->to_string());
        return by_default_route();
    }

    Result<Candidate> by_default_route() const
    {
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
        if (!enabled_[other] || !other_ip || !ip->is_v4()) return candidate;
        if (holder_of(*other_ip) != candidate.link)
            return Error{ENODEV, selector + ": " + other_ip->to_string() + " is not on the same interface, " +
                                     candidate.link->name};
        candidate.address[other] = *other_ip;
        return candidate;
    }

    /// Takes the first match that can serve.
    bool by_regex(const std::string& text)
    {
        const auto regex = compile(text);
        if (!regex) {
            tried_.push_back({EINVAL, "-iface-regex " + text + ": not a regular expression"});
            return false;
        }
        std::vector<Candidate> partial, matches;
        for (const auto& link : view_.links) {
            Candidate candidate{&link, {}};
            bool is_whole = true;
            for (const Family family : kFamilies) {
                if (!enabled_[family]) continue;
                for (const auto* address : usable_addresses(view_.addresses, link.index, family))
                    if (!candidate.address[family] && std::regex_search(address->ip.to_string(), *regex))
                        candidate.address[family] = address->ip;
                is_whole = is_whole && candidate.address[family];
            }
            if (is_whole)
                matches.push_back(candidate);
            else if (candidate.address.v4 || candidate.address.v6)
                partial.push_back(candidate);
        }
        for (const auto& link : view_.links)
            if (std::regex_search(link.name, *regex)) matches.push_back(Candidate{&link, {}});
        matches.insert(matches.end(), partial.begin(), partial.end());
        if (matches.empty())
            tried_.push_back({ENODEV, "-iface-regex " + text + ": matches no address and no interface name"});
        return std::ranges::any_of(matches, [this](const Candidate& candidate) { return accept(candidate); });
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
        WireChoice choice{link, {}, {}, {}};
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

Result<IfaceView> read_iface_view(nl::Socket& socket)
{
    IfaceView view;
    TWILL_TRY_AS(links, nl::links(socket));
    TWILL_TRY_AS(addresses, nl::addresses(socket));
    TWILL_TRY_AS(routes, nl::routes(socket));
    view.links = std::move(links);
    view.addresses = std::move(addresses);
    view.routes = std::move(routes);
    view.lookup = [&socket](const Ip& to) -> Result<nl::RouteLookup> {
        TWILL_TRY_AS(found, nl::lookup(socket, to));
        if (!found) return Error{ENETUNREACH, "no route to " + to.to_string()};
        return *found;
    };
    return view;
}

std::optional<Ip> preferred_address(const std::vector<nl::Address>& addresses, IfIndex ifindex, Family family)
{
    const auto usable = usable_addresses(addresses, ifindex, family);
    if (usable.empty()) return std::nullopt;
    return usable.front()->ip;
}

Result<WireChoice> choose_wire(const IfaceOptions& options, const PerFamily<bool>& enabled, const IfaceView& view)
{
    return Chooser(options, enabled, view).run();
}

} // namespace twill
