// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_leases.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

NetConf conf() { return *NetConf::parse(R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})", "test", {}); }

KubeNode node(const std::string& name, const std::string& cidr, const std::string& ip = "192.0.2.1")
{
    KubeNode made;
    made.name = name;
    made.pod_cidr = cidr;
    made.annotations = {{"kube-subnet-manager", "true"},
                        {"backend-type", "vxlan"},
                        {"backend-data", R"({"VNI":1,"VtepMAC":"0a:00:00:00:00:01"})"},
                        {"public-ip", ip}};
    return made;
}

/// "+key" a put, "-key" a key gone, "!key" a bad one.
std::string brief(const std::vector<LeaseEvent>& events)
{
    std::string text;
    for (const auto& event : events) {
        if (!text.empty()) text += ' ';
        if (const auto* put = std::get_if<LeasePut>(&event)) text += "+" + put->lease.key + "@" + put->lease.node;
        if (const auto* gone = std::get_if<LeaseGone>(&event)) text += "-" + gone->key;
        if (const auto* bad = std::get_if<BadLease>(&event)) text += "!" + bad->key;
    }
    return text;
}

} // namespace

TEST_CASE("kube_leases: a node that changed in nothing that matters costs no event")
{
    KubeLeases leases(conf());
    CHECK(brief(leases.put(node("a", "10.42.1.0/24"))) == "+10.42.1.0-24@a");
    auto again = node("a", "10.42.1.0/24");
    again.resource_version = "77";
    again.is_network_announced = true;
    again.annotations["public-ip-overwrite"] = "192.0.2.7"; // what counts is what the node publishes
    CHECK(leases.put(again).empty());
    CHECK(brief(leases.put(node("a", "10.42.1.0/24", "192.0.2.9"))) == "+10.42.1.0-24@a");
}

TEST_CASE("kube_leases: a new podCIDR, a mark taken away and a deletion are seen, which flannel misses")
{
    KubeLeases leases(conf());
    (void)leases.put(node("a", "10.42.1.0/24"));
    CHECK(brief(leases.put(node("a", "10.42.2.0/24"))) == "-10.42.1.0-24 +10.42.2.0-24@a");
    auto unmarked = node("a", "10.42.2.0/24");
    unmarked.annotations.erase("kube-subnet-manager");
    CHECK(brief(leases.put(unmarked)) == "-10.42.2.0-24");
    CHECK(leases.remove("a").empty());
    (void)leases.put(node("a", "10.42.2.0/24"));
    CHECK(brief(leases.remove("a")) == "-10.42.2.0-24");
    CHECK(leases.nodes() == 0);
}

TEST_CASE("kube_leases: junk costs its own node, and heals")
{
    KubeLeases leases(conf());
    (void)leases.put(node("a", "10.42.1.0/24"));
    (void)leases.put(node("b", "10.42.2.0/24", "192.0.2.2"));
    CHECK(brief(leases.put(node("a", "10.42.1.0/24", "junk"))) == "-10.42.1.0-24 !node/a");
    CHECK(leases.put(node("a", "10.42.1.0/24", "junk")).empty());
    CHECK(leases.snapshot().leases.size() == 1);
    REQUIRE(leases.snapshot().bad.size() == 1);
    CHECK(leases.snapshot().bad[0].why.find("annotation public-ip \"junk\"") != std::string::npos);
    CHECK(brief(leases.put(node("a", "10.42.1.0/24"))) == "-node/a +10.42.1.0-24@a");
}

TEST_CASE("kube_leases: of two nodes with one podCIDR the first by name has it, in any order of arrival")
{
    KubeLeases leases(conf());
    CHECK(brief(leases.put(node("b", "10.42.1.0/24", "192.0.2.2"))) == "+10.42.1.0-24@b");
    CHECK(brief(leases.put(node("a", "10.42.1.0/24"))) == "+10.42.1.0-24@a !node/b");
    CHECK(brief(leases.put(node("c", "10.42.1.0/24", "192.0.2.3"))) == "!node/c");
    CHECK(leases.snapshot().bad.size() == 2);
    CHECK(brief(leases.remove("a")) == "-node/b +10.42.1.0-24@b !node/c");
    CHECK(brief(leases.put(node("b", "10.42.9.0/24", "192.0.2.2"))) == "-node/c +10.42.1.0-24@c +10.42.9.0-24@b");
}
