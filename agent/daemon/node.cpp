// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/node.hpp"

#include <algorithm>
#include <utility>

#include "agent/daemon/sd_notify.hpp"
#include "agent/store/subnet_env.hpp"

namespace twill {

namespace {

using std::chrono::milliseconds;

/// Events come in bursts: a pass starts this long after the first, so that one pass serves them all.
constexpr milliseconds kSettle{5};
constexpr milliseconds kTick{2000};
/// Longer than a node needs to find a store that is back and to write its lease again.
constexpr milliseconds kLinger{1200};
constexpr milliseconds kRetryMin{200};
constexpr milliseconds kRetryMax{10'000};

} // namespace

Node::Node(Loop& loop, const Clock& clock, Flags flags, Settings settings, std::unique_ptr<Store> store,
           std::function<void(Error)> on_fatal)
    : loop_(loop), clock_(clock), flags_(std::move(flags)), settings_(std::move(settings)), store_(std::move(store)),
      on_fatal_(std::move(on_fatal)), started_(clock.wall()), leases_(kLinger), pins_(settings_.bpf_root),
      trouble_limit_(milliseconds{10'000}), retry_delay_(kRetryMin), config_timer_(loop), pass_timer_(loop),
      retry_timer_(loop), reconcile_timer_(loop), tick_timer_(loop), linger_timer_(loop), programs_timer_(loop),
      drain_timer_(loop)
{}

Node::~Node() = default;

void Node::start()
{
    auto socket = nl::Socket::open();
    if (!socket) return on_fatal_(socket.error());
    socket_ = *std::move(socket);
    // Subscribed before anything is read, so nothing is missed in between.
    auto monitor = nl::Monitor::start(loop_, *this);
    if (!monitor) return on_fatal_(monitor.error());
    monitor_ = *std::move(monitor);
    read_config();
}

void Node::read_config()
{
    store_->read_config([this](Result<NetConf> conf) {
        if (conf) {
            on_health(std::nullopt);
            return use_config(*std::move(conf));
        }
        if (conf.error().code == EINVAL) return on_fatal_(conf.error());
        on_health(conf.error());
        config_timer_.once(milliseconds{1000}, [this] { read_config(); });
    });
}

void Node::use_config(NetConf conf)
{
    store_->find_public_ip([this, conf = std::move(conf)](const Result<PerFamily<std::optional<Ip>>>& found) {
        if (!found) {
            on_health(found.error());
            return config_timer_.once(milliseconds{1000}, [this, conf] { use_config(conf); });
        }
        on_health(std::nullopt);
        if (auto done = prepare(conf, *found); !done) return on_fatal_(done.error());
        choose_mac([this] {
            publish();
            store_->watch(*this);
            tick_timer_.every(kTick, [this] { tick(); });
        });
    });
}

/// Everything between the configuration and the first write. An error is final.
Result<> Node::prepare(NetConf conf, const PerFamily<std::optional<Ip>>& public_ip)
{
    const bool is_file = settings_.store_kind == StoreKind::kubernetes; // flannel's ConfigMap, as a file
    const std::string origin = is_file ? settings_.kube.net_config_path : store_->describe() + "/config";
    TWILL_TRY_AS(settings, make_settings(flags_, conf.twill, origin));
    settings_ = std::move(settings);
    for (const auto family : kFamilies)
        if (public_ip[family]) settings_.iface.public_ip[family] = public_ip[family];
    conf_ = std::move(conf);
    if (conf_->learning) log::info("Backend.Learning has no effect: twill learns no MAC from packets");
    programs_due_ = settings_.fast_path != FastPath::off;
    if (!programs_due_) no_programs_ = Error{0, "-fast-path=off"};
    if (programs_due_ && conf_->backend != Backend::alloc) {
        // Where nothing can be loaded the kernel overlay serves, and says why.
        if (auto done = choose_features(); done)
            TWILL_TRY(check_features());
        else if (settings_.fast_path == FastPath::required)
            return done;
    }
    TWILL_TRY(refresh_wire());
    HostLocal::Listener& listener = *this;
    host_local_ = std::make_unique<HostLocal>(loop_, settings_.cni_state_dir, listener);
    return Ok{};
}

Result<> Node::choose_features()
{
    TWILL_TRY_AS(found, probe_features());
    probed_ = found;
    features_ = found;
    for (const auto& feature : kFeatures) {
        if (settings_.feature(feature.name) == FeatureSetting::off) features_.*feature.on = false;
        if (!(found.*feature.on)) log::info("feature missing", {{"feature", feature.name}, {"effect", feature.effect}});
    }
    return Ok{};
}

/// What was asked for by name must be there. The error names all that is not.
Result<> Node::check_features() const
{
    std::string missing;
    for (const auto& feature : kFeatures) {
        const auto setting = settings_.feature(feature.name);
        const bool wanted =
            setting == FeatureSetting::on || (settings_.fast_path == FastPath::required && feature.is_demanded());
        if (!wanted || (*probed_).*feature.on) continue;
        if (!missing.empty()) missing += "; ";
        missing += "feature " + std::string(feature.name) +
                   " is required, this kernel does not have it: " + std::string(feature.effect);
    }
    if (!missing.empty()) return Error{ENOTSUP, missing};
    return Ok{};
}

/// The VtepMAC is kept for the life of the node: that of the device as it is, else the lease's, else a new one. What
/// cannot be read is tried again: peers would need seconds to learn a new one. flannel's node has two, of two devices.
/// On one device IPv4's is the device's then, and IPv6's goes on being published and taken, because a flannel peer
/// misses a change of that alone.
void Node::choose_mac(const std::function<void()>& then)
{
    const auto again = [this, then](const Error& error) {
        on_health(error);
        config_timer_.once(milliseconds{1000}, [this, then] { choose_mac(then); });
    };
    const auto devices = find_devices();
    if (!devices) return again(devices.error());
    store_->find_own(lease_request(), [this, devices = *devices, then, again](Result<std::optional<Lease>> found) {
        if (!found) return again(found.error());
        on_health(std::nullopt);
        const auto kept = *found ? (*found)->vtep_mac : PerFamily<std::optional<Mac>>{};
        const auto first = [](const auto&... known) {
            std::optional<Mac> mac;
            ((mac = mac ? mac : known), ...);
            return mac ? *mac : Mac::random();
        };
        if (is_flannels_) {
            for (const auto family : kFamilies) vtep_mac_[family] = first(devices[family], kept[family]);
        } else {
            vtep_mac_.v4 = first(devices.v4, kept.v4, kept.v6);
            vtep_mac_.v6 = kept.v4 && kept.v6 && kept.v4 != kept.v6 ? *kept.v6 : vtep_mac_.v4;
        }
        then();
    });
}

LeaseRequest Node::lease_request() const
{
    LeaseRequest request;
    request.node = settings_.node;
    request.public_ip = wire_.public_ip;
    request.backend_type = conf_->backend == Backend::alloc ? "" : std::string(to_string(conf_->backend));
    request.vni = conf_->vni;
    request.marker.zero_csum6 = !is_flannels_; // flannel's device refuses them
    if (conf_->backend == Backend::vxlan) {
        for (const auto family : kFamilies)
            if (conf_->network[family]) request.vtep_mac[family] = vtep_mac_[family];
        request.marker.vtep_mac = marker_mac(request.vtep_mac);
    }
    if (const auto env = read_subnet_env(settings_.subnet_file); env && *env) request.preferred = (*env)->subnet;
    return request;
}

void Node::publish() { store_->publish(lease_request()); }

void Node::on_snapshot(LeaseSnapshot snapshot)
{
    leases_.apply(std::move(snapshot), clock_.steady());
    end_lingering();
    log::info("leases read", {{"leases", leases_.leases().size()}, {"bad", leases_.bad().size()}});
    auto told = std::exchange(told_bad_, {});
    for (const auto& bad : leases_.bad()) {
        if (auto before = told.extract(bad.key)) told_bad_.insert(std::move(before));
        tell_bad(bad);
    }
    mark(&Stale::peers);
}

/// Once for each reason.
void Node::tell_bad(const BadLease& lease)
{
    auto& told = told_bad_[lease.key];
    if (told == lease.why) return;
    told = lease.why;
    log::warn("lease cannot be read", {{"key", lease.key}, {"why", lease.why}});
}

void Node::on_event(LeaseEvent event)
{
    const auto* put = std::get_if<LeasePut>(&event);
    const auto known = put ? leases_.leases().find(put->lease.key) : leases_.leases().end();
    bool is_renewal = false;
    if (known != leases_.leases().end()) {
        auto before = known->second;
        before.expires = put->lease.expires;
        is_renewal = before == put->lease;
    }
    if (const auto* bad = std::get_if<BadLease>(&event))
        tell_bad(*bad);
    else
        told_bad_.erase(put ? put->lease.key : std::get<LeaseGone>(event).key);
    leases_.apply(std::move(event), clock_.steady());
    if (!is_renewal) mark(&Stale::peers);
    end_lingering();
}

void Node::end_lingering()
{
    if (linger_timer_.is_active()) return; // first things first: later ones end no earlier
    const SteadyTime now = clock_.steady();
    if (leases_.end_lingering(now)) mark(&Stale::peers);
    if (const auto next = leases_.next_end())
        linger_timer_.once(std::chrono::ceil<milliseconds>(*next - now), [this] { end_lingering(); });
}

void Node::on_own_lease(Lease lease)
{
    const bool moved = !own_ || own_->pods != lease.pods;
    if (moved) log::info("lease acquired", {{"key", lease.key}});
    own_ = std::move(lease);
    // Other pod CIDRs: other pods, other peers, other addresses.
    if (moved) mark(&Stale::everything);
}

void Node::on_health(std::optional<Error> trouble)
{
    if (trouble && (!store_trouble_ || store_trouble_->what != trouble->what))
        log::warn("store trouble, leases stay as they are", *trouble, {{"store", store_->describe()}});
    if (!trouble && store_trouble_) log::info("store is well again", {{"store", store_->describe()}});
    store_trouble_ = std::move(trouble);
}

/// As with flannel the configuration is read once.
void Node::on_config_change()
{
    is_config_old_ = true;
    log::warn("configuration changed, restart twilld to use it", {{"store", store_->describe()}});
}

void Node::on_link(const nl::Link& link, bool gone)
{
    const auto known = discovery_.links().find(link.index);
    const bool changed = gone || known == discovery_.links().end() || !(known->second == link);
    discovery_.on_link(link, gone);
    if (!changed) return;
    mark(&Stale::endpoints);
    mark(&Stale::nat);
    if (is_overlay(link.index) || link.name == settings_.overlay_name) mark(&Stale::device);
    // Routes go with the link without a word of their own.
    if (is_overlay(link.index) || wires_.contains(link.index)) mark(&Stale::kernel);
    if (link.index == wire_.wire.index || link.name == wire_.wire.name) mark(&Stale::wire);
    if (wires_.contains(link.index)) mark(&Stale::routes);
}

void Node::on_address(const nl::Address& address, bool gone)
{
    discovery_.on_address(address, gone);
    mark(&Stale::endpoints);
    mark(&Stale::nat);
    if (gone) store_->lose_address(address.ip);
    if (is_overlay(address.ifindex)) mark(&Stale::device);
    if (gone && (is_overlay(address.ifindex) || wires_.contains(address.ifindex))) mark(&Stale::kernel);
    // Addresses elsewhere decide only what -iface and -public-ip name by address.
    const auto is_named = [&](const auto& name) { return name == address.ip.to_string(); };
    const auto& names = settings_.iface.names;
    if (address.ifindex == wire_.wire.index || std::any_of(names.begin(), names.end(), is_named) ||
        settings_.iface.public_ip[address.ip.family()] == address.ip || !settings_.iface.regexes.empty())
        mark(&Stale::wire);
}

void Node::on_route(const nl::Route& route, bool gone)
{
    discovery_.on_route(route, gone);
    mark(&Stale::endpoints);
    if (kernel_ && kernel_->disturbs(route, gone)) mark(&Stale::kernel);
    if (route.protocol == kPeerRouteProtocol) return;
    mark(&Stale::nat);
    if (route.protocol == kRouteProtocol || is_overlay(route.ifindex)) {
        if (gone) mark(&Stale::device);
        return;
    }
    // Replaced, it goes without a word of its own.
    const auto& network = conf_ ? conf_->network[route.dst.family()] : std::nullopt;
    if (!gone && network && network->network == route.dst) mark(&Stale::device);
    // A route inside the pod network leads to no node.
    if (!network || !network->network.contains(route.dst)) mark(&Stale::routes);
    if (route.dst.bits() == 0) mark(&Stale::wire);
}

void Node::on_neighbour(const nl::Neighbour& neighbour, bool gone)
{
    if (discovery_.on_neighbour(neighbour, gone)) mark(&Stale::endpoints);
    if (is_overlay(neighbour.ifindex) && gone) mark(&Stale::device);
    if (kernel_ && kernel_->disturbs(neighbour, gone)) mark(&Stale::kernel);
}

void Node::on_fdb(const nl::FdbEntry& entry, bool gone)
{
    if (discovery_.on_fdb(entry, gone)) mark(&Stale::endpoints);
}

void Node::on_vtep(const nl::VtepEntry& entry, bool gone)
{
    if (kernel_ && kernel_->disturbs(entry, gone)) mark(&Stale::kernel);
}

void Node::on_qdisc(IfIndex) { mark(&Stale::qdiscs); }

void Node::on_resync()
{
    log::warn("netlink events were lost, reading everything again");
    mark(&Stale::everything);
}

void Node::on_owner(const Ip& ip, const Owner& owner)
{
    endpoints_.owner_put(ip, owner);
    mark(&Stale::endpoints);
}

void Node::on_owner_gone(const Ip& ip)
{
    endpoints_.owner_gone(ip);
    mark(&Stale::endpoints);
}

void Node::mark(bool Stale::*what)
{
    stale_.*what = true;
    if (!pass_timer_.is_active() && !is_detached_) pass_timer_.once(kSettle, [this] { pass(); });
}

void Node::pass()
{
    if (is_detached_ || !own_ || !leases_.is_complete()) return;
    if (auto done = work(); !done) return retry(done.error());
    if (trouble_) log::info("data plane is right again");
    trouble_.reset();
    retry_delay_ = kRetryMin;
    retry_timer_.stop();
}

/// One pass over what is stale. What fails stays stale and stops nothing else; the first error is returned.
Result<> Node::work()
{
    std::optional<Error> trouble;
    const auto note = [&](const Result<>& done) {
        if (!done && !trouble) trouble = done.error();
    };
    const auto try_to = [&](bool Stale::*what, auto&& step) {
        if (!(stale_.*what)) return;
        stale_.*what = false;
        Result<> done = step();
        if (!done) stale_.*what = true;
        note(done);
    };
    try_to(&Stale::everything, [&]() -> Result<> {
        stale_.wire = stale_.device = stale_.routes = stale_.peers = stale_.endpoints = stale_.kernel = stale_.nat =
            true;
        return is_up_ ? load_kernel() : Result<>(Ok{});
    });
    try_to(&Stale::wire, [&]() -> Result<> {
        // Without a usable address the old choice is better than none.
        TWILL_TRY_AS(changed, refresh_wire());
        if (changed) {
            publish();
            stale_.device = stale_.routes = true;
        }
        return Ok{};
    });
    if (!is_up_) stale_.device = true;
    try_to(&Stale::device, [&] { return bring_up(); });
    if (!is_up_) return *trouble;
    try_to(&Stale::kernel, [&] { return kernel_reconciler_ ? kernel_reconciler_->adopt() : Result<>(Ok{}); });
    try_to(&Stale::qdiscs, [&]() -> Result<> {
        TWILL_TRY_AS(qdiscs, nl::qdiscs(*socket_));
        discovery_.set_qdiscs(qdiscs);
        if (attachments_) attachments_->retry_impossible();
        stale_.endpoints = true;
        return Ok{};
    });
    discovery_.settle();
    try_to(&Stale::nat, [&] { return refresh_nat(); });
    if (may_refresh_routes()) try_to(&Stale::routes, [&] { return refresh_routes(true); });
    try_to(&Stale::peers, [&] { return refresh_routes(false); });
    if (conf_->backend != Backend::alloc) {
        reconcile();
        note(carry());
        // Either the first round is not over, or the other data plane has to be brought up.
        if (!carrier()) return trouble ? Result<>(*trouble) : Result<>(Ok{});
    }
    const auto written = write_env();
    note(written);
    if (written && !ready_) become_ready();
    return trouble ? Result<>(*trouble) : Result<>(Ok{});
}

/// Writes what differs, to the data plane that carries and to the one that is about to.
void Node::reconcile()
{
    const bool has_endpoints = std::exchange(stale_.endpoints, false);
    std::optional<milliseconds> again;
    for (auto* one : {kernel_reconciler_.get(), reconciler_.get()}) {
        if (one == nullptr) continue;
        if (has_endpoints) one->set_endpoints(endpoints_.desired());
        const auto next = one->run();
        if (next && (!again || *next < *again)) again = next;
    }
    if (again) reconcile_timer_.once(*again, [this] { mark(&Stale::endpoints); });
}

void Node::become_ready()
{
    ready_ = true;
    mark(&Stale::nat); // now the wires are known
    log::info("node is ready",
              {{"lease", own_->key}, {"peers", plan_.peers.size()}, {"pending", plan_.pending.size()}});
    if (auto told = sd_notify("READY=1"); !told) log::warn("sd_notify failed", told.error());
    store_->announce_ready();
}

void Node::retry(const Error& error)
{
    if (!trouble_ || trouble_->what != error.what || trouble_limit_.allow(clock_.steady()))
        log::error("data plane is not as it should be, trying again", error,
                   {{"in_ms", static_cast<std::int64_t>(retry_delay_.count())}});
    trouble_ = error;
    retry_timer_.once(retry_delay_, [this] { mark(&Stale::endpoints); });
    retry_delay_ = std::min(retry_delay_ * 2, kRetryMax);
}

/// Notices what no event tells: programs that somebody took off, pins that went, leases whose kept content expired.
void Node::tick()
{
    if (is_detached_ || !is_up_) return;
    if (leases_.expire(clock_.wall())) mark(&Stale::peers);
    if (!attachments_) return;
    if (!pins_.is_filled() || !pinned_->is_complete()) mark(&Stale::device);
    for (const auto& where : std::set(attachments_->current())) {
        // An interface that is gone took its programs along; its event is under way.
        if (!discovery_.links().contains(where.ifindex) || attachments_->is_attached(where)) continue;
        log::warn("program was taken off, attaching it again",
                  {{"program", program_name(where.hook)}, {"ifindex", where.ifindex.value}});
        attachments_->forget(where);
        mark(&Stale::endpoints);
    }
    if (refresh_filter()) mark(&Stale::device);
    if (refresh_tracking()) mark(&Stale::device);
    retire_flannel_rules();
    refresh_forward();
}

} // namespace twill
