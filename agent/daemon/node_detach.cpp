// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "agent/daemon/api_server.hpp"
#include "agent/daemon/node.hpp"
#include "agent/daemon/teardown.hpp"
#include "agent/dataplane/overlay_device.hpp"

namespace twill {

std::size_t Node::count_flows() const
{
    if (!nat_) return 0;
    const auto count = nat_->count_flows();
    return count ? *count : 0;
}

Result<Node::Detached> Node::detach(std::chrono::seconds patience)
{
    is_detached_ = true;
    pass_timer_.stop();
    retry_timer_.stop();
    reconcile_timer_.stop();
    tick_timer_.stop();
    linger_timer_.stop();
    programs_timer_.stop();
    monitor_.reset();
    events_.reset();
    // flannel's devices stay, and what is connected goes on through them.
    if (is_flannels_ && is_swept_) forget_connections();
    Detached outcome;
    const std::size_t flows = count_flows();
    if (flows != 0 && patience.count() > 0 && is_swept_) {
        if (auto kept = keep_translating(); kept) {
            outcome.draining = flows;
            drain_until_ = clock_.steady() + patience;
            return outcome;
        } else {
            log::warn("masqueraded flows cannot be kept", kept.error(), {{"flows", flows}});
        }
    }
    outcome.ended = flows;
    TWILL_TRY(tear_down(settings_.bpf_root, settings_.overlay_name));
    return outcome;
}

/// Nothing is left but masquerade on the interfaces that lead out: programs that take no VXLAN and carry nothing to
/// pods.
Result<> Node::keep_translating()
{
    tw_cfg cfg = *cfg_;
    cfg.fast = 0;
    cfg.flannel = 0; // nor judges who sends to flannel's devices
    cfg.node_v4 = cfg.node_v6 = tw_addr{};
    TWILL_TRY(load_generation(cfg));
    for (const auto& where : std::set(attachments_->current())) {
        const bool is_of_wire = where.hook == TW_HOOK_TO_WIRE || where.hook == TW_HOOK_FROM_WIRE;
        if (is_of_wire && egress_.interfaces.contains(where.ifindex))
            TWILL_TRY(attachments_->attach(where, *programs_));
        else
            TWILL_TRY(attachments_->detach(where));
    }
    TWILL_TRY_AS(peers, dataplane_->read_peers());
    for (const auto& [pods, peer] : peers) TWILL_TRY(dataplane_->del_peer(pods));
    return remove_overlay(*socket_, settings_.overlay_name);
}

void Node::drain(std::function<void()> done)
{
    on_drained_ = std::move(done);
    drain_timer_.every(std::chrono::milliseconds{1000}, [this] {
        if (is_listening(settings_.socket_path) || !pins_.is_filled()) {
            log::info("another twilld goes on with the masqueraded flows, or has ended them");
            drain_timer_.stop();
            return on_drained_();
        }
        if (count_flows() == 0 || clock_.steady() >= drain_until_) end_drain();
    });
}

void Node::end_drain()
{
    drain_timer_.stop();
    const std::size_t flows = count_flows();
    if (auto done = tear_down(settings_.bpf_root, settings_.overlay_name); !done)
        log::error("data plane is not wholly taken away", done.error());
    if (flows != 0)
        log::warn("masqueraded flows have ended before their time", {{"flows", flows}});
    else
        log::info("the last masqueraded flow is over");
    if (on_drained_) on_drained_();
}

} // namespace twill
