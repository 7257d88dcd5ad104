// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "agent/daemon/netfilter.hpp"
#include "agent/daemon/node.hpp"
#include "agent/daemon/teardown.hpp"
#include "agent/dataplane/flow_preload.hpp"

namespace twill {

const Reconciler* Node::carrier() const
{
    if (is_swept_) return reconciler_.get();
    return is_kernel_up_ ? kernel_reconciler_.get() : nullptr;
}

Result<> Node::carry()
{
    if (reconciler_) {
        TWILL_TRY_AS(complete, sync_attachments());
        if (!complete) mark(&Stale::endpoints);
        if (!is_swept_) return Ok{};
        if (!is_alone_) {
            retire_flannel_rules();
            refresh_forward();
        }
        return end_kernel();
    }
    return kernel_reconciler_ ? end_programs() : Result<>(Ok{});
}

Result<> Node::without_programs(const Error& why)
{
    if (settings_.fast_path == FastPath::required) {
        is_detached_ = true; // no pass after this one
        on_fatal_(Error{why.code, "-fast-path=required: " + why.what});
        return why;
    }
    if (!no_programs_ || no_programs_->what != why.what)
        log::error("programs cannot carry this node, the kernel overlay does", why,
                   {{"again_in_s", std::chrono::duration_cast<std::chrono::seconds>(programs_delay_).count()}});
    no_programs_ = why;
    events_.reset();
    reconciler_.reset();
    dataplane_.reset();
    nat_.reset();
    egress_ = {};
    attachments_.reset();
    pinned_.reset();
    programs_.reset();
    cfg_.reset();
    is_bare_ = is_sole_ = is_alone_ = false;
    programs_due_ = false;
    programs_timer_.once(programs_delay_, [this] {
        programs_due_ = true;
        mark(&Stale::device);
    });
    programs_delay_ = std::min(programs_delay_ * 2, kProgramsRetryMax);
    return Ok{};
}

KernelOverlaySpec Node::kernel_spec(KernelForm form) const
{
    KernelOverlaySpec spec;
    for (const auto family : kFamilies) {
        if (!conf_->network[family] || !own_->pods[family]) continue;
        KernelFamily part;
        part.network = conf_->network[family]->network;
        part.own = *own_->pods[family];
        part.form = form;
        part.has_direct = conf_->backend == Backend::host_gw || conf_->direct_routing;
        if (overlay_kind() == OverlayKind::vxlan)
            part.tunnel = KernelTunnel{.device = overlay_[family], .vni = conf_->vni, .local = node_ip_[family]};
        spec[family] = part;
    }
    return spec;
}

Result<> Node::bring_up_kernel()
{
    const auto spec = kernel_spec(kernel_form());
    if (kernel_ && kernel_->spec() == spec) return Ok{};
    if (!kernel_) {
        kernel_ = std::make_unique<KernelOverlay>(*socket_, spec);
        kernel_reconciler_ = std::make_unique<Reconciler>(*kernel_, clock_);
    }
    kernel_->set_spec(spec);
    stale_.routes = stale_.peers = stale_.endpoints = true;
    return kernel_reconciler_->adopt();
}

/// Conntrack does not see what programs carry. Of a TCP connection that it knows, packets that come to the stack
/// afterwards, or in one direction while the other has its program already, are out of the window, hence invalid, and
/// rules like kube-proxy's drop them. Forgotten, it is picked up as it is. Where rules ask conntrack about pods the
/// stack carries everything, and nothing is forgotten.
void Node::forget_connections() const
{
    if (const auto rule = find_forward_rules(conf_->networks()); rule && *rule) return;
    if (auto done = forget_flows(conf_->networks()); !done)
        log::debug("conntrack entries are left as they are", {{"error", done.error().what}});
}

Result<> Node::end_programs()
{
    if (is_bare_) return Ok{};
    log::info("the kernel overlay carries this node", {{"why", no_programs_ ? no_programs_->what : ""}});
    is_kernel_up_ = true; // whether or not what is left of the programs can be removed
    if (pins_.is_filled()) forget_connections();
    TWILL_TRY(take_programs_off(*socket_, pins_));
    is_bare_ = true;
    return Ok{};
}

Result<> Node::end_kernel()
{
    if (is_alone_) return Ok{};
    if (!is_flannels_) {
        // Also what an earlier run left.
        TWILL_TRY(KernelOverlay(*socket_, kernel_spec(kernel_form())).clear());
        kernel_reconciler_.reset();
        kernel_.reset();
    }
    is_alone_ = true;
    if (is_kernel_up_) log::info("programs carry this node, not the kernel overlay any more");
    is_kernel_up_ = false;
    no_programs_.reset();
    programs_delay_ = kProgramsRetryMin;
    return Ok{};
}

} // namespace twill
