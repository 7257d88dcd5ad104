// SPDX-License-Identifier: Apache-2.0
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>

#include "agent/daemon/netfilter_rules.hpp"
#include "twill/fd.hpp"

namespace twill::netfilter {
namespace {

using Kind = Outcome::Kind;

// More than any node has: 1,000 services of kube-proxy are 2 MB.
constexpr std::size_t kMaxTableBytes = 256U << 20;

struct V4 {
    using Entry = ipt_entry;
    using Info = ipt_getinfo;
    using Entries = ipt_get_entries;
    static constexpr Family kFamily = Family::v4;
    static constexpr int kDomain = AF_INET;
    static constexpr int kLevel = IPPROTO_IP;
    static constexpr int kGetInfo = IPT_SO_GET_INFO;
    static constexpr int kGetEntries = IPT_SO_GET_ENTRIES;
    static constexpr const char* kProgram = "iptables";
    static constexpr const char* kLoaded = "/proc/thread-self/net/ip_tables_names";
    static constexpr unsigned kGoto = IPT_F_GOTO;
    static const ipt_ip& fields(const Entry& entry) { return entry.ip; }
    static bool is_plain(const Entry& entry) { return entry.ip.proto == 0 && (entry.ip.flags & IPT_F_FRAG) == 0; }
};

struct V6 {
    using Entry = ip6t_entry;
    using Info = ip6t_getinfo;
    using Entries = ip6t_get_entries;
    static constexpr Family kFamily = Family::v6;
    static constexpr int kDomain = AF_INET6;
    static constexpr int kLevel = IPPROTO_IPV6;
    static constexpr int kGetInfo = IP6T_SO_GET_INFO;
    static constexpr int kGetEntries = IP6T_SO_GET_ENTRIES;
    static constexpr const char* kProgram = "ip6tables";
    static constexpr const char* kLoaded = "/proc/thread-self/net/ip6_tables_names";
    static constexpr unsigned kGoto = IP6T_F_GOTO;
    static const ip6t_ip6& fields(const Entry& entry) { return entry.ipv6; }
    static bool is_plain(const Entry& entry) { return entry.ipv6.proto == 0 && (entry.ipv6.flags & IP6T_F_TOS) == 0; }
};

/// The inversion bits have the same numbers for both families.
constexpr unsigned kInvertIn = IPT_INV_VIA_IN;
constexpr unsigned kInvertOut = IPT_INV_VIA_OUT;
constexpr unsigned kInvertSource = IPT_INV_SRCIP;
constexpr unsigned kInvertDestination = IPT_INV_DSTIP;
static_assert(kInvertIn == IP6T_INV_VIA_IN && kInvertOut == IP6T_INV_VIA_OUT && kInvertSource == IP6T_INV_SRCIP &&
              kInvertDestination == IP6T_INV_DSTIP);

Match match_name(const char* name, const unsigned char* mask, bool is_inverted)
{
    const std::size_t size = strnlen(name, IFNAMSIZ - 1);
    if (size == 0) return Match::always;
    const Match match = match_interface({name, size}, mask[size] == 0);
    return is_inverted ? invert(match) : match;
}

template <typename Address>
Match match_address(const Address& address, const Address& mask, bool is_inverted, const std::vector<Cidr>& networks)
{
    std::array<unsigned char, sizeof mask> bytes{};
    std::memcpy(bytes.data(), &mask, sizeof mask);
    unsigned bits = 0;
    while (bits < bytes.size() * 8 && (bytes[bits / 8] >> (7 - bits % 8) & 1) != 0) ++bits;
    for (unsigned bit = bits; bit < bytes.size() * 8; ++bit)
        if ((bytes[bit / 8] >> (7 - bit % 8) & 1) != 0) return Match::maybe; // no prefix
    const auto ip = Ip::from_network(&address, sizeof address);
    if (!ip) return Match::maybe;
    if (bits == 0) return is_inverted ? Match::never : Match::always;
    const auto prefix = Cidr::make(*ip, bits);
    if (!prefix) return Match::maybe;
    const Match match = match_prefix(*prefix, networks);
    return is_inverted ? invert(match) : match;
}

/// A table as the kernel hands it out: entries that follow one another, chains by offset.
template <typename V>
class Table {
public:
    Table(std::string name, const std::vector<Cidr>& networks, const std::string& without)
        : name_(std::move(name)), networks_(networks), without_(without)
    {}

    /// False: the kernel has no such table.
    Result<bool> read()
    {
        const std::string what = std::string{"read "} + V::kProgram + " table " + name_;
        const Fd socket{::socket(V::kDomain, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
        if (!socket) return Error{errno, what};
        for (int attempt = 0; attempt < 8; ++attempt) {
            socklen_t size = sizeof info_;
            info_ = {};
            name_.copy(info_.name, sizeof info_.name - 1);
            if (::getsockopt(socket.get(), V::kLevel, V::kGetInfo, &info_, &size) != 0) return missing_or(errno, what);
            if (info_.size > kMaxTableBytes) return Error{EFBIG, what};
            buffer_.assign(sizeof(typename V::Entries) + info_.size, '\0');
            typename V::Entries head{};
            name_.copy(head.name, sizeof head.name - 1);
            head.size = info_.size;
            std::memcpy(buffer_.data(), &head, sizeof head);
            size = static_cast<socklen_t>(buffer_.size());
            if (::getsockopt(socket.get(), V::kLevel, V::kGetEntries, buffer_.data(), &size) == 0) {
                buffer_.erase(0, offsetof(typename V::Entries, entrytable));
                return true;
            }
            if (errno != EAGAIN) return missing_or(errno, what); // EAGAIN: its size changed in between
        }
        return Error{EAGAIN, what};
    }

    Result<std::optional<std::string>> find(unsigned hook, const char* chain)
    {
        std::optional<std::string> nothing;
        if ((info_.valid_hooks & (1U << hook)) == 0) return nothing;
        BaseChain base;
        base.name = " " + std::to_string(info_.hook_entry[hook]); // no chain of a person is called so
        base.where = std::string{V::kProgram} + " table " + name_ + " chain " + chain;
        const auto policy = rule_at(info_.underflow[hook]);
        base.drops = policy && !policy->rule.outcomes.empty() && policy->rule.outcomes[0].kind == Kind::block;
        end_of_base_ = info_.underflow[hook];
        return judge(base, V::kFamily, [this](const std::string& offset) { return rules(offset); });
    }

private:
    struct Parsed {
        Rule rule;
        std::size_t next = 0;
        bool is_head = false; ///< no rule: a chain begins after it, or the table ends
        std::string chain;    ///< whose head
    };

    static Result<bool> missing_or(int code, const std::string& what)
    {
        if (code == ENOPROTOOPT || code == ENOENT) return false;
        return Error{code, what + ": " + std::strerror(code)};
    }

    template <typename T>
    bool copy(std::size_t at, T& value) const
    {
        if (at > buffer_.size() || buffer_.size() - at < sizeof value) return false;
        std::memcpy(&value, buffer_.data() + at, sizeof value);
        return true;
    }

    /// Chains go by the offset of their first rule; judge() gets their names where it needs them.
    Result<const std::vector<Rule>*> rules(const std::string& chain)
    {
        if (const auto known = rules_.find(chain); known != rules_.end()) return &known->second;
        const auto start = starts_.find(chain);
        std::size_t at = start != starts_.end() ? start->second : std::strtoul(chain.c_str(), nullptr, 10);
        std::vector<Rule> all;
        while (at < info_.size && at != end_of_base_) {
            auto parsed = rule_at(at);
            if (!parsed) return Error{EBADMSG, "read " + std::string{V::kProgram} + " table " + name_};
            if (parsed->is_head) break;
            forget_chain(parsed->rule, without_);
            all.push_back(std::move(parsed->rule));
            at = parsed->next;
        }
        return &rules_.insert_or_assign(chain, std::move(all)).first->second;
    }

    std::optional<Parsed> rule_at(std::size_t at)
    {
        typename V::Entry entry;
        if (!copy(at, entry) || entry.next_offset < sizeof entry || entry.target_offset > entry.next_offset)
            return std::nullopt;
        Parsed parsed;
        parsed.next = at + entry.next_offset;
        add_conditions(entry, parsed.rule);
        for (std::size_t match = at + sizeof entry; match < at + entry.target_offset;) {
            xt_entry_match head;
            if (!copy(match, head) || head.u.match_size < sizeof head || match + head.u.match_size > buffer_.size())
                return std::nullopt;
            const std::string name{head.u.user.name, strnlen(head.u.user.name, sizeof head.u.user.name)};
            parsed.rule.require(match_of_xt(name, head.u.user.revision, buffer_.data() + match + sizeof head,
                                            head.u.match_size - sizeof head));
            match += head.u.match_size;
        }
        if (!add_target(at, entry, parsed)) return std::nullopt;
        return parsed;
    }

    void add_conditions(const typename V::Entry& entry, Rule& rule) const
    {
        const auto& ip = V::fields(entry);
        const unsigned inverted = ip.invflags;
        if (!V::is_plain(entry)) rule.require(Match::maybe);
        rule.require(match_name(ip.iniface, ip.iniface_mask, (inverted & kInvertIn) != 0));
        rule.require(match_name(ip.outiface, ip.outiface_mask, (inverted & kInvertOut) != 0));
        rule.require(match_address(ip.src, ip.smsk, (inverted & kInvertSource) != 0, networks_));
        rule.require(match_address(ip.dst, ip.dmsk, (inverted & kInvertDestination) != 0, networks_));
    }

    bool add_target(std::size_t at, const typename V::Entry& entry, Parsed& parsed)
    {
        const std::size_t start = at + entry.target_offset;
        xt_entry_target target;
        if (!copy(start, target) || target.u.target_size < sizeof target ||
            start + target.u.target_size > parsed.next || parsed.next > buffer_.size())
            return false;
        const std::string name{target.u.user.name, strnlen(target.u.user.name, sizeof target.u.user.name)};
        const char* data = buffer_.data() + start + sizeof target;
        const std::size_t size = target.u.target_size - sizeof target;
        if (name == XT_ERROR_TARGET) {
            parsed.is_head = true;
            parsed.chain.assign(data, strnlen(data, size));
        } else if (name.empty()) { // XT_STANDARD_TARGET
            int verdict = 0;
            if (size < sizeof verdict) return false;
            std::memcpy(&verdict, data, sizeof verdict);
            add_verdict(verdict, (V::fields(entry).flags & V::kGoto) != 0, parsed);
        } else if (const Outcome outcome = outcome_of_xt(name, data, size); outcome.kind != Kind::nothing) {
            parsed.rule.outcomes.push_back(outcome);
        }
        return true;
    }

    void add_verdict(int verdict, bool is_goto, Parsed& parsed)
    {
        auto& outcomes = parsed.rule.outcomes;
        if (verdict == XT_RETURN) {
            outcomes.push_back({Kind::leave, {}});
        } else if (verdict < 0) {
            const int code = -verdict - 1;
            if (code == NF_ACCEPT)
                outcomes.push_back({Kind::accept, {}});
            else
                outcomes.push_back({Kind::block, code == NF_DROP ? "DROP" : "QUEUE"});
        } else if (static_cast<std::size_t>(verdict) != parsed.next) { // else a rule without target
            outcomes.push_back({is_goto ? Kind::go_to : Kind::jump, name_of(static_cast<std::size_t>(verdict))});
        }
    }

    /// Name of the chain whose first rule is at `offset`.
    std::string name_of(std::size_t offset)
    {
        if (names_.empty()) read_names();
        const auto found = names_.find(offset);
        return found != names_.end() ? found->second : " " + std::to_string(offset);
    }

    void read_names()
    {
        names_.emplace(0, ""); // read, even where there is none
        for (std::size_t at = 0; at < info_.size;) {
            typename V::Entry entry;
            xt_entry_target target;
            if (!copy(at, entry) || entry.next_offset < sizeof entry || !copy(at + entry.target_offset, target)) return;
            const std::size_t data = at + entry.target_offset + sizeof target;
            at += entry.next_offset;
            if (strncmp(target.u.user.name, XT_ERROR_TARGET, sizeof target.u.user.name) != 0 || data >= buffer_.size())
                continue;
            const std::string name{buffer_.data() + data,
                                   strnlen(buffer_.data() + data, std::min<std::size_t>(buffer_.size() - data, 30))};
            names_.insert_or_assign(at, name);
            starts_.insert_or_assign(name, at);
        }
    }

    std::string name_;
    const std::vector<Cidr>& networks_;
    const std::string& without_;
    typename V::Info info_{};
    std::string buffer_; ///< the entries
    std::size_t end_of_base_ = 0;
    std::map<std::size_t, std::string> names_;
    std::map<std::string, std::size_t> starts_;
    std::map<std::string, std::vector<Rule>> rules_;
};

template <typename V>
Result<std::optional<std::string>> find_in_tables(const std::vector<Cidr>& networks, const std::string& without)
{
    struct Hook {
        unsigned number;
        const char* name;
    };
    static constexpr std::array<Hook, 3> kHooks{
        Hook{NF_INET_FORWARD, "FORWARD"}, {NF_INET_PRE_ROUTING, "PREROUTING"}, {NF_INET_POST_ROUTING, "POSTROUTING"}};
    std::optional<std::string> found;
    // Asking for a table would load it, so ask only for what is there.
    std::ifstream loaded{V::kLoaded};
    for (std::string name; !found && loaded >> name;) {
        if (name == "nat") continue;
        Table<V> table{name, networks, without};
        TWILL_TRY_AS(is_there, table.read());
        for (const auto& hook : kHooks) {
            if (!is_there || found) break;
            TWILL_TRY_AS(obstacle, table.find(hook.number, hook.name));
            found = std::move(obstacle);
        }
    }
    return found;
}

} // namespace

Result<std::optional<std::string>> find_in_legacy(const std::vector<Cidr>& networks, const std::string& without)
{
    const auto has = [&](Family family) {
        return std::any_of(networks.begin(), networks.end(), [=](const Cidr& one) { return one.family() == family; });
    };
    if (has(Family::v4)) {
        TWILL_TRY_AS(found, find_in_tables<V4>(networks, without));
        if (found) return found;
    }
    if (has(Family::v6)) return find_in_tables<V6>(networks, without);
    return std::optional<std::string>{};
}

} // namespace twill::netfilter
