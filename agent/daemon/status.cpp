// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/status.hpp"

#include <fmt/chrono.h>

#include <nlohmann/json.hpp>

namespace twill {

namespace {

using Json = nlohmann::ordered_json;

std::string rfc3339(WallTime when)
{
    return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(when)));
}

/// An array also when it is empty.
template <typename T, typename ToJson>
Json list(const std::vector<T>& items, ToJson to_object)
{
    Json out = Json::array();
    for (const T& item : items) out.push_back(to_object(item));
    return out;
}

Json lease_json(const Status::Lease& lease)
{
    return {{"key", lease.key},
            {"pods", lease.pods},
            {"public_ip", lease.public_ip},
            {"backend", lease.backend},
            {"vtep_mac", lease.vtep_mac},
            {"expires", lease.expires ? rfc3339(*lease.expires) : ""}};
}

Json masquerade_json(const Status::Masquerade& masquerade)
{
    return {{"on", masquerade.on},
            {"rules", masquerade.rules},
            {"capacity", masquerade.capacity},
            {"interfaces", list(masquerade.interfaces, [](const Status::Masquerade::Interface& interface) {
                 return Json{{"name", interface.name},
                             {"ifindex", interface.ifindex},
                             {"ipv4", interface.ipv4},
                             {"ipv6", interface.ipv6}};
             })}};
}

Json overlay_json(const Status::Overlay& overlay)
{
    return {{"name", overlay.name}, {"ifindex", overlay.ifindex}, {"kind", overlay.kind}, {"mac", overlay.mac}};
}

} // namespace

std::string to_json(const Status& s)
{
    Json out;
    out["version"] = s.version;
    out["kernel"] = s.kernel;
    out["node"] = s.node;
    out["pid"] = s.pid;
    out["started"] = rfc3339(s.started);
    out["ready"] = s.ready;
    out["store"] = Json{{"url", s.store.url}, {"healthy", s.store.healthy}, {"error", s.store.error}};
    out["lease"] = lease_json(s.lease);
    out["network"] = s.network;
    out["wires"] = list(s.wires, [](const Status::Wire& wire) {
        return Json{{"name", wire.name}, {"ifindex", wire.ifindex}, {"mtu", wire.mtu}};
    });
    out["overlay"] = overlay_json(s.overlay);
    if (s.overlay6) out["overlay6"] = overlay_json(*s.overlay6);
    out["data_plane"] = Json{{"kind", s.data_plane.kind}, {"why", s.data_plane.why}};
    out["fast_path"] = Json{{"mode", s.fast_path.mode}, {"on", s.fast_path.on}, {"why", s.fast_path.why}};
    out["masquerade"] = masquerade_json(s.masquerade);
    out["features"] = list(s.features, [](const Status::Feature& feature) {
        return Json{
            {"name", feature.name}, {"on", feature.on}, {"setting", feature.setting}, {"effect", feature.effect}};
    });
    out["attachments"] = list(s.attachments, [](const Status::Attachment& a) {
        return Json{{"program", a.program}, {"ifindex", a.ifindex}, {"interface", a.interface}, {"kind", a.kind}};
    });
    out["peers"] = Json{{"programmed", s.peers.programmed}, {"pending", s.peers.pending}};
    out["pending"] = list(s.pending, [](const Status::Pending& pending) {
        return Json{{"pods", pending.pods}, {"node", pending.node}, {"why", pending.why}};
    });
    out["bad_leases"] = list(s.bad_leases, [](const Status::BadLease& bad) {
        return Json{{"key", bad.key}, {"why", bad.why}};
    });
    out["endpoints"] = s.endpoints;
    out["addr_conflict"] = s.addr_conflict;
    out["conflicts"] = list(s.conflicts, [](const Status::Conflict& conflict) {
        return Json{{"ip", conflict.ip},
                    {"owner_ifindex", conflict.owner_ifindex},
                    {"claimed_by_ifindex", conflict.claimed_by_ifindex},
                    {"count", conflict.count}};
    });
    out["warnings"] = s.warnings;
    return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string to_json(const Peers& peers)
{
    Json items = Json::array();
    for (const auto& [pods, peer] : peers)
        items.push_back(Json{{"pods", pods.to_string()},
                             {"node", peer.node.to_string()},
                             {"mode", to_string(peer.mode)},
                             {"nexthop", peer.nexthop.to_string()},
                             {"ifindex", peer.wire.value},
                             {"mtu", peer.mtu},
                             {"vtep_mac", peer.vtep_mac.to_string()},
                             {"zero_csum6", peer.zero_csum6}});
    return Json{{"items", items}}.dump();
}

std::string to_json(const Endpoints& endpoints)
{
    Json items = Json::array();
    for (const auto& [ip, endpoint] : endpoints)
        items.push_back(Json{{"ip", ip.to_string()},
                             {"ifindex", endpoint.ifindex.value},
                             {"mac", endpoint.mac.to_string()},
                             {"host_mac", endpoint.host_mac.to_string()},
                             {"shaped", endpoint.shaped}});
    return Json{{"items", items}}.dump();
}

} // namespace twill
