// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/netfilter_legacy_edit.hpp"

#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>

#include "twill/fd.hpp"

namespace twill::netfilter {

namespace {

/// What iptables itself takes before it changes a table.
constexpr const char* kLock = "/run/xtables.lock";
constexpr std::size_t kMaxTableBytes = 256U << 20;
constexpr int kAttempts = 8;

struct V4 {
    using Entry = ipt_entry;
    using Info = ipt_getinfo;
    using Entries = ipt_get_entries;
    using Replace = ipt_replace;
    static constexpr int kDomain = AF_INET, kLevel = IPPROTO_IP;
    static constexpr int kGetInfo = IPT_SO_GET_INFO, kGetEntries = IPT_SO_GET_ENTRIES;
    static constexpr int kReplace = IPT_SO_SET_REPLACE, kAddCounters = IPT_SO_SET_ADD_COUNTERS;
    static constexpr const char* kLoaded = "/proc/thread-self/net/ip_tables_names";
    static constexpr const char* kProgram = "iptables-legacy";
};

struct V6 {
    using Entry = ip6t_entry;
    using Info = ip6t_getinfo;
    using Entries = ip6t_get_entries;
    using Replace = ip6t_replace;
    static constexpr int kDomain = AF_INET6, kLevel = IPPROTO_IPV6;
    static constexpr int kGetInfo = IP6T_SO_GET_INFO, kGetEntries = IP6T_SO_GET_ENTRIES;
    static constexpr int kReplace = IP6T_SO_SET_REPLACE, kAddCounters = IP6T_SO_SET_ADD_COUNTERS;
    static constexpr const char* kLoaded = "/proc/thread-self/net/ip6_tables_names";
    static constexpr const char* kProgram = "ip6tables-legacy";
};

/// A table as entries that follow one another. Chains begin behind a head; jumps name the offset of a chain's first
/// rule.
template <typename V>
class Table {
public:
    explicit Table(std::string name) : name_(std::move(name)), what_(std::string(V::kProgram) + " table " + name_) {}

    static std::vector<std::string> loaded()
    {
        std::vector<std::string> names;
        std::ifstream file(V::kLoaded);
        for (std::string name; file >> name;) names.push_back(name);
        return names;
    }

    Result<> read()
    {
        socket_ = Fd(::socket(V::kDomain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
        if (!socket_) return failure();
        socklen_t size = sizeof info_;
        info_ = {};
        name_.copy(info_.name, sizeof info_.name - 1);
        if (::getsockopt(socket_.get(), V::kLevel, V::kGetInfo, &info_, &size) != 0) return failure();
        if (info_.size > kMaxTableBytes) return Error{EFBIG, what_};
        std::string bytes(sizeof(typename V::Entries) + info_.size, '\0');
        typename V::Entries head{};
        name_.copy(head.name, sizeof head.name - 1);
        head.size = info_.size;
        std::memcpy(bytes.data(), &head, sizeof head);
        size = static_cast<socklen_t>(bytes.size());
        if (::getsockopt(socket_.get(), V::kLevel, V::kGetEntries, bytes.data(), &size) != 0) return failure();
        return split(bytes.substr(offsetof(typename V::Entries, entrytable)));
    }

    bool has(const std::string& chain) const { return head_of(chain) != items_.size(); }

    /// Has a rule outside of the chains a match or target of one of these names?
    bool uses(const std::set<std::string>& names, const std::set<std::string>& without) const
    {
        bool is_within = false;
        for (const auto& item : items_) {
            if (item.is_head) is_within = without.contains(item.chain);
            if (is_within || item.is_head) continue;
            typename V::Entry entry;
            std::memcpy(&entry, item.bytes.data(), sizeof entry);
            // Matches, and behind them the target: all begin with a size and a name.
            for (std::size_t at = sizeof entry; at + sizeof(xt_entry_match) <= item.bytes.size();) {
                xt_entry_match part;
                std::memcpy(&part, item.bytes.data() + at, sizeof part);
                const std::string name(part.u.user.name, strnlen(part.u.user.name, sizeof part.u.user.name));
                if (names.contains(name)) return true;
                if (part.u.match_size < sizeof part) break;
                at += part.u.match_size;
            }
        }
        return false;
    }

    /// False: it is as it should be.
    bool leave_at_once(const std::string& chain)
    {
        const std::size_t first = head_of(chain) + 1;
        if (first > items_.size() || is_bare_return(items_[first].bytes)) return false;
        Item item;
        item.old_offset = items_[first].old_offset; // so that jumps meet it
        item.is_new = true;
        item.bytes = bare_return();
        items_.insert(items_.begin() + static_cast<std::ptrdiff_t>(first), std::move(item));
        return true;
    }

    bool remove(const std::string& chain)
    {
        const std::size_t head = head_of(chain);
        if (head == items_.size()) return false;
        std::size_t end = head + 1;
        while (end < items_.size() && !items_[end].is_head) ++end;
        const std::size_t start = items_[head + 1].old_offset;
        for (std::size_t i = 0; i < items_.size(); ++i)
            if ((i >= head && i < end) || (items_[i].jump && *items_[i].jump == start && !items_[i].falls_through))
                items_[i].is_gone = true;
        return true;
    }

    /// EAGAIN: it changed meanwhile.
    Result<> write()
    {
        std::vector<const Item*> kept;
        std::size_t total = 0;
        for (auto& item : items_) {
            item.new_offset = total; // of one that is gone: that of the next
            if (item.is_gone) continue;
            total += item.bytes.size();
            kept.push_back(&item);
        }
        std::string bytes(sizeof(typename V::Replace), '\0');
        std::vector<xt_counters> old(info_.num_entries);
        typename V::Replace head{};
        name_.copy(head.name, sizeof head.name - 1);
        head.valid_hooks = info_.valid_hooks;
        head.num_entries = static_cast<unsigned>(kept.size());
        head.size = static_cast<unsigned>(total);
        for (unsigned hook = 0; hook < NF_INET_NUMHOOKS; ++hook) {
            if ((info_.valid_hooks & (1U << hook)) == 0) continue;
            head.hook_entry[hook] = static_cast<unsigned>(moved(info_.hook_entry[hook]));
            head.underflow[hook] = static_cast<unsigned>(moved(info_.underflow[hook]));
        }
        head.num_counters = info_.num_entries;
        head.counters = old.data();
        std::memcpy(bytes.data(), &head, sizeof head);
        bytes.resize(offsetof(typename V::Replace, entries));
        for (const Item* item : kept) bytes += relocated(*item);
        if (::setsockopt(socket_.get(), V::kLevel, V::kReplace, bytes.data(), static_cast<socklen_t>(bytes.size())) !=
            0)
            return failure();
        return add_counters(kept, old);
    }

private:
    struct Item {
        std::string bytes;
        std::size_t old_offset = 0, new_offset = 0;
        std::size_t number = 0; ///< among the old ones
        bool is_head = false, is_gone = false, is_new = false;
        bool falls_through = false; ///< a rule without a target "jumps" to the next one
        std::string chain;          ///< of a head
        std::optional<std::size_t> jump;
    };

    Error failure() const { return {errno, what_ + ": " + std::strerror(errno)}; }
    Error malformed() const { return {EBADMSG, what_ + ": cannot be understood"}; }

    Result<> split(const std::string& bytes)
    {
        items_.clear();
        for (std::size_t at = 0; at < info_.size;) {
            typename V::Entry entry;
            xt_entry_target target;
            if (at + sizeof entry > bytes.size()) return malformed();
            std::memcpy(&entry, bytes.data() + at, sizeof entry);
            if (entry.next_offset < sizeof entry || at + entry.next_offset > bytes.size() ||
                entry.target_offset + sizeof target > entry.next_offset)
                return malformed();
            std::memcpy(&target, bytes.data() + at + entry.target_offset, sizeof target);
            Item item;
            item.bytes = bytes.substr(at, entry.next_offset);
            item.old_offset = at;
            item.number = items_.size();
            const std::string name(target.u.user.name, strnlen(target.u.user.name, sizeof target.u.user.name));
            const char* data = item.bytes.data() + entry.target_offset + sizeof target;
            const std::size_t left = entry.next_offset - entry.target_offset - sizeof target;
            if (name == XT_ERROR_TARGET) {
                item.is_head = true;
                item.chain.assign(data, strnlen(data, left));
            } else if (name.empty() && left >= sizeof(int)) {
                int verdict = 0;
                std::memcpy(&verdict, data, sizeof verdict);
                if (verdict >= 0) item.jump = static_cast<std::size_t>(verdict);
                item.falls_through = item.jump == at + entry.next_offset;
            }
            at += entry.next_offset;
            items_.push_back(std::move(item));
        }
        return items_.size() == info_.num_entries ? Result<>(Ok{}) : malformed();
    }

    /// The last head ends the table and is no chain's.
    std::size_t head_of(const std::string& chain) const
    {
        for (std::size_t i = 0; i + 1 < items_.size(); ++i)
            if (items_[i].is_head && items_[i].chain == chain) return i;
        return items_.size();
    }

    static std::string bare_return()
    {
        typename V::Entry entry{};
        xt_standard_target target{};
        entry.target_offset = sizeof entry;
        entry.next_offset = sizeof entry + sizeof target;
        target.target.u.target_size = sizeof target;
        target.verdict = XT_RETURN;
        std::string bytes(entry.next_offset, '\0');
        std::memcpy(bytes.data(), &entry, sizeof entry);
        std::memcpy(bytes.data() + sizeof entry, &target, sizeof target);
        return bytes;
    }

    static bool is_bare_return(const std::string& bytes)
    {
        typename V::Entry entry;
        std::memcpy(&entry, bytes.data(), sizeof entry);
        entry.counters = {};
        entry.nfcache = 0;
        entry.comefrom = 0;
        std::string same = bytes;
        std::memcpy(same.data(), &entry, sizeof entry);
        return same == bare_return();
    }

    std::size_t moved(std::size_t offset) const
    {
        const auto found =
            std::find_if(items_.begin(), items_.end(), [&](const Item& item) { return item.old_offset == offset; });
        return found == items_.end() ? 0 : found->new_offset;
    }

    std::string relocated(const Item& item) const
    {
        std::string bytes = item.bytes;
        if (!item.jump) return bytes;
        typename V::Entry entry;
        std::memcpy(&entry, bytes.data(), sizeof entry);
        const int verdict =
            static_cast<int>(item.falls_through ? item.new_offset + entry.next_offset : moved(*item.jump));
        std::memcpy(bytes.data() + entry.target_offset + sizeof(xt_entry_target), &verdict, sizeof verdict);
        return bytes;
    }

    Result<> add_counters(const std::vector<const Item*>& kept, const std::vector<xt_counters>& old)
    {
        std::string bytes(sizeof(xt_counters_info) + kept.size() * sizeof(xt_counters), '\0');
        xt_counters_info head{};
        name_.copy(head.name, sizeof head.name - 1);
        head.num_counters = static_cast<unsigned>(kept.size());
        std::memcpy(bytes.data(), &head, sizeof head);
        for (std::size_t i = 0; i < kept.size(); ++i)
            if (!kept[i]->is_new)
                std::memcpy(bytes.data() + sizeof head + i * sizeof(xt_counters), &old[kept[i]->number],
                            sizeof(xt_counters));
        // Counters are all that could be lost here.
        (void)::setsockopt(socket_.get(), V::kLevel, V::kAddCounters, bytes.data(),
                           static_cast<socklen_t>(bytes.size()));
        return Ok{};
    }

    std::string name_;
    std::string what_;
    Fd socket_;
    typename V::Info info_{};
    std::vector<Item> items_;
};

template <typename V>
Result<> edit_table(const std::string& name, const std::string& chain, LegacyEdit edit)
{
    const auto loaded = Table<V>::loaded();
    if (std::find(loaded.begin(), loaded.end(), name) == loaded.end()) return Ok{};
    const Fd lock(::open(kLock, O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    if (lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return Error{EAGAIN, std::string(kLock) + " is held by another program"};
    for (int attempt = 0;; ++attempt) {
        Table<V> table(name);
        auto done = table.read();
        if (done) {
            if (!table.has(chain)) return Ok{};
            const bool changed = edit == LegacyEdit::remove ? table.remove(chain) : table.leave_at_once(chain);
            if (!changed) return Ok{};
            done = table.write();
        }
        if (done || done.error().code != EAGAIN || attempt == kAttempts) return done;
    }
}

template <typename V>
Result<std::vector<std::string>> find_chains(const std::set<std::string>& names)
{
    std::vector<std::string> found;
    for (const auto& name : Table<V>::loaded()) {
        Table<V> table(name);
        TWILL_TRY(table.read());
        for (const auto& chain : names)
            if (table.has(chain)) found.push_back(chain);
    }
    return found;
}

template <typename V>
Result<bool> uses(const std::set<std::string>& names, const std::set<std::string>& without)
{
    for (const auto& name : Table<V>::loaded()) {
        Table<V> table(name);
        TWILL_TRY(table.read());
        if (table.uses(names, without)) return true;
    }
    return false;
}

} // namespace

Result<std::vector<std::string>> find_legacy_chains(Family family, const std::set<std::string>& names)
{
    return family == Family::v4 ? find_chains<V4>(names) : find_chains<V6>(names);
}

bool has_legacy_table(Family family, const std::string& table)
{
    const auto loaded = family == Family::v4 ? Table<V4>::loaded() : Table<V6>::loaded();
    return std::find(loaded.begin(), loaded.end(), table) != loaded.end();
}

Result<bool> uses_legacy(Family family, const std::set<std::string>& names, const std::set<std::string>& without)
{
    return family == Family::v4 ? uses<V4>(names, without) : uses<V6>(names, without);
}

Result<> edit_legacy_chain(Family family, const std::string& table, const std::string& chain, LegacyEdit edit)
{
    return family == Family::v4 ? edit_table<V4>(table, chain, edit) : edit_table<V6>(table, chain, edit);
}

} // namespace twill::netfilter
