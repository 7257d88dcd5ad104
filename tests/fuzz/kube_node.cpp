// SPDX-License-Identifier: Apache-2.0
// Bodies of an API server: lists, events, single nodes, and what they make of them. The first byte says how the body is
// cut into pieces, which must not matter.
#include <cstdlib>
#include <string>
#include <vector>

#include "agent/store/kube_leases.hpp"
#include "agent/store/kube_node.hpp"

using namespace twill;

namespace {

const std::string kPrefix = "flannel.alpha.coreos.com/";

std::vector<std::string> sieve(std::string_view text, std::size_t piece, std::vector<SieveRule> rules)
{
    std::vector<std::string> out;
    JsonSieve under_test(std::move(rules), [&](std::string_view json, bool) { out.emplace_back(json); });
    for (std::size_t at = 0; at < text.size(); at += piece)
        if (!under_test.feed(text.substr(at, piece))) {
            out.emplace_back("error");
            break;
        }
    return out;
}

void use(KubeLeases& leases, const KubeNode& node)
{
    (void)leases.put(node);
    (void)node_macs(node);
    (void)node_public_ip(node);
    LeaseRequest request;
    request.backend_type = "host-gw";
    request.public_ip.v4 = Ip::v4(192, 0, 2, 1);
    if (const auto wanted = wanted_annotations(node, request)) (void)annotation_patch(node, *wanted, kPrefix);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size)
{
    static const auto conf = NetConf::parse(
        R"({"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fd00::/32","Backend":{"Type":"vxlan"}})", "fuzz",
        {});
    if (!conf) std::abort();
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::size_t piece = data[0] == 0 ? 1 : data[0];
    KubeLeases leases(*conf);
    for (const auto& rules : {node_list_rules(kPrefix), node_event_rules(kPrefix)}) {
        const auto whole = sieve(text, text.size() + 1, rules);
        if (sieve(text, piece, rules) != whole) std::abort();
        for (const auto& json : whole) {
            if (const auto node = parse_node(json, kPrefix)) use(leases, *node);
            if (const auto event = parse_event(json, kPrefix); event && event->node) use(leases, *event->node);
            (void)parse_list_end(json);
        }
    }
    if (const auto node = parse_node(text, kPrefix)) {
        use(leases, *node);
        (void)leases.snapshot();
        (void)leases.remove(node->name);
    }
    // Annotations under fuzz, whatever the object around them.
    KubeNode node;
    node.name = "a";
    node.pod_cidrs = {"10.1.0.0/24", "fd00:0:1::/64"};
    node.annotations = {{"kube-subnet-manager", "true"},
                        {"backend-type", "vxlan"},
                        {"public-ip", "192.0.2.1"},
                        {"backend-data", std::string(text)},
                        {"twill", std::string(text)}};
    use(leases, node);
    (void)parse_status(text);
    (void)parse_pod_node(text);
    return 0;
}
