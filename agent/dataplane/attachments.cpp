// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/attachments.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>

#include "agent/dataplane/bpf_abi.hpp"
#include "agent/dataplane/quiet_libbpf.hpp"
#include "agent/dataplane/tc_filters.hpp"
#include "agent/nl/qdisc.hpp"

namespace twill {

namespace {

/// Filters of ours carry this handle and priority; with the program's name it is how they are known after a restart.
constexpr unsigned kFilterHandle = 0x74;
constexpr unsigned kFilterPriority = 0xc074;

Error attach_error(int code, const Attachment& where, const char* how)
{
    char name[IF_NAMESIZE] = "?";
    if_indextoname(static_cast<unsigned>(where.ifindex.value), name);
    return Error{code, std::string("attach ") + std::string(program_name(where.hook)) + " to " + name + " (" +
                           std::to_string(where.ifindex.value) + ", " + how + "): " + std::strerror(code)};
}

bpf_tc_hook hook_of(const Attachment& where)
{
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = where.ifindex.value;
    hook.attach_point = is_egress(where.hook) ? BPF_TC_EGRESS : BPF_TC_INGRESS;
    return hook;
}

bpf_tc_opts filter_opts()
{
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.handle = kFilterHandle;
    options.priority = kFilterPriority;
    return options;
}

/// struct bpf_link_info as far as TCX links fill it (6.6); Debian 12's header ends before them.
struct LinkInfo {
    __u32 type;
    __u32 id;
    __u32 prog_id;
    __u32 padding;
    __u32 tcx_ifindex;
    __u32 tcx_attach_type;
    __u64 rest[8];
};

/// Id of our filter's program there; nullopt when there is none of ours.
std::optional<unsigned> filter_program(const Attachment& where)
{
    const QuietLibbpf quiet;
    auto hook = hook_of(where);
    auto options = filter_opts();
    if (bpf_tc_query(&hook, &options) != 0) return std::nullopt;
    const Fd program(bpf_prog_get_fd_by_id(options.prog_id));
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    if (!program || bpf_obj_get_info_by_fd(program.get(), &info, &size) != 0) return options.prog_id;
    if (program_name(where.hook) != info.name) return std::nullopt;
    return options.prog_id;
}

std::string pin_name(const Attachment& where)
{
    return std::string(program_name(where.hook)) + "_" + std::to_string(where.ifindex.value);
}

/// The link of a deleted interface, or one that was detached, has interface 0.
bool is_on(const Fd& link, const Attachment& where)
{
    LinkInfo info{};
    __u32 size = sizeof(info);
    return bpf_obj_get_info_by_fd(link.get(), &info, &size) == 0 &&
           info.tcx_ifindex == static_cast<unsigned>(where.ifindex.value);
}

void drop_link(const std::string& path)
{
    // Unpinning is the end of the link unless somebody holds it open; detaching is the end in any case.
    if (const Fd link(bpf_obj_get(path.c_str())); link) bpf_link_detach(link.get());
    unlink(path.c_str());
}

std::optional<Attachment> parse_pin(std::string_view name)
{
    const auto split = name.rfind('_');
    if (split == std::string_view::npos) return std::nullopt;
    int ifindex = 0;
    const auto* end = name.data() + name.size();
    if (std::from_chars(name.data() + split + 1, end, ifindex).ptr != end) return std::nullopt;
    for (int i = 0; i < TW_HOOK__MAX; ++i)
        if (program_name(static_cast<tw_hook>(i)) == name.substr(0, split))
            return Attachment{static_cast<tw_hook>(i), IfIndex{ifindex}};
    return std::nullopt;
}

} // namespace

Attachments::Attachments(nl::Socket& socket, PinDir pins, Map<unsigned, tw_owned> owned, bool use_tcx)
    : socket_(socket), pins_(std::move(pins)), owned_(std::move(owned)), use_tcx_(use_tcx)
{}

Result<bool> Attachments::adopt_tcx(const Attachment& where, int program)
{
    for (const auto& other : pins_.others()) {
        const std::string path = other.link(pin_name(where));
        const Fd link(bpf_obj_get(path.c_str()));
        if (!link || !is_on(link, where)) continue;
        if (bpf_link_update(link.get(), program, nullptr) != 0) {
            if (errno == ENOLINK) continue; // the interface went away in between
            return attach_error(errno, where, "tcx take-over");
        }
        // Killed before this, the link is found where it was, by an agent of either version.
        if (rename(path.c_str(), pins_.link(pin_name(where)).c_str()) != 0)
            return attach_error(errno, where, "pin of another version");
        return true;
    }
    return false;
}

Result<> Attachments::attach_tcx(const Attachment& where, int program)
{
    const std::string path = pins_.link(pin_name(where));
    if (const Fd old(bpf_obj_get(path.c_str())); old) {
        if (is_on(old, where)) {
            if (bpf_link_update(old.get(), program, nullptr) == 0) return Ok{};
            // ENOLINK: the interface went away in between.
            return attach_error(errno == ENOLINK ? ENODEV : errno, where, "tcx update");
        }
        unlink(path.c_str()); // its interface is gone, or somebody detached it
    }
    TWILL_TRY_AS(adopted, adopt_tcx(where, program));
    if (adopted) return Ok{};
    const Fd link(
        bpf_link_create(program, where.ifindex.value, is_egress(where.hook) ? kTcxEgress : kTcxIngress, nullptr));
    if (!link) return attach_error(errno, where, "tcx");
    if (bpf_obj_pin(link.get(), path.c_str()) != 0) return attach_error(errno, where, "pin");
    return Ok{};
}

Result<> Attachments::attach_clsact(const Attachment& where, int program)
{
    const QuietLibbpf quiet;
    auto hook = hook_of(where);
    auto both = hook;
    both.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    const auto ifindex = static_cast<unsigned>(where.ifindex.value);
    const int made = bpf_tc_hook_create(&both);
    if (made != 0 && made != -EEXIST) return attach_error(-made, where, "clsact");
    if (made == 0) {
        if (auto noted = owned_.put(ifindex, tw_owned{.clsact = 1, .reserved = {}}); !noted) {
            bpf_tc_hook_destroy(&both);
            return noted;
        }
    } else if (is_egress(where.hook)) {
        // Somebody's `ingress` qdisc in its place has no egress side; the kernel would take the filter for an ingress
        // one.
        TWILL_TRY_AS(qdiscs, nl::qdiscs(socket_));
        if (nl::has_qdisc(qdiscs, where.ifindex, "ingress")) {
            impossible_.insert(where);
            return Ok{};
        }
    }
    auto options = filter_opts();
    options.prog_fd = program;
    options.flags = BPF_TC_F_REPLACE;
    if (const int rc = bpf_tc_attach(&hook, &options); rc != 0) return attach_error(-rc, where, "filter");
    return Ok{};
}

Result<> Attachments::attach(const Attachment& where, const Programs& programs)
{
    const int program = programs.fd(where.hook);
    // The new mechanism first: for a moment two see the packet, never none. A redirected or dropped one ends at the
    // first.
    if (use_tcx_) {
        TWILL_TRY(attach_tcx(where, program));
        drop_foreign_tcx(where);
        drop_clsact(where);
    } else {
        TWILL_TRY(attach_clsact(where, program));
        drop_tcx(where);
        if (impossible_.contains(where)) return Ok{};
    }
    current_.insert(where);
    return Ok{};
}

void Attachments::drop_tcx(const Attachment& where)
{
    drop_link(pins_.link(pin_name(where)));
    drop_foreign_tcx(where);
}

void Attachments::drop_foreign_tcx(const Attachment& where)
{
    for (const auto& other : pins_.others()) drop_link(other.link(pin_name(where)));
}

void Attachments::drop_clsact(const Attachment& where)
{
    if (!filter_program(where)) return;
    const QuietLibbpf quiet;
    auto hook = hook_of(where);
    auto options = filter_opts();
    bpf_tc_detach(&hook, &options);
}

Result<> Attachments::detach(const Attachment& where)
{
    drop_tcx(where);
    drop_clsact(where);
    current_.erase(where);
    impossible_.erase(where);
    return drop_qdisc(where.ifindex);
}

Result<> Attachments::drop_qdisc(IfIndex ifindex)
{
    if (owned_.raw().fd() < 0) return Ok{};
    const auto on_it = [&](const Attachment& other) { return other.ifindex == ifindex; };
    if (std::any_of(current_.begin(), current_.end(), on_it)) return Ok{};
    const auto index = static_cast<unsigned>(ifindex.value);
    TWILL_TRY_AS(owned, owned_.get(index));
    if (!owned) return Ok{};
    TWILL_TRY_AS(in_use, has_tc_filters(socket_, ifindex));
    // Another filter of ours goes next and asks again; one of somebody else makes the qdisc theirs.
    if (in_use) return Ok{};
    const QuietLibbpf quiet;
    auto hook = hook_of({TW_HOOK_FROM_POD, ifindex});
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    bpf_tc_hook_destroy(&hook);
    return owned_.del(index);
}

Result<> Attachments::sweep(const std::set<Attachment>& keep, const std::vector<IfIndex>& interfaces)
{
    std::set<Attachment> candidates = current_;
    auto schemas = pins_.others();
    schemas.push_back(pins_);
    for (const auto& schema : schemas)
        for (const auto& name : schema.list_links())
            if (const auto where = parse_pin(name)) candidates.insert(*where);
    for (const auto ifindex : interfaces)
        for (int i = 0; i < TW_HOOK__MAX; ++i)
            if (const Attachment where{static_cast<tw_hook>(i), ifindex}; filter_program(where))
                candidates.insert(where);
    Result<> outcome = Ok{};
    for (const auto& where : candidates) {
        if (keep.contains(where)) continue;
        if (auto done = detach(where); !done) outcome = done.error();
    }
    if (owned_.raw().fd() < 0) return outcome;
    // Qdiscs without a program of ours; those of interfaces that are gone went with them.
    std::vector<IfIndex> with_qdisc;
    TWILL_TRY(
        owned_.for_each([&](unsigned index, const tw_owned&) { with_qdisc.push_back({static_cast<int>(index)}); }));
    for (const auto ifindex : with_qdisc) {
        const bool is_there = std::find(interfaces.begin(), interfaces.end(), ifindex) != interfaces.end();
        auto done = is_there ? drop_qdisc(ifindex) : owned_.del(static_cast<unsigned>(ifindex.value));
        if (!done) outcome = done.error();
    }
    return outcome;
}

bool Attachments::is_attached(const Attachment& where) const
{
    if (!use_tcx_) return filter_program(where).has_value();
    const Fd link(bpf_obj_get(pins_.link(pin_name(where)).c_str()));
    return link && is_on(link, where);
}

} // namespace twill
