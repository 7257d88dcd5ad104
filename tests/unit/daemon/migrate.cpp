// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/migrate.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

using namespace twill;

namespace {

using enum MigrateCheck::Verdict;

nl::Link link(int index, const std::string& name, unsigned mtu)
{
    nl::Link out;
    out.index = IfIndex{index};
    out.name = name;
    out.mtu = mtu;
    return out;
}

nl::Link vxlan(int index, const std::string& name, unsigned vni, std::uint16_t port, unsigned mtu)
{
    nl::Link out = link(index, name, mtu);
    out.kind = "vxlan";
    out.lower = IfIndex{2};
    out.vxlan = nl::Vxlan{};
    out.vxlan->vni = vni;
    out.vxlan->port = port;
    return out;
}

KernelFeatures all_features()
{
    KernelFeatures features;
    for (const auto& feature : kFeatures) features.*feature.on = true;
    return features;
}

NetConf conf_of(const std::string& backend)
{
    const auto conf = NetConf::parse(
        R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":)" + backend + "}",
        "test", net_conf_keys(), Subnets::given);
    REQUIRE(conf);
    return *conf;
}

/// A dual-stack node of flannel's, as it should be.
MigrateInput flannel_node()
{
    MigrateInput input;
    input.conf = conf_of(R"({"Type":"vxlan"})");
    input.wire = link(2, "eth0", 1500);
    input.links = {link(1, "lo", 65536), *input.wire, vxlan(3, "flannel.1", 1, 8472, 1450),
                   vxlan(4, "flannel-v6.1", 1, 8472, 1430), link(5, "cni0", 1450)};
    input.env.emplace();
    input.env->mtu = 1450;
    input.features = all_features();
    input.bpf_root = "/sys/fs/bpf/twill";
    return input;
}

MigrateCheck check_of(const MigrateInput& input, const std::string& name)
{
    const auto checks = check_migration(input);
    const auto it = std::ranges::find(checks, name, &MigrateCheck::name);
    REQUIRE(it != checks.end());
    return *it;
}

void expect(const MigrateInput& input, const std::string& name, MigrateCheck::Verdict verdict, const std::string& words)
{
    CAPTURE(name);
    CAPTURE(words);
    const auto check = check_of(input, name);
    CAPTURE(check.text);
    CHECK(check.verdict == verdict);
    CHECK(check.text.find(words) != std::string::npos);
    // What is wrong with one thing does not show as something else.
    for (const auto& other : check_migration(input))
        if (other.name != name) CHECK(other.verdict != stop);
}

} // namespace

TEST_CASE("migrate: nothing stops the take-over of a node as flannel leaves it")
{
    for (const auto& check : check_migration(flannel_node())) {
        CAPTURE(check.name);
        CAPTURE(check.text);
        CHECK(check.verdict == ok);
    }
    CHECK(check_of(flannel_node(), "device").text ==
          "flannel.1: VNI 1, UDP port 8472, MTU 1450, on eth0; flannel-v6.1: VNI 1, UDP port 8472, MTU 1430, on eth0");
    auto unknown = flannel_node();
    unknown.conf.reset();
    for (const auto& check : check_migration(unknown)) CHECK(check.verdict == ok);
}

TEST_CASE("migrate: the backend")
{
    auto input = flannel_node();
    input.conf.reset();
    input.conf_error = "net-conf.json: Backend.Type \"wireguard\": allowed: vxlan, host-gw, alloc";
    expect(input, "backend", stop, "wireguard");
    input.conf_error.clear();
    input.links = {link(1, "lo", 65536), *input.wire, link(6, "flannel-wg", 1420)};
    input.env->mtu = 1500;
    expect(input, "backend", stop, "wireguard");
    input.links.back().name = "flannel.ipip";
    expect(input, "backend", stop, "ipip");
    input.links.pop_back();
    expect(input, "backend", note, "not known");
    input.conf = conf_of(R"({"Type":"host-gw"})");
    expect(input, "backend", ok, "host-gw");
    expect(input, "device", ok, "none is needed");
    expect(input, "mtu", ok, "1500");
}

TEST_CASE("migrate: flannel's devices")
{
    auto input = flannel_node();
    input.links[2].vxlan->port = 4789;
    expect(input, "device", note, "UDP port 4789, the configuration says 8472");
    input = flannel_node();
    input.links[3].vxlan->gbp = true;
    expect(input, "device", note, "flannel-v6.1: GBP");
    input = flannel_node();
    input.links[2].lower = IfIndex{9};
    expect(input, "device", note, "not on eth0");
    input = flannel_node();
    input.links[2].vxlan.reset();
    expect(input, "device", stop, "no vxlan device");
    input = flannel_node();
    input.links.erase(input.links.begin() + 3);
    expect(input, "device", note, "not there: flannel-v6.1");
    input.links.erase(input.links.begin() + 2);
    expect(input, "device", note, "nothing to adopt");
}

TEST_CASE("migrate: another program's vxlan on the port, and devices of before")
{
    auto input = flannel_node();
    input.links.push_back(vxlan(9, "cilium_vxlan", 0, 8472, 1500));
    input.links.back().vxlan->collect_metadata = true;
    expect(input, "port", stop, "cilium_vxlan");
    input.links.back().vxlan->port = 8473;
    expect(input, "port", ok, "8472");
    input = flannel_node();
    input.links.push_back(vxlan(9, "flannel.7", 7, 8472, 1450));
    expect(input, "leftovers", note, "flannel.7 of another VNI");
    input = flannel_node();
    input.links.push_back(vxlan(9, "twill0", 0, 8472, 1450));
    expect(input, "leftovers", stop, "twill0");
}

TEST_CASE("migrate: the MTU")
{
    auto input = flannel_node();
    input.env->mtu = 1400;
    expect(input, "mtu", note, "FLANNEL_MTU of subnet.env is 1400");
    input = flannel_node();
    input.wire->mtu = 1400;
    expect(input, "mtu", note, "flannel.1 has MTU 1450");
    input = flannel_node();
    input.conf = conf_of(R"({"Type":"vxlan","MTU":9000})");
    expect(input, "mtu", stop, "more than eth0 has");
    input = flannel_node();
    input.wire.reset();
    expect(input, "mtu", note, "not known");
}

TEST_CASE("migrate: firewall, kernel and BPF file system cost speed, not the take-over")
{
    auto input = flannel_node();
    input.obstacle = "nft table ip filter chain FORWARD: policy drop";
    expect(input, "firewall", note, "policy drop");
    input = flannel_node();
    input.obstacle_error = "Operation not permitted";
    expect(input, "firewall", note, "not permitted");
    input = flannel_node();
    input.features->redirect_peer = false;
    expect(input, "kernel", note, "the kernel overlay would carry");
    input = flannel_node();
    input.features->tcx = false;
    expect(input, "kernel", note, "tcx");
    input.features.reset();
    input.features_error = "CAP_BPF";
    expect(input, "kernel", note, "CAP_BPF");
    input = flannel_node();
    input.has_bpffs = false;
    expect(input, "bpffs", note, "mount -t bpf");
}

TEST_CASE("migrate: a node with a marker runs twill, one without runs flannel")
{
    Lease twill;
    twill.key = "10.42.1.0-24";
    twill.node = "a";
    twill.pods.v4 = *Cidr::parse("10.42.1.0/24");
    twill.public_ip.v4 = *Ip::parse("192.0.2.1");
    twill.backend_type = "vxlan";
    twill.marker = Marker{};
    Lease flannel = twill;
    flannel.key = "10.42.2.0-24";
    flannel.marker.reset();
    const std::vector<Lease> leases{twill, flannel};
    const auto json = nlohmann::json::parse(migration_json(&leases, "10.42.2.0-24", {{"mtu", stop, "too much"}}));
    CHECK(json["nodes"][0] == nlohmann::json::parse(R"({"node":"a","runs":"twill","own":false,"pods":["10.42.1.0/24"],
        "public_ip":["192.0.2.1"],"backend":"vxlan"})"));
    CHECK(json["nodes"][1]["runs"] == "flannel");
    CHECK(json["nodes"][1]["own"] == true);
    CHECK(json["checks"][0] == nlohmann::json::parse(R"({"name":"mtu","verdict":"stop","text":"too much"})"));
    CHECK(nlohmann::json::parse(migration_json(nullptr, "", {}))["nodes"].is_null());
}
