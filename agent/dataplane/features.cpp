// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/features.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "agent/dataplane/bpf_abi.hpp"
#include "agent/dataplane/quiet_libbpf.hpp"
#include "agent/nl/conntrack.hpp"
#include "twill/fd.hpp"

namespace twill {

namespace {

constexpr std::string_view kNoPrograms = "the programs do not load: the kernel overlay carries this node";

} // namespace

const std::array<FeatureInfo, 11> kFeatures = {
    FeatureInfo{"tcx", &KernelFeatures::tcx, FeatureUse::choice,
                "programs are attached as clsact filters, not as links"},
    FeatureInfo{"ct_lookup", &KernelFeatures::ct_lookup, FeatureUse::choice,
                "flows with NAT are known only once the node has forwarded a packet of theirs"},
    FeatureInfo{"encap_l2_eth", &KernelFeatures::encap_l2_eth, FeatureUse::choice,
                "the overlay device encapsulates instead of the programs"},
    FeatureInfo{"check_mtu", &KernelFeatures::check_mtu, FeatureUse::choice,
                "a pod replaced while the agent is away is reached again only when the agent is back"},
    FeatureInfo{"redirect_peer", &KernelFeatures::redirect_peer, FeatureUse::need, kNoPrograms},
    FeatureInfo{"redirect_neigh", &KernelFeatures::redirect_neigh, FeatureUse::need, kNoPrograms},
    FeatureInfo{"ringbuf", &KernelFeatures::ringbuf, FeatureUse::need, kNoPrograms},
    FeatureInfo{"tunnel_source", &KernelFeatures::tunnel_source, FeatureUse::fact,
                "the kernel chooses the source address of what the overlay device encapsulates"},
    FeatureInfo{"jit", &KernelFeatures::jit, FeatureUse::fact,
                "programs are interpreted, several times slower, and cannot ask conntrack (ct_lookup)"},
    FeatureInfo{"btf", &KernelFeatures::btf, FeatureUse::fact, "programs cannot ask conntrack (ct_lookup)"},
    FeatureInfo{"conntrack", &KernelFeatures::conntrack, FeatureUse::fact,
                "nothing is translated; should nf_conntrack be loaded later, restart twilld for ct_lookup"},
};

namespace {

constexpr bpf_insn insn(unsigned code, unsigned dst, unsigned src, short off, int imm)
{
    bpf_insn i{};
    i.code = static_cast<__u8>(code);
    i.dst_reg = dst & 0xf;
    i.src_reg = src & 0xf;
    i.off = off;
    i.imm = imm;
    return i;
}

constexpr bpf_insn mov(unsigned reg, int value) { return insn(BPF_ALU64 | BPF_MOV | BPF_K, reg, 0, 0, value); }
constexpr bpf_insn zero_stack(short off) { return insn(BPF_ST | BPF_MEM | BPF_DW, 10, 0, off, 0); }
constexpr bpf_insn kExit = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

template <std::size_t N>
Fd load(const bpf_insn (&program)[N])
{
    return Fd(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tw_probe", "Dual BSD/GPL", program, N, nullptr));
}

/// What one run of the program on a packet returns.
std::optional<int> answer_of(const Fd& program)
{
    unsigned char frame[64] = {};
    frame[12] = 0x08;
    frame[14] = 0x45;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame;
    options.data_size_in = sizeof(frame);
    if (!program || bpf_prog_test_run_opts(program.get(), &options) != 0) return std::nullopt;
    return static_cast<int>(options.retval);
}

/// A link to loopback, gone as soon as it is made: the program passes everything.
bool probe_tcx(const Fd& pass)
{
    constexpr int kLoopback = 1;
    return static_cast<bool>(Fd(bpf_link_create(pass.get(), kLoopback, kTcxIngress, nullptr)));
}

/// bpf_skb_adjust_room answers -EINVAL to an unknown flag before it looks at anything else; a length of 4096 is refused
/// next, with -EFAULT.
bool probe_encap_l2_eth()
{
    const bpf_insn ask[] = {
        mov(2, 0x1000),
        mov(3, BPF_ADJ_ROOM_MAC),
        mov(4, BPF_F_ADJ_ROOM_ENCAP_L2_ETH),
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_adjust_room),
        kExit,
    };
    const auto answer = answer_of(load(ask));
    return answer && *answer != -EINVAL;
}

struct BtfDeleter {
    void operator()(btf* b) const noexcept { btf__free(b); }
};
using Btf = std::unique_ptr<btf, BtfDeleter>;

bool probe_jit(const Fd& program)
{
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    return bpf_obj_get_info_by_fd(program.get(), &info, &size) == 0 && info.jited_prog_len > 0;
}

bool has_helper(bpf_func_id helper) { return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helper, nullptr) == 1; }

/// A kernel function, of the kernel or of the module.
bool has_function(const char* name, const char* module, const btf* kernel)
{
    if (btf__find_by_name_kind(kernel, name, BTF_KIND_FUNC) > 0) return true;
    const Btf types(btf__load_module_btf(module, const_cast<btf*>(kernel)));
    return types && btf__find_by_name_kind(types.get(), name, BTF_KIND_FUNC) > 0;
}

/// A tunnel key without the outer source is 16 bytes shorter; a length that the kernel does not know is -EINVAL.
bool probe_tunnel_source()
{
    const bpf_insn ask[] = {
        zero_stack(-8),
        zero_stack(-16),
        zero_stack(-24),
        zero_stack(-32),
        zero_stack(-40),
        zero_stack(-48),
        insn(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
        insn(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -48),
        mov(3, sizeof(bpf_tunnel_key)),
        mov(4, BPF_F_ZERO_CSUM_TX),
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_set_tunnel_key),
        kExit,
    };
    const auto answer = answer_of(load(ask));
    return answer && *answer == 0;
}

KernelFeatures probe(const Fd& program)
{
    const QuietLibbpf quiet;
    KernelFeatures features;
    features.tcx = probe_tcx(program);
    features.encap_l2_eth = probe_encap_l2_eth();
    features.check_mtu = has_helper(BPF_FUNC_check_mtu);
    features.redirect_peer = has_helper(BPF_FUNC_redirect_peer);
    features.redirect_neigh = has_helper(BPF_FUNC_redirect_neigh);
    features.ringbuf =
        has_helper(BPF_FUNC_ringbuf_output) && libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, nullptr) == 1;
    features.tunnel_source = probe_tunnel_source();
    features.jit = probe_jit(program);
    features.conntrack = nl::has_conntrack(); // before its functions are looked for: it loads the module
    const Btf kernel(btf__load_vmlinux_btf());
    features.btf = static_cast<bool>(kernel);
    features.ct_lookup = features.jit && features.btf && features.conntrack &&
                         has_function("bpf_skb_ct_lookup", "nf_conntrack", kernel.get());
    return features;
}

} // namespace

Result<KernelFeatures> probe_features()
{
    static std::optional<KernelFeatures> known;
    if (known) return *known;
    const bpf_insn pass[] = {mov(0, -1), kExit};
    const Fd program = load(pass);
    if (!program) {
        const int code = errno;
        return Error{code, std::string("load a BPF program: ") + std::strerror(code) +
                               (code == EPERM ? " (needs CAP_BPF and CAP_NET_ADMIN)" : "")};
    }
    known = probe(program);
    return *known;
}

} // namespace twill
