// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/daemon/discovery.hpp"
#include "agent/daemon/egress.hpp"
#include "agent/daemon/host_local.hpp"
#include "agent/daemon/settings.hpp"
#include "agent/daemon/status.hpp"
#include "agent/dataplane/attachments.hpp"
#include "agent/dataplane/bpf_dataplane.hpp"
#include "agent/dataplane/cfg.hpp"
#include "agent/dataplane/event_reader.hpp"
#include "agent/dataplane/kernel_overlay.hpp"
#include "agent/dataplane/nat_tables.hpp"
#include "agent/dataplane/programs.hpp"
#include "agent/loop/loop.hpp"
#include "agent/nl/monitor.hpp"
#include "agent/reconcile/reconciler.hpp"
#include "agent/store/store.hpp"
#include "agent/store/subnet_env.hpp"
#include "maps/pinned_maps.hpp"

namespace twill {

/// One node of the overlay: brings the parts together and keeps the kernel as the store and netlink say.
///
/// API: start(), then it runs by itself until the loop stops; on_fatal is called at most once, for what no retry mends
///   (a configuration error, no usable interface, no right to load programs).
/// Threading: control thread only.
/// State: store events -> LeaseSet -> plan_peers -> Reconciler; netlink, packets, host-local -> EndpointTable ->
///   Reconciler; interfaces -> Attachments. Events mark what is stale; one pass a few milliseconds later does the work.
/// Errors: everything after the first look at the configuration is retried; traffic goes on with what is programmed.
class Node final : private StoreListener, private nl::MonitorListener, private HostLocal::Listener {
public:
    Node(Loop& loop, const Clock& clock, Flags flags, Settings settings, std::unique_ptr<Store> store,
         std::function<void(Error)> on_fatal);
    ~Node() override;
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    void start();
    bool is_ready() const { return ready_; }
    /// How many flows may be masqueraded; nullopt while nothing is.
    std::optional<std::size_t> nat_capacity() const
    {
        return masquerades() ? std::optional<std::size_t>(settings_.nat_max) : std::nullopt;
    }
    Status status() const;
    /// Who runs which node, and what a take-over of this one would meet; see migration_json().
    std::string migration() const;
    /// What the data plane that carries is known to hold.
    Peers peers() const { return carrier() ? carrier()->programmed_peers() : Peers{}; }
    Endpoints endpoints() const { return carrier() ? carrier()->programmed_endpoints() : Endpoints{}; }
    /// Takes the data plane away for good; the process should end then. While masqueraded flows live, and for no longer
    /// than `patience`, the hooks that translate them stay: then drain() is to be called.
    struct Detached {
        std::size_t draining = 0; ///< flows that go on
        std::size_t ended = 0;    ///< flows that do not
    };
    Result<Detached> detach(std::chrono::seconds patience);
    /// Until the last of them is over, or `patience`; then the rest is taken away. An agent that starts meanwhile goes
    /// on with all of it, and nothing is taken away.
    void drain(std::function<void()> done);
    /// Ends that at once.
    void end_drain();
    std::chrono::seconds detach_timeout() const { return settings_.detach_timeout; }
    /// After that: the store forgets what only twill says of this node. `done` once it has, or cannot.
    void leave(std::function<void()> done) { store_->leave(std::move(done)); }

private:
    // StoreListener
    void on_snapshot(LeaseSnapshot snapshot) override;
    void on_event(LeaseEvent event) override;
    void on_own_lease(Lease lease) override;
    void on_health(std::optional<Error> trouble) override;
    void on_config_change() override;
    // nl::MonitorListener
    void on_link(const nl::Link& link, bool gone) override;
    void on_address(const nl::Address& address, bool gone) override;
    void on_route(const nl::Route& route, bool gone) override;
    void on_neighbour(const nl::Neighbour& neighbour, bool gone) override;
    void on_fdb(const nl::FdbEntry& entry, bool gone) override;
    void on_vtep(const nl::VtepEntry& entry, bool gone) override;
    void on_qdisc(IfIndex ifindex) override;
    void on_resync() override;
    // HostLocal::Listener
    void on_owner(const Ip& ip, const Owner& owner) override;
    void on_owner_gone(const Ip& ip) override;

    /// How long the kernel overlay carries before the programs are tried again, doubling.
    static constexpr std::chrono::milliseconds kProgramsRetryMin{30'000};
    static constexpr std::chrono::milliseconds kProgramsRetryMax{600'000};

    /// What a pass has to look at again.
    struct Stale {
        bool everything = false; ///< re-read the kernel
        bool wire = false;       ///< choice of the wire, own addresses
        bool device = false;     ///< overlay device, programs
        bool routes = false;     ///< to peers
        bool peers = false;
        bool qdiscs = false;
        bool endpoints = false;
        bool kernel = false; ///< what the kernel overlay wrote
        bool nat = false;    ///< interfaces that lead out, their addresses
    };

    // node.cpp: start and passes
    void read_config();
    void use_config(NetConf conf);
    /// `public_ip`: as the store has them for this node.
    Result<> prepare(NetConf conf, const PerFamily<std::optional<Ip>>& public_ip);
    Result<> choose_features();
    Result<> check_features() const;
    void choose_mac(const std::function<void()>& then);
    LeaseRequest lease_request() const;
    void publish();
    void mark(bool Stale::*what);
    void tell_bad(const BadLease& lease);
    void pass();
    Result<> work();
    void reconcile();
    void become_ready();
    void retry(const Error& error);
    void tick();
    void end_lingering();

    // node_plane.cpp: device, programs, attachments, subnet.env
    Result<> bring_up();
    Result<> bring_up_programs();
    Result<> load_kernel();
    CfgInput cfg_input() const;
    Result<> load_programs();
    Result<> load_generation(const tw_cfg& cfg);
    void take_over();
    Result<> open_maps();
    /// Between the hooks that note flows and those that carry them.
    void preload_translated();
    /// Directories and maps of ours that somebody unpinned are pinned again.
    Result<> keep_pins();
    /// False: more is left, for the next turn.
    Result<bool> sync_attachments();
    std::set<Attachment> wanted_attachments() const;
    /// Does a netfilter rule now stand between pods (-fast-path=auto)? True when the answer changed.
    bool refresh_filter();
    Result<> write_env();

    // node_device.cpp: the overlay device, ours or flannel's
    OverlayKind overlay_kind() const;
    std::string overlay_name(Family family) const;
    OverlaySpec overlay_spec() const;
    /// MACs of the devices that are there, and whether they are flannel's.
    Result<PerFamily<std::optional<Mac>>> find_devices();
    /// flannel's host-gw has no device: there its routes tell.
    Result<> find_flannel_routes();
    Result<PerFamily<IfIndex>> ensure_devices();
    bool has_flannel_devices() const { return is_flannels_ && conf_->backend == Backend::vxlan; }
    bool is_overlay(IfIndex ifindex) const { return ifindex && (ifindex == overlay_.v4 || ifindex == overlay_.v6); }

    // node_kernel.cpp: which data plane carries, and the one without programs
    /// The reconciler of the data plane that carries; nullptr: none does yet.
    const Reconciler* carrier() const;
    /// One step towards packets: hooks, and the end of the data plane that does not carry.
    Result<> carry();
    /// They carry nothing yet, and something of them cannot be had: the kernel overlay serves until it can.
    Result<> without_programs(const Error& why);
    KernelForm kernel_form() const { return is_flannels_ ? KernelForm::flannel : KernelForm::twill; }
    KernelOverlaySpec kernel_spec(KernelForm form) const;
    Result<> bring_up_kernel();
    /// What programs of an earlier run are there goes, now that the kernel carries.
    Result<> end_programs();
    void forget_connections() const;
    /// The reverse: all hooks run our programs.
    Result<> end_kernel();

    // node_nat.cpp: masquerade
    /// Asked for, and there are programs to do it.
    bool masquerades() const { return settings_.ip_masq && dataplane_ != nullptr; }
    tw_nat_rules nat_rules() const;
    /// Why there is none though it was asked for; empty: there is.
    std::string no_masquerade() const;
    Status::Masquerade masquerade_status() const;
    Result<> refresh_nat();
    Result<> find_egress_interfaces(std::set<Ip>& local);
    /// Is conntrack able to tell who began a flow? True when the answer changed.
    bool refresh_tracking();
    void tell_egress(const Egress& found);
    /// flannel's rules go once the programs do what they did.
    void retire_flannel_rules();
    Result<> retire_flannel_rules(Family family);

    /// Does the host let pass what pods and others say to each other? A table of ours, or advice, where not.
    void refresh_forward();
    Result<> put_right_forward_table(bool wanted);

    // node_detach.cpp
    std::size_t count_flows() const;
    Result<> keep_translating();

    // node_wire.cpp: wire and routes to peers
    Result<bool> refresh_wire();
    unsigned underlay_mtu() const;
    Result<std::optional<PeerRoute>> route_to(const Ip& node);
    /// Asks for routes to all nodes, or to new ones only, and plans the peers by them.
    Result<> refresh_routes(bool all);
    /// With many peers a storm of route events must not keep the loop busy.
    bool may_refresh_routes();
    PeerSettings peer_settings() const;

    Loop& loop_;
    const Clock& clock_;
    Flags flags_;
    Settings settings_;
    std::unique_ptr<Store> store_;
    std::function<void(Error)> on_fatal_;
    WallTime started_;

    std::optional<nl::Socket> socket_;
    std::unique_ptr<nl::Monitor> monitor_;
    std::optional<NetConf> conf_;
    WireChoice wire_;
    PerFamily<std::optional<Ip>> node_ip_; ///< own addresses on the wire
    std::optional<KernelFeatures> probed_; ///< nullopt: not known, as without a right to load programs
    KernelFeatures features_;              ///< what there is and is not switched off
    /// As published. IPv4's is that of the overlay device, IPv6's only where it has a device of its own: on twill0 it
    /// is another where the node was flannel's.
    PerFamily<Mac> vtep_mac_;
    bool is_flannels_ = false; ///< devices and routes are those that flannel made: the kernel overlay keeps them right
    std::optional<Lease> own_;
    LeaseSet leases_;
    std::map<std::string, std::string> told_bad_; ///< bad leases that the log has: key, why
    std::optional<Error> store_trouble_;

    PinDir pins_;
    PerFamily<IfIndex> overlay_; ///< by family of the pods' addresses; but for flannel's, one device
    std::optional<tw_cfg> cfg_;
    std::optional<Programs> programs_;
    std::optional<PinnedMaps> pinned_;
    std::optional<Attachments> attachments_;
    std::unique_ptr<BpfDataplane> dataplane_;
    std::unique_ptr<Reconciler> reconciler_;
    std::unique_ptr<EventReader> events_;
    std::unique_ptr<KernelOverlay> kernel_; ///< while it carries this node, and always on flannel's devices
    std::unique_ptr<Reconciler> kernel_reconciler_;
    std::optional<Error> no_programs_; ///< why they do not carry
    bool programs_due_ = true;         ///< to be tried now
    std::chrono::milliseconds programs_delay_ = kProgramsRetryMin;
    EndpointTable endpoints_;
    Discovery discovery_{endpoints_};
    std::unique_ptr<HostLocal> host_local_;
    Underlay underlay_;
    PeerPlan plan_;
    std::set<IfIndex> wires_;           ///< of the plan's peers, and the chosen one
    SteadyTime routes_at_{};            ///< of the last look at all routes
    std::optional<SubnetEnv> env_;      ///< as last written
    std::optional<std::string> filter_; ///< rule that keeps -fast-path=auto off

    std::optional<NatTables> nat_;
    Egress egress_;
    std::optional<std::set<Ip>> nat_addresses_; ///< of this node, as of the last look at the flows
    std::vector<std::string> forward_advice_;   ///< what drops, and the command that ends it
    std::optional<bool> has_forward_table_;     ///< nullopt: an earlier run may have left one
    std::vector<std::string> flannel_rules_;    ///< what of flannel's is left for now, and why
    bool is_told_shared_ = false;
    bool is_tracking_ = false; ///< conntrack sees packets of all families that are on

    Stale stale_;
    bool is_up_ = false;        ///< device and programs are there
    bool is_fresh_ = false;     ///< nothing of the programs was there until now: the stack carried
    bool is_swept_ = false;     ///< programs are on every hook, leftovers of an earlier run are off
    bool is_alone_ = false;     ///< what the kernel overlay has no part in any more is gone
    bool is_kernel_up_ = false; ///< the kernel overlay has had its first round
    bool is_bare_ = false;      ///< nothing of the programs is left beside it
    bool is_preloaded_ = false; ///< programs that cannot ask conntrack have been told what it translates
    std::optional<Error> preload_trouble_;
    std::optional<Error> refused_; ///< why programs that ask conntrack do not load
    bool is_sole_ = false;         ///< nothing of another map schema is left
    bool ready_ = false;
    bool is_config_old_ = false; ///< the store's configuration is not the one that is used
    bool is_detached_ = false;
    std::optional<Error> trouble_; ///< of the last pass
    log::RateLimit trouble_limit_;
    std::chrono::milliseconds retry_delay_;
    Timer config_timer_;
    Timer pass_timer_;
    Timer retry_timer_;
    Timer reconcile_timer_;
    Timer tick_timer_;
    Timer linger_timer_;
    Timer programs_timer_;
    Timer drain_timer_;
    SteadyTime drain_until_{};
    std::function<void()> on_drained_;
};

} // namespace twill
