// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_node.hpp"

#include <doctest/doctest.h>

#include "agent/store/rfc3339.hpp"

using namespace twill;

namespace {

const std::string kPrefix = "flannel.alpha.coreos.com/";

NetConf conf_of(const std::string& text) { return *NetConf::parse(text, "test", {}); }
NetConf v4_conf() { return conf_of(R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})"); }
NetConf dual_conf()
{
    return conf_of(
        R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":{"Type":"vxlan"}})");
}
NetConf v6_conf()
{
    return conf_of(R"({"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:42::/48","Backend":{"Type":"vxlan"}})");
}

KubeNode dual_node()
{
    KubeNode node;
    node.name = "a";
    node.pod_cidr = "10.42.1.0/24";
    node.pod_cidrs = {"10.42.1.0/24", "fd00:42:0:1::/64"};
    node.annotations = {{"kube-subnet-manager", "true"},
                        {"backend-type", "vxlan"},
                        {"backend-data", R"({"VNI":1,"VtepMAC":"0a:00:00:00:00:01"})"},
                        {"backend-v6-data", R"({"VNI":1,"VtepMAC":"0a:00:00:00:00:06"})"},
                        {"public-ip", "192.0.2.1"},
                        {"public-ipv6", "2001:db8::1"}};
    return node;
}

LeaseRequest request_of(bool v4, bool v6, const std::string& type = "vxlan")
{
    LeaseRequest request;
    request.backend_type = type;
    request.marker.zero_csum6 = true;
    if (v4) request.public_ip.v4 = *Ip::parse("192.0.2.1");
    if (v6) request.public_ip.v6 = *Ip::parse("2001:db8::1");
    if (v4 && type == "vxlan") request.vtep_mac.v4 = *Mac::parse("0a:00:00:00:00:01");
    if (v6 && type == "vxlan") request.vtep_mac.v6 = *Mac::parse("0a:00:00:00:00:01");
    return request;
}

std::string patch_of(const KubeNode& node, const LeaseRequest& request)
{
    auto wanted = *wanted_annotations(node, request);
    wanted.erase("twill"); // what follows is flannel's text to the byte
    return annotation_patch(node, wanted, kPrefix).value_or("");
}

} // namespace

TEST_CASE("kube_node: prefixes are flannel's")
{
    // flannel's Test_newAnnotations.
    CHECK(*annotation_prefix("flannel.alpha.coreos.com") == kPrefix);
    CHECK(*annotation_prefix("foo.bar") == "foo.bar/");
    CHECK(*annotation_prefix("foo.bar/") == "foo.bar/");
    CHECK(*annotation_prefix("foo.bar/baz") == "foo.bar/baz-");
    CHECK(*annotation_prefix("foo.bar/baz-") == "foo.bar/baz-");
    for (const auto* refused : {"", "foo", "foo/bar", "foo.bar/a/b", "FOO.bar", "foo.bar/A", "foo.bar/a.b", "foo.",
                                ".bar", "foo.bar/-", "foo.bar /x"})
        CHECK_MESSAGE(!annotation_prefix(refused), refused);
}

TEST_CASE("kube_node: a Node object is reduced to what matters, however large it is")
{
    const std::string text =
        R"({"type":"MODIFIED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"a",)"
        R"("resourceVersion":"12","labels":{"name":"x"},"annotations":{"other/public-ip":"1",)"
        R"("flannel.alpha.coreos.com/public-ip":"192.0.2.1"},"managedFields":[{"f:spec":{}}]},)"
        R"("spec":{"podCIDR":"10.42.1.0/24","podCIDRs":["10.42.1.0/24"],"taints":[]},)"
        R"("status":{"conditions":[{"type":"Ready","status":"True","reason":"FlannelIsUp"},)"
        R"({"type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp"}],"images":[{}]}}})";
    std::optional<KubeEnvelope> event;
    JsonSieve sieve(node_event_rules(kPrefix), [&](std::string_view json, bool) {
        CHECK(json.find("managedFields") == json.npos);
        CHECK(json.find("images") == json.npos);
        event = *parse_event(json, kPrefix);
    });
    REQUIRE(sieve.feed(text));
    REQUIRE(event);
    CHECK(event->type == "MODIFIED");
    CHECK(*event->node ==
          KubeNode{"a", "12", "10.42.1.0/24", {"10.42.1.0/24"}, {{"public-ip", "192.0.2.1"}}, true, "", ""});
}

TEST_CASE("kube_node: bookmarks, errors and the end of a page are read")
{
    const auto bookmark =
        parse_event(R"({"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"99"}}})", kPrefix);
    REQUIRE(bookmark);
    CHECK(bookmark->node->resource_version == "99");
    const auto error =
        parse_event(R"({"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old\n"}})", kPrefix);
    REQUIRE(error);
    CHECK(error->status->code == 410);
    CHECK(error->status->message == "too old ");
    const auto page =
        parse_list_end(R"({"kind":"NodeList","metadata":{"resourceVersion":"7","continue":"t"},"items":[]})");
    REQUIRE(page);
    CHECK(page->next_page == "t");
    CHECK_FALSE(parse_list_end("{}"));
    CHECK_FALSE(parse_list_end(R"({"kind":"NodeList","metadata":{}})"));
    CHECK_FALSE(parse_event(R"({"type":"ADDED","object":{}})", kPrefix));
    CHECK_FALSE(parse_node(R"({"metadata":{"name":7}})", kPrefix));
    CHECK(parse_node(R"({"metadata":{"name":"a"},"spec":{"podCIDRs":"x"}})", kPrefix)->trouble != "");
    CHECK(*parse_pod_node(R"({"spec":{"nodeName":"n"}})") == "n");
    CHECK_FALSE(parse_pod_node(R"({"spec":{}})"));
    CHECK(parse_status("junk").code == 0);
}

TEST_CASE("kube_node: annotations become a lease in each family that is on")
{
    const auto dual = node_to_lease(dual_node(), dual_conf());
    REQUIRE_MESSAGE(dual, dual.error().what);
    REQUIRE(*dual);
    CHECK((*dual)->key == "10.42.1.0-24&fd00:42:0:1::-64");
    CHECK((*dual)->vtep_mac.v6 == *Mac::parse("0a:00:00:00:00:06"));
    CHECK_FALSE((*dual)->expires);
    CHECK_FALSE((*dual)->marker);
    CHECK((**node_to_lease(dual_node(), v4_conf())).key == "10.42.1.0-24");

    auto only_v6 = dual_node();
    only_v6.pod_cidr = "fd00:42:0:1::/64";
    only_v6.pod_cidrs.clear();
    only_v6.annotations.erase("public-ip");
    only_v6.annotations.erase("backend-data");
    CHECK((**node_to_lease(only_v6, v6_conf())).key == "fd00:42:0:1::-64");
    // In a dual-stack cluster a node that has one family takes part with that one.
    CHECK((**node_to_lease(only_v6, dual_conf())).key == "fd00:42:0:1::-64");
    CHECK_FALSE(node_to_lease(only_v6, v4_conf()));
}

TEST_CASE("kube_node: the marker counts when it is one")
{
    auto node = dual_node();
    const auto marker_with = [&](const std::string& rest) {
        node.annotations["twill"] = R"({"v":1,"zeroCsum6":true)" + rest + "}";
        return (**node_to_lease(node, dual_conf())).marker;
    };
    const std::string mac = R"(,"vtepMAC":"0a:00:00:00:00:06")";
    const Marker marker{true, *Mac::parse("0a:00:00:00:00:06")};
    CHECK(marker_with(mac) == marker);
    CHECK_FALSE(marker_with(R"(,"vtepMAC":"0a:00:00:00:00:01")"));
    CHECK_FALSE(marker_with("")); // nothing ends an annotation: whose device it is nobody knows
    // flannel started since, with the MAC that it found in the annotations: it writes the condition each time.
    node.network_since = "2026-11-21T12:00:00Z";
    CHECK_FALSE(marker_with(mac));
    CHECK(marker_with(mac + R"(,"since":"2026-11-21T12:00:00Z")") == marker);
    CHECK_FALSE(marker_with(mac + R"(,"since":"2026-11-20T12:00:00Z")"));
    node.network_since.clear();
    CHECK_FALSE(marker_with(mac + R"(,"since":"2026-11-20T12:00:00Z")"));
    node.annotations["twill"] = "junk";
    CHECK_FALSE((**node_to_lease(node, dual_conf())).marker);
}

TEST_CASE("kube_node: a node without flannel's mark is none of ours")
{
    auto node = dual_node();
    node.annotations["kube-subnet-manager"] = "false";
    node.annotations["public-ip"] = "junk";
    const auto lease = node_to_lease(node, dual_conf());
    REQUIRE(lease);
    CHECK_FALSE(*lease);
}

TEST_CASE("kube_node: junk is an error that names annotation and value")
{
    const std::pair<std::string, std::string> junk[] = {
        {"public-ip", "192.0.2"},
        {"public-ip", "2001:db8::1"},
        {"public-ip", "224.0.0.1"},
        {"public-ipv6", "192.0.2.1"},
        {"backend-data", "null"},
        {"backend-data", "{"},
        {"backend-data", R"({"VNI":1})"},
        {"backend-data", R"({"VtepMAC":"01:00:00:00:00:01"})"},
        {"backend-v6-data", R"({"VtepMAC":7})"},
        {"backend-v6-data", std::string(100, '[')},
    };
    for (const auto& [name, value] : junk) {
        CAPTURE(name);
        CAPTURE(value);
        auto node = dual_node();
        node.annotations[name] = value;
        const auto lease = node_to_lease(node, dual_conf());
        REQUIRE_FALSE(lease);
        CHECK(lease.error().what.find("annotation " + name + " ") == 0);
        CHECK(lease.error().what.find(value.substr(1, 5)) != std::string::npos);
        CHECK(lease.error().what.find('\n') == std::string::npos);
    }
    using Cidrs = std::vector<std::string>;
    for (const auto& cidrs : {Cidrs{"x"}, Cidrs{"10.42.1.0/32"}, Cidrs{"10.42.1.0/24", "10.42.2.0/24"},
                              Cidrs{"10.42.1.0/24", "fd00::/64", "fd01::/64"}}) {
        auto node = dual_node();
        node.pod_cidrs = cidrs;
        const auto lease = node_to_lease(node, dual_conf());
        REQUIRE_FALSE(lease);
        CHECK(lease.error().what.find("spec.podCIDRs ") == 0);
    }
    auto none = dual_node();
    none.pod_cidr = "";
    none.pod_cidrs.clear();
    CHECK(node_to_lease(none, dual_conf()).error().what.find("spec.podCIDR absent") == 0);
}

TEST_CASE("kube_node: what is published is flannel's patch to the byte")
{
    KubeNode fresh;
    fresh.name = "a";
    CHECK(
        patch_of(fresh, request_of(true, false)) ==
        R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}",)"
        R"("flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/kube-subnet-manager":"true",)"
        R"("flannel.alpha.coreos.com/public-ip":"192.0.2.1"}}})");
    CHECK(
        patch_of(fresh, request_of(true, true)) ==
        R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}",)"
        R"("flannel.alpha.coreos.com/backend-type":"vxlan",)"
        R"("flannel.alpha.coreos.com/backend-v6-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}",)"
        R"("flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/public-ip":"192.0.2.1",)"
        R"("flannel.alpha.coreos.com/public-ipv6":"2001:db8::1"}}})");
    // IPv6 alone: vxlan writes nothing of IPv4, host-gw writes what flannel has for it.
    CHECK(
        patch_of(fresh, request_of(false, true)) ==
        R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-type":"vxlan",)"
        R"("flannel.alpha.coreos.com/backend-v6-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}",)"
        R"("flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/public-ipv6":"2001:db8::1"}}})");
    CHECK(patch_of(fresh, request_of(true, true, "host-gw")) ==
          R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"null",)"
          R"("flannel.alpha.coreos.com/backend-type":"host-gw","flannel.alpha.coreos.com/backend-v6-data":"null",)"
          R"("flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/public-ip":"192.0.2.1",)"
          R"("flannel.alpha.coreos.com/public-ipv6":"2001:db8::1"}}})");
    CHECK(patch_of(fresh, request_of(true, false, "")) ==
          R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"null",)"
          R"("flannel.alpha.coreos.com/backend-type":"","flannel.alpha.coreos.com/kube-subnet-manager":"true",)"
          R"("flannel.alpha.coreos.com/public-ip":"192.0.2.1"}}})");
}

TEST_CASE("kube_node: only what differs is written")
{
    const auto node = dual_node();
    CHECK(patch_of(node, request_of(true, false)) == "");
    CHECK(
        patch_of(node, request_of(true, true)) ==
        R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-v6-data":"{\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:01\"}"}}})");
    const auto wanted = wanted_annotations(node, request_of(true, false));
    REQUIRE(wanted);
    CHECK(annotation_patch(node, *wanted, kPrefix) ==
          R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/twill":"{\"v\":1,\"zeroCsum6\":true}"}}})");
    auto since = node;
    since.network_since = "2026-11-21T12:00:00Z";
    CHECK(wanted_annotations(since, request_of(true, false))->at("twill") ==
          R"({"v":1,"zeroCsum6":true,"since":"2026-11-21T12:00:00Z"})");
}

TEST_CASE("kube_node: public-ip-overwrite is published instead, and junk there is named")
{
    auto node = dual_node();
    node.annotations["public-ip-overwrite"] = "198.51.100.7";
    CHECK(patch_of(node, request_of(true, false)) ==
          R"({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"198.51.100.7"}}})");
    node.annotations["public-ip"] = "198.51.100.7";
    CHECK(patch_of(node, request_of(true, false)) == "");
    node.annotations["public-ip-overwrite"] = "junk";
    const auto refused = wanted_annotations(node, request_of(true, false));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().what.find("annotation public-ip-overwrite \"junk\"") == 0);

    node.annotations["node-public-ip"] = "198.51.100.8";
    CHECK(node_public_ip(node)->v4 == *Ip::parse("198.51.100.8"));
    CHECK_FALSE(node_public_ip(node)->v6);
    node.annotations["node-public-ipv6"] = "198.51.100.8";
    CHECK_FALSE(node_public_ip(node));
}

TEST_CASE("kube_node: the condition is flannel's to the byte, but for the time")
{
    CHECK(
        announce_patch(*parse_rfc3339("2026-11-21T12:00:00Z")) ==
        R"({"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","lastHeartbeatTime":"2026-11-21T12:00:00Z",)"
        R"("lastTransitionTime":"2026-11-21T12:00:00Z","reason":"FlannelIsUp","message":"Flannel is running on this node"}]}})");
}
