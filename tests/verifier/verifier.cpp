// SPDX-License-Identifier: Apache-2.0
// Every program loads with every configuration that the agent may write, and stays small for the verifier. All of them
// with TWILL_FULL=1 in the environment, about a tenth otherwise, and a third of that with TWILL_VM=1 (emulated CPUs).
#define DOCTEST_CONFIG_IMPLEMENT

#include <bpf/bpf.h>
#include <cstdio>
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/support/bpf_fixture.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// How many instructions the verifier may walk in one program. The kernel's own limit is a million.
constexpr std::uint32_t kMostInstructions = 100000;

enum class Families { dual, v4, v6 };

tw_cfg base_config(Families families)
{
    tw_cfg cfg{};
    const bool v4 = families != Families::v6;
    const bool v6 = families != Families::v4;
    cfg.cluster_v4 = v4 ? abi(*Cidr::parse("10.42.0.0/16")) : no_net();
    cfg.own_v4 = v4 ? abi(*Cidr::parse("10.42.1.0/24")) : no_net();
    cfg.cluster_v6 = v6 ? abi(*Cidr::parse("fd00:42::/48")) : no_net();
    cfg.own_v6 = v6 ? abi(*Cidr::parse("fd00:42:0:1::/64")) : no_net();
    if (v4) cfg.node_v4 = abi(ip("192.0.2.1"));
    if (v6) cfg.node_v6 = abi(ip("2001:db8::1"));
    cfg.vni = 1;
    cfg.overlay = cfg.overlay6 = 1;
    cfg.port = 8472;
    cfg.sport_min = 32768;
    cfg.sport_max = 60999;
    cfg.vtep_mac[0] = cfg.vtep_mac6[0] = 2;
    return cfg;
}

/// The bits of `switches`: fast, ct_lookup, encap_l2_eth, vxlan_device, gbp, check_mtu.
constexpr unsigned kSwitches = 6;
void set_switches(tw_cfg& cfg, unsigned switches)
{
    std::uint8_t* const fields[kSwitches] = {&cfg.fast,         &cfg.ct_lookup, &cfg.encap_l2_eth,
                                             &cfg.vxlan_device, &cfg.gbp,       &cfg.check_mtu};
    for (unsigned i = 0; i < kSwitches; ++i) *fields[i] = static_cast<std::uint8_t>(switches >> i & 1U);
}

std::string name_of(const tw_cfg& cfg, Families families)
{
    static constexpr const char* kFamilies[] = {"dual", "v4", "v6"};
    return fmt::format("{} fast={} ct_lookup={} encap_l2_eth={} vxlan_device={} gbp={} check_mtu={} anti_spoof={}",
                       kFamilies[static_cast<int>(families)], cfg.fast, cfg.ct_lookup, cfg.encap_l2_eth,
                       cfg.vxlan_device, cfg.gbp, cfg.check_mtu, static_cast<int>(cfg.anti_spoof));
}

/// What the running kernel lets be on.
unsigned possible_switches()
{
    unsigned possible = (1U << kSwitches) - 1;
    const auto without = [&](unsigned bit, const char* what) {
        possible &= ~(1U << bit);
        fmt::print("not loaded: configurations with {}, this kernel does not have it\n", what);
    };
    if (!kernel_has("bpf_skb_ct_lookup", "nf_conntrack")) without(1, "ct_lookup");
    if (!kernel_has_helper(BPF_FUNC_check_mtu)) without(5, "check_mtu");
    return possible;
}

/// The run of every day: everything on, everything off and each switch off alone; the other modes with everything on.
/// Under emulation only what the agent may be told on this kernel: either mode that checks, one family, no vxlan
/// device.
bool is_in_short_run(Families families, tw_anti_spoof mode, unsigned switches, unsigned possible)
{
    const unsigned off = possible & ~switches;
    static const bool emulated = std::getenv("TWILL_VM") != nullptr;
    constexpr unsigned kVxlanDevice = 1U << 3;
    if (emulated) {
        if (families != Families::dual) return mode == TW_SPOOF_LOOSE && off == 0;
        return mode == TW_SPOOF_LOOSE ? off == 0 || off == kVxlanDevice : mode == TW_SPOOF_STRICT && off == 0;
    }
    const bool one_at_most = (off & (off - 1)) == 0;
    return mode == TW_SPOOF_LOOSE ? one_at_most || switches == 0 : off == 0;
}

struct Size {
    std::uint32_t walked = 0;
    std::uint32_t translated = 0;
    std::string config;
};

/// Keeps the larger of `most` and what the loaded program took.
void measure(const Dataplane& dp, Program program, const std::string& config, Size& most)
{
    bpf_prog_info info{};
    std::uint32_t size = sizeof info;
    REQUIRE(bpf_obj_get_info_by_fd(dp.fd(program), &info, &size) == 0);
    const std::uint32_t walked = dp.walked(program);
    CHECK_MESSAGE(walked > 0, to_string(program), " ", config);
    CHECK_MESSAGE(walked <= kMostInstructions, to_string(program), " ", config);
    if (walked >= most.walked) most = {walked, info.xlated_prog_len / 8, config};
}

} // namespace

TEST_CASE("verifier: every program loads with every switch, within the instructions that it may take")
{
    const unsigned possible = possible_switches();
    const bool full = std::getenv("TWILL_FULL") != nullptr;
    std::map<Program, Size> most;
    int loaded = 0;
    const auto load = [&](const tw_cfg& cfg, const std::string& config) {
        const auto dp = Dataplane::make(cfg, false);
        CHECK_MESSAGE(dp.has_value(), config);
        if (!dp) return;
        ++loaded;
        for (const Program program : kPrograms) measure(**dp, program, config, most[program]);
    };
    for (const Families families : {Families::dual, Families::v4, Families::v6})
        for (const tw_anti_spoof mode : {TW_SPOOF_OFF, TW_SPOOF_LOOSE, TW_SPOOF_STRICT})
            for (unsigned switches = 0; switches < 1U << kSwitches; ++switches) {
                tw_cfg cfg = base_config(families);
                cfg.anti_spoof = mode;
                set_switches(cfg, switches);
                if ((switches & ~possible) != 0) continue;
                if (full || is_in_short_run(families, mode, switches, possible)) load(cfg, name_of(cfg, families));
                // Masquerade, with everything that there is.
                const bool most_of_all = switches == possible && mode == TW_SPOOF_LOOSE;
                for (const tw_nat_rules rules : {TW_NAT_IPTABLES, TW_NAT_NFT}) {
                    if (!most_of_all || (!full && rules == TW_NAT_NFT)) continue;
                    tw_cfg masquerade = cfg;
                    masquerade.nat = static_cast<std::uint8_t>(rules);
                    masquerade.nat_keep = masquerade.nat_notes = 1;
                    masquerade.nat_max = 256;
                    load(masquerade, name_of(cfg, families) + " nat=" + std::to_string(rules));
                }
                // On flannel's devices, with everything that there is.
                if (switches != possible || (!full && (families != Families::dual || mode != TW_SPOOF_LOOSE))) continue;
                cfg.flannel = 1;
                cfg.overlay6 = 2;
                load(cfg, name_of(cfg, families) + " flannel=1");
            }
    fmt::print("{} configurations of six programs loaded; the largest of each:\n", loaded);
    for (const auto& [program, size] : most)
        fmt::print("  {:<16} {:>6} instructions walked, {:>5} long  ({})\n", to_string(program), size.walked,
                   size.translated, size.config);
    // For vagrant/kernels-doc.
    for (const auto& [program, size] : most)
        fmt::print("VERIFIED {} walked={} long={} configurations={}\n", to_string(program), size.walked,
                   size.translated, loaded);
    CHECK(loaded > 0);
}

TEST_CASE("verifier: the flow maps load in their shipped size")
{
    tw_cfg cfg = base_config(Families::dual);
    set_switches(cfg, 0x2d & possible_switches());
    const auto dp = Dataplane::make(cfg, true);
    CHECK(dp.has_value());
}

TEST_CASE("verifier: program names fit into the kernel's 15 characters")
{
    for (const Program program : kPrograms) CHECK(std::strlen(to_string(program)) <= 15);
}

int main(int argc, char** argv)
{
    if (const auto missing = missing_for_bpf(); !missing.empty()) {
        fmt::print("SKIP: needs {}\n", missing);
        return 77;
    }
    doctest::Context context(argc, argv);
    return context.run();
}
