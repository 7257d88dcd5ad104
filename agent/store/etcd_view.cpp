// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_view.hpp"

#include <cerrno>
#include <nlohmann/json.hpp>

#include "agent/store/go_json.hpp"
#include "agent/store/lease_value.hpp"

namespace twill {

namespace {

constexpr std::string_view kNoV4 = "0.0.0.0-0&";

std::optional<std::string> after(std::string_view key, const std::string& prefix)
{
    if (!key.starts_with(prefix)) return std::nullopt;
    return std::string(key.substr(prefix.size()));
}

} // namespace

EtcdKeys::EtcdKeys(std::string_view prefix)
{
    for (const char c : prefix)
        if (c != '/' || prefix_.empty() || prefix_.back() != '/') prefix_ += c;
    if (!prefix_.empty() && prefix_.back() == '/') prefix_.pop_back();
}

std::string EtcdKeys::lease(std::string_view key) const
{
    const bool is_v6_only = key.find(':') != key.npos && key.find('&') == key.npos;
    return prefix_ + "/subnets/" + std::string(is_v6_only ? kNoV4 : "") + std::string(key);
}

std::optional<std::string> EtcdKeys::lease_key(std::string_view key) const
{
    auto found = after(key, lease(""));
    if (!found) return std::nullopt;
    if (found->starts_with(kNoV4)) found->erase(0, kNoV4.size());
    if (lease(*found) != key) return std::nullopt; // flannel could not read it either
    return found;
}

std::optional<std::string> EtcdKeys::marker_key(std::string_view key) const { return after(key, marker("")); }

Result<Lease> parse_etcd_lease(std::string_view key, std::string_view json)
{
    TWILL_TRY_AS(parsed_key, LeaseKey::parse(key));
    if (parsed_key.to_string() != key)
        return Error{EINVAL,
                     "key \"" + std::string(key.substr(0, 128)) + "\": want it spelled " + parsed_key.to_string()};
    if (json.size() > kMaxLeaseBytes)
        return Error{EFBIG, "lease of " + std::to_string(json.size()) + " bytes: want at most " +
                                std::to_string(kMaxLeaseBytes)};
    TWILL_TRY_AS(object, parse_json(json));
    TWILL_TRY_AS(value, LeaseValue::from_json(object));
    Lease lease;
    lease.key = key;
    lease.pods = parsed_key.pods;
    lease.backend_type = std::move(value.backend_type);
    for (const Family family : kFamilies) {
        const auto& pods = lease.pods[family];
        if (!pods) continue; // attributes of a family without pods are of no use to anybody
        const bool is_v4 = family == Family::v4;
        const std::string because = ", because " + pods->to_string() + " is in the key";
        if (!value.public_ip[family])
            return Error{EINVAL, std::string(is_v4 ? "PublicIP" : "PublicIPv6") + " absent: want an address" + because};
        if (lease.backend_type == "vxlan" && !value.vtep_mac[family])
            return Error{EINVAL, std::string(is_v4 ? "BackendData" : "BackendV6Data") +
                                     ".VtepMAC absent: want a unicast MAC address" + because};
        lease.public_ip[family] = value.public_ip[family];
        lease.vtep_mac[family] = value.vtep_mac[family];
    }
    return lease;
}

std::string format_etcd_lease(const Lease& lease, Vni vni)
{
    const LeaseValue value{lease.public_ip, lease.backend_type, lease.vtep_mac, vni};
    return value.to_json().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void EtcdView::put_lease(std::string key, const EtcdKv& kv)
{
    EtcdEntry entry;
    entry.mod_revision = kv.mod_revision;
    entry.etcd_lease = kv.lease;
    if (auto pods = LeaseKey::parse(key)) entry.pods = *pods;
    auto lease = parse_etcd_lease(key, kv.value);
    if (lease)
        entry.lease = *std::move(lease);
    else
        entry.why = lease.error().what;
    entries_.insert_or_assign(std::move(key), std::move(entry));
}

void EtcdView::put_marker(std::string key, std::string_view value)
{
    // A marker that is none costs the marker: the lease is then one of flannel.
    if (auto marker = parse_marker(value))
        markers_.insert_or_assign(std::move(key), *marker);
    else
        markers_.erase(key);
}

const EtcdEntry* EtcdView::find(const std::string& key) const
{
    const auto entry = entries_.find(key);
    return entry == entries_.end() ? nullptr : &entry->second;
}

std::optional<Lease> EtcdView::lease(const std::string& key) const
{
    const EtcdEntry* entry = find(key);
    if (entry == nullptr || !entry->lease) return std::nullopt;
    auto lease = entry->lease;
    if (const auto marker = markers_.find(key); marker != markers_.end())
        lease->marker = marker_of(marker->second, *lease);
    return lease;
}

std::vector<HeldSubnet> EtcdView::held(const std::optional<Lease>& own) const
{
    std::vector<HeldSubnet> held;
    for (const auto& [key, entry] : entries_) {
        if (!entry.pods) continue;
        HeldSubnet subnet{key, *entry.pods, {}, {}, false, false};
        if (entry.lease) {
            subnet.node = entry.lease->node;
            subnet.public_ip = entry.lease->public_ip;
            subnet.is_reservation = entry.etcd_lease == 0;
        } else if (own && own->key == key) {
            subnet.node = own->node; // our own key, damaged: write it again
            subnet.public_ip = own->public_ip;
            subnet.is_reservation = !own->expires;
        }
        held.push_back(std::move(subnet));
    }
    return held;
}

EtcdView view_of(const EtcdKeys& keys, const std::vector<EtcdKv>& leases, const std::vector<EtcdKv>& markers)
{
    EtcdView view;
    for (const auto& kv : leases)
        if (auto key = keys.lease_key(kv.key)) view.put_lease(*std::move(key), kv);
    for (const auto& kv : markers)
        if (auto key = keys.marker_key(kv.key)) view.put_marker(*std::move(key), kv.value);
    return view;
}

} // namespace twill
