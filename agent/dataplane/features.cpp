// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/features.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "agent/dataplane/bpf_abi.hpp"
#include "twill/fd.hpp"

namespace twill {

const std::array<FeatureInfo, 4> kFeatures = {
    FeatureInfo{"tcx", &KernelFeatures::tcx, "programs are attached as clsact filters, not as links"},
    FeatureInfo{"ct_lookup", &KernelFeatures::ct_lookup,
                "flows with NAT are known only once the node has forwarded a packet of theirs"},
    FeatureInfo{"encap_l2_eth", &KernelFeatures::encap_l2_eth,
                "the overlay device encapsulates instead of the programs"},
    FeatureInfo{"check_mtu", &KernelFeatures::check_mtu,
                "a pod replaced while the agent is away is reached again only when the agent is back"},
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
constexpr bpf_insn kExit = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

template <std::size_t N>
Fd load(const bpf_insn (&program)[N])
{
    return Fd(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tw_probe", "Dual BSD/GPL", program, N, nullptr));
}

/// A link to loopback, gone as soon as it is made: the program passes everything.
bool probe_tcx()
{
    const bpf_insn pass[] = {mov(0, -1), kExit};
    const Fd program = load(pass);
    if (!program) return false;
    constexpr int kLoopback = 1;
    return static_cast<bool>(Fd(bpf_link_create(program.get(), kLoopback, kTcxIngress, nullptr)));
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
    const Fd program = load(ask);
    unsigned char frame[64] = {};
    frame[12] = 0x08;
    frame[14] = 0x45;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame;
    options.data_size_in = sizeof(frame);
    return program && bpf_prog_test_run_opts(program.get(), &options) == 0 &&
           static_cast<int>(options.retval) != -EINVAL;
}

struct BtfDeleter {
    void operator()(btf* b) const noexcept { btf__free(b); }
};
using Btf = std::unique_ptr<btf, BtfDeleter>;

bool probe_ct_lookup()
{
    const Btf kernel(btf__load_vmlinux_btf());
    if (!kernel) return false;
    if (btf__find_by_name_kind(kernel.get(), "bpf_skb_ct_lookup", BTF_KIND_FUNC) > 0) return true;
    const Btf module(btf__load_module_btf("nf_conntrack", kernel.get()));
    return module && btf__find_by_name_kind(module.get(), "bpf_skb_ct_lookup", BTF_KIND_FUNC) > 0;
}

} // namespace

Result<KernelFeatures> probe_features()
{
    const bpf_insn pass[] = {mov(0, -1), kExit};
    if (!load(pass)) {
        const int code = errno;
        return Error{code, std::string("load a BPF program: ") + std::strerror(code) +
                               (code == EPERM ? " (needs CAP_BPF and CAP_NET_ADMIN)" : "")};
    }
    KernelFeatures features;
    features.tcx = probe_tcx();
    features.ct_lookup = probe_ct_lookup();
    features.encap_l2_eth = probe_encap_l2_eth();
    features.check_mtu = libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, BPF_FUNC_check_mtu, nullptr) == 1;
    return features;
}

} // namespace twill
