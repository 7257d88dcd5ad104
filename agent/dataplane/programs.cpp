// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/programs.hpp"

#include <bpf/libbpf.h>
#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "agent/dataplane/nat_resize.hpp"
#include "agent/dataplane/skeleton.hpp"

namespace twill {

namespace {

struct SkeletonDeleter {
    void operator()(twill_dp* skeleton) const noexcept { twill_dp__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<twill_dp, SkeletonDeleter>;

/// What libbpf says while it loads; the last lines explain a refusal. Control thread only.
std::string& libbpf_text()
{
    static std::string text;
    return text;
}

int keep_text(libbpf_print_level level, const char* format, va_list args)
{
    if (level == LIBBPF_DEBUG) return 0;
    char line[2048];
    const int length = vsnprintf(line, sizeof(line), format, args);
    auto& text = libbpf_text();
    if (length > 0) text += line;
    constexpr std::size_t kKeep = 4096;
    if (text.size() > kKeep) text.erase(0, text.size() - kKeep);
    return 0;
}

Error load_error(int code, const std::string& what)
{
    std::string text = libbpf_text();
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return Error{code, what + ": " + std::strerror(code) + (text.empty() ? "" : ": " + text)};
}

bpf_program* program_of(const twill_dp& skeleton, tw_hook hook)
{
    switch (hook) {
#define X(name, field)                                                                                                 \
    case TW_HOOK_##name:                                                                                               \
        return skeleton.progs.tw_##field;
        TW_HOOKS(X)
#undef X
    case TW_HOOK__MAX:
        break;
    }
    return nullptr;
}

} // namespace

std::string_view program_name(tw_hook hook)
{
#define X(name, field) std::string_view("tw_" #field),
    static constexpr std::string_view kNames[] = {TW_HOOKS(X)};
#undef X
    return kNames[hook];
}

bool is_egress(tw_hook hook) { return hook == TW_HOOK_TO_POD || hook == TW_HOOK_FROM_HOST || hook == TW_HOOK_TO_WIRE; }

Result<Programs> Programs::load(const tw_cfg& cfg, const PinDir& pins, const ProgramObjects& objects)
{
    auto programs = load_object(cfg, pins, cfg.ct_lookup != 0 ? objects.can_ask : objects.plain);
    if (programs || cfg.ct_lookup == 0) return programs;
    const int code = programs.error().code;
    if (code == EPERM || code == ENOMEM) return programs; // nothing that the other object does without
    tw_cfg without = cfg;
    without.ct_lookup = 0;
    without.nat_notes = without.nat != TW_NAT_OFF;
    auto plain = load_object(without, pins, objects.plain);
    if (!plain) return programs;
    plain->refused_ = programs.error();
    return plain;
}

Result<Programs> Programs::load_object(const tw_cfg& cfg, const PinDir& pins, std::string_view object)
{
    libbpf_set_print(keep_text);
    libbpf_text().clear();
    const auto bytes = object.empty() ? built_in_object(cfg.ct_lookup != 0) : BpfObject{object.data(), object.size()};
    const Skeleton skeleton(open_programs(bytes));
    if (!skeleton) return load_error(errno, "open the BPF object");
    const_cast<tw_cfg&>(skeleton->rodata->tw_cfg) = cfg;
    // The time, as no two loads have the same; doubled, as the epoch is a time too.
    const_cast<__u64&>(skeleton->rodata->tw_generation) =
        static_cast<__u64>(std::chrono::steady_clock::now().time_since_epoch().count()) * 2;

    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, skeleton->obj)
    {
        if (bpf_map__is_internal(map)) continue;
        if (const int rc = bpf_map__set_pin_path(map, pins.map(bpf_map__name(map)).c_str()); rc != 0)
            return load_error(-rc, std::string("pin path of ") + bpf_map__name(map));
    }
    NatResize resize(pins);
    TWILL_TRY(resize.prepare(skeleton->obj, cfg));
    if (const int rc = twill_dp__load(skeleton.get()); rc != 0) return load_error(-rc, "load the BPF programs");
    TWILL_TRY(resize.carry(cfg));

    Programs programs;
    programs.cfg_ = cfg;
    for (int i = 0; i < TW_HOOK__MAX; ++i) {
        const int fd = bpf_program__fd(program_of(*skeleton, static_cast<tw_hook>(i)));
        Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
        if (!copy) return load_error(errno, "keep a BPF program");
        programs.fds_[static_cast<std::size_t>(i)] = std::move(copy);
    }
    return programs;
}

} // namespace twill
