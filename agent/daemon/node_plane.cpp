// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <utility>

#include "agent/daemon/netfilter.hpp"
#include "agent/daemon/node.hpp"
#include "agent/dataplane/flow_preload.hpp"
#include "agent/dataplane/takeover.hpp"
#include "agent/nl/addr.hpp"
#include "agent/nl/conntrack.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/neigh.hpp"
#include "agent/nl/qdisc.hpp"
#include "agent/nl/route.hpp"
#include "agent/store/subnet_env.hpp"
#include "maps/codec.hpp"

namespace twill {

namespace {

constexpr unsigned kLeastMtu = 68; // RFC 791

/// net.ipv4.ip_local_port_range of this namespace: the kernel's vxlan device takes its source ports from there, for
/// both families.
std::pair<std::uint16_t, std::uint16_t> local_port_range()
{
    std::ifstream file("/proc/sys/net/ipv4/ip_local_port_range");
    unsigned min = 0, max = 0;
    if (!(file >> min >> max) || min == 0 || max > 0xffff || min > max) return {32768, 60999};
    return {static_cast<std::uint16_t>(min), static_cast<std::uint16_t>(max)};
}

tw_anti_spoof to_abi(AntiSpoof value)
{
    switch (value) {
    case AntiSpoof::off:
        return TW_SPOOF_OFF;
    case AntiSpoof::strict:
        return TW_SPOOF_STRICT;
    case AntiSpoof::loose:
        break;
    }
    return TW_SPOOF_LOOSE;
}

} // namespace

CfgInput Node::cfg_input() const
{
    CfgInput input;
    input.network = conf_->networks();
    input.own_pods = own_->pods;
    input.node = node_ip_;
    input.vni = conf_->vni;
    input.port = conf_->port;
    std::tie(input.sport_min, input.sport_max) = local_port_range();
    input.overlay = overlay_;
    input.vtep_mac = vtep_mac_;
    if (vtep_mac_.v6 != vtep_mac_.v4) input.vtep_mac_old = vtep_mac_.v6;
    input.anti_spoof = to_abi(settings_.anti_spoof);
    input.fast = !filter_;
    input.vxlan_device = overlay_kind() == OverlayKind::vxlan;
    input.flannel = is_flannels_;
    input.gbp = conf_->gbp;
    input.nat = nat_rules();
    input.nat_keep = settings_.ip_masq_fully_random_disable;
    input.nat_notes = !features_.ct_lookup || !is_tracking_;
    input.nat_max = settings_.nat_max;
    input.features = features_;
    return input;
}

/// Device, programs and what they need; may be repeated, and changes only what differs.
Result<> Node::bring_up()
{
    if (conf_->backend == Backend::alloc) {
        is_up_ = true;
        return Ok{};
    }
    for (const auto family : kFamilies)
        if (conf_->network[family] && underlay_mtu() < encap_overhead(family) + kLeastMtu)
            return Error{EINVAL, "wire " + wire_.wire.name + ": MTU " + std::to_string(underlay_mtu()) +
                                     " leaves no room for an overlay, want at least " +
                                     std::to_string(encap_overhead(family) + kLeastMtu)};
    if (!is_up_ && conf_->backend == Backend::host_gw) TWILL_TRY(find_flannel_routes());
    TWILL_TRY_AS(devices, ensure_devices());
    for (const auto family : kFamilies) {
        if (!devices[family] || is_overlay(devices[family])) continue;
        log::info("overlay device is up", {{"interface", overlay_name(family)}, {"ifindex", devices[family].value}});
        overlay_[family] = devices[family];
    }
    overlay_ = devices;
    if (is_flannels_) TWILL_TRY(bring_up_kernel());
    if (programs_due_) {
        auto done = bring_up_programs();
        if (!done && is_swept_) return done; // the generation before goes on
        if (!done) TWILL_TRY(without_programs(done.error()));
    }
    if (!is_up_) {
        TWILL_TRY(load_kernel());
        Endpoints from_maps;
        if (dataplane_) {
            TWILL_TRY_AS(read, dataplane_->read_endpoints());
            from_maps = std::move(read);
        }
        std::vector<PodInterface> live;
        for (const auto& [ifindex, pod] : discovery_.pod_interfaces()) live.push_back(pod);
        endpoints_.restore(from_maps, live);
        host_local_->scan();
    }
    if (!programs_due_) TWILL_TRY(bring_up_kernel());
    discovery_.set_scope(own_->pods, {overlay_.v4, overlay_.v6, wire_.wire.index});
    stale_.endpoints = true;
    is_up_ = true;
    return Ok{};
}

Result<> Node::bring_up_programs()
{
    if (events_) {
        TWILL_TRY(keep_pins());
        return load_programs();
    }
    if (!probed_) {
        TWILL_TRY(choose_features());
        TWILL_TRY(check_features());
    }
    refresh_filter();
    refresh_tracking();
    TWILL_TRY(load_programs());
    TWILL_TRY(reconciler_->adopt());
    stale_.routes = stale_.peers = stale_.endpoints = true;
    return Ok{};
}

/// Reads what netlink has, and subscribes to nothing: the monitor runs already.
Result<> Node::load_kernel()
{
    KernelView view;
    TWILL_TRY_AS(links, nl::links(*socket_));
    TWILL_TRY_AS(addresses, nl::addresses(*socket_));
    TWILL_TRY_AS(neighbours, nl::neighbours(*socket_));
    TWILL_TRY_AS(fdb, nl::fdb(*socket_));
    TWILL_TRY_AS(qdiscs, nl::qdiscs(*socket_));
    TWILL_TRY_AS(routes, nl::routes(*socket_));
    view.links = std::move(links);
    view.addresses = std::move(addresses);
    view.neighbours = std::move(neighbours);
    view.fdb = std::move(fdb);
    view.qdiscs = std::move(qdiscs);
    view.routes = std::move(routes);
    discovery_.set_scope(own_->pods, {overlay_.v4, overlay_.v6, wire_.wire.index});
    discovery_.load(std::move(view));
    return Ok{};
}

/// A new generation of the programs when their constants changed, else nothing.
Result<> Node::load_programs()
{
    const tw_cfg cfg = make_cfg(cfg_input());
    if (cfg_ && same_cfg(*cfg_, cfg)) return Ok{};
    if (events_) {
        TWILL_TRY(load_generation(cfg));
    } else {
        TWILL_TRY_AS(is_new, pins_.begin());
        TWILL_TRY(load_generation(cfg));
        if (is_new) take_over();
        is_fresh_ = is_new;
        // From here on the maps are in use: another start goes on with them.
        TWILL_TRY(pins_.create());
        TWILL_TRY(open_maps());
    }
    cfg_ = programs_->cfg();
    // What is attached is of the generation before: each is replaced in place; one that refuses is attached anew.
    for (const auto& where : std::set(attachments_->current()))
        if (!attachments_->attach(where, *programs_)) {
            attachments_->forget(where);
            stale_.endpoints = true;
        }
    return dataplane_->end_cached(); // found out under the constants before
}

/// Where the kernel turns out to refuse what the probe found, programs do without it from here on.
Result<> Node::load_generation(const tw_cfg& cfg)
{
    TWILL_TRY_AS(programs, Programs::load(cfg, pins_));
    if (programs.refused()) {
        log::warn("programs that ask conntrack are refused, those that do not are loaded", *programs.refused());
        features_.ct_lookup = probed_->ct_lookup = false;
        refused_ = programs.refused();
        TWILL_TRY(check_features());
    }
    programs_ = std::move(programs);
    return Ok{};
}

void Node::take_over()
{
    const auto done = take_over_maps(pins_, !features_.ct_lookup, nat_rules() != TW_NAT_OFF);
    if (done.from.empty()) return;
    log::info("maps of another version are taken over", {{"from", done.from}, {"maps", done.carried.size()}});
    for (const auto& error : done.left) log::warn("map is not taken over", error);
}

/// Everything that stands on the pinned maps, once.
Result<> Node::open_maps()
{
    TWILL_TRY_AS(dataplane, BpfDataplane::open(pins_));
    TWILL_TRY_AS(owned, (Map<unsigned, tw_owned>::open(pins_.map("tw_owned"))));
    const auto on_event = [this](const tw_event& event) {
        if (event.kind != TW_EVENT_CLAIM) return;
        endpoints_.claim(from_abi(event.addr), mac_from_abi(event.mac), IfIndex{static_cast<int>(event.ifindex)},
                         ClaimSource::packet);
        mark(&Stale::endpoints);
    };
    TWILL_TRY_AS(events, EventReader::open(loop_, pins_, on_event));
    TWILL_TRY_AS(pinned, PinnedMaps::open(pins_));
    pinned_ = std::move(pinned);
    dataplane_ = std::make_unique<BpfDataplane>(std::move(dataplane));
    reconciler_ = std::make_unique<Reconciler>(*dataplane_, clock_);
    attachments_.emplace(*socket_, pins_, std::move(owned), features_.tcx);
    if (settings_.ip_masq) {
        TWILL_TRY_AS(nat, NatTables::open(pins_));
        nat_ = std::move(nat);
        stale_.nat = true;
    }
    is_preloaded_ = features_.ct_lookup;
    events_ = std::move(events);
    return Ok{};
}

/// What was translated before anybody noted it would lose its replies to the fast path. What cannot be read costs those
/// connections, not the node.
void Node::preload_translated()
{
    if (std::exchange(is_preloaded_, true)) return;
    preload_trouble_.reset();
    if (!nl::has_conntrack()) return; // nothing is translated
    auto done = preload_flows(pins_, conf_->networks());
    if (done)
        log::info("translated connections of before are left to the stack", {{"connections", *done}});
    else
        log::warn("conntrack's table cannot be read: translated connections of before may end", done.error());
    if (!done) preload_trouble_ = done.error();
    if (auto ended = dataplane_->end_cached(); !ended) preload_trouble_ = ended.error();
}

Result<> Node::keep_pins()
{
    TWILL_TRY(pins_.create());
    TWILL_TRY_AS(restored, pinned_->restore());
    if (restored != 0) log::warn("map was unpinned, pinning it again", {{"maps", restored}});
    return Ok{};
}

std::set<Attachment> Node::wanted_attachments() const
{
    std::set<Attachment> wanted;
    for (const auto device : {overlay_.v4, overlay_.v6})
        if (device) wanted.insert({{TW_HOOK_FROM_HOST, device}, {TW_HOOK_FROM_OVERLAY, device}});
    for (const auto wire : wires_) wanted.insert({TW_HOOK_FROM_WIRE, wire});
    for (const auto& [ifindex, addresses] : egress_.interfaces)
        wanted.insert({{TW_HOOK_FROM_WIRE, ifindex}, {TW_HOOK_TO_WIRE, ifindex}});
    for (const auto& [ifindex, pod] : discovery_.pod_interfaces()) {
        wanted.insert({TW_HOOK_FROM_POD, ifindex});
        wanted.insert({TW_HOOK_TO_POD, ifindex});
    }
    return wanted;
}

/// Programs go on every interface that should have them, and off every other. One interface that refuses stops no
/// other. The kernel takes some milliseconds for each: a turn attaches a few, so that claims and requests are not kept
/// waiting.
Result<bool> Node::sync_attachments()
{
    constexpr unsigned kPerTurn = 8;
    const auto wanted = wanted_attachments();
    std::optional<Error> refused;
    std::optional<Error> vital; // refused where nothing goes without it
    unsigned in_turn = 0;
    const auto attach = [&](const Attachment& where) {
        if (attachments_->current().contains(where) || attachments_->impossible().contains(where)) return true;
        if (in_turn == kPerTurn) return false;
        auto done = attachments_->attach(where, *programs_);
        if (done) {
            ++in_turn;
            // Until now a program of the run before, with other constants, may have cached what it found.
            done = dataplane_->end_cached();
        }
        // Gone between its event and now: the next event says so.
        if (!done && done.error().code != ENODEV) {
            refused = done.error();
            if (is_overlay(where.ifindex) || where.ifindex == wire_.wire.index) vital = refused;
        }
        return true;
    };
    // Hooks that note flows of the stack come before those that carry them, and those that change packets once their
    // replies are met.
    enum class Round { notes, carries, masquerades };
    const auto round_of = [](tw_hook hook) {
        if (hook == TW_HOOK_TO_WIRE) return Round::masquerades;
        return is_egress(hook) ? Round::notes : Round::carries;
    };
    for (const auto round : {Round::notes, Round::carries, Round::masquerades}) {
        if (round == Round::carries) {
            preload_translated();
            if (std::exchange(is_fresh_, false)) forget_connections();
        }
        for (const auto& where : wanted)
            if (round_of(where.hook) == round && !attach(where)) return false;
    }
    if (!is_swept_ && vital) {
        TWILL_TRY(without_programs(*vital));
        mark(&Stale::device);
        return true;
    }
    if (!is_swept_) {
        std::vector<IfIndex> interfaces;
        for (const auto& [ifindex, link] : discovery_.links()) interfaces.push_back(ifindex);
        TWILL_TRY(attachments_->sweep(wanted, interfaces));
        is_swept_ = true;
    }
    for (const auto& where : std::set(attachments_->current()))
        if (!wanted.contains(where)) TWILL_TRY(attachments_->detach(where));
    if (refused) return *refused;
    // Every hook runs our programs: nothing needs what another version left.
    if (!is_sole_) {
        for (const auto& other : pins_.others()) TWILL_TRY(other.remove());
        is_sole_ = true;
    }
    return true;
}

bool Node::refresh_filter()
{
    if (settings_.fast_path != FastPath::automatic) return false;
    auto filter = find_forward_rules(conf_->networks());
    if (!filter) {
        log::debug("netfilter rules cannot be read", {{"error", filter.error().what}});
        return false;
    }
    if (*filter == filter_) return false;
    filter_ = *std::move(filter);
    if (filter_)
        log::warn("fast path is off: a netfilter rule can decide about pods' packets", {{"rule", *filter_}});
    else
        log::info("fast path is on: no netfilter rule stands between pods");
    return true;
}

Result<> Node::write_env()
{
    SubnetEnv env;
    env.network = conf_->networks();
    env.subnet = own_->pods;
    // flannel takes the IPv4 overhead for both families, and CNI plugins have one MTU.
    env.mtu = underlay_mtu() - (conf_->backend == Backend::vxlan ? encap_overhead(Family::v4) : 0);
    env.ip_masq = settings_.ip_masq;
    if (env_ && *env_ == env) return Ok{};
    TWILL_TRY(write_subnet_env(settings_.subnet_file, env));
    env_ = env;
    return Ok{};
}

} // namespace twill
