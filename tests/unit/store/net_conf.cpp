// SPDX-License-Identifier: Apache-2.0
#include "agent/store/net_conf.hpp"

#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <utility>

using namespace twill;

namespace {

const std::vector<std::string_view> kTwillKeys = {"overlay", "overlayName", "fastPath", "antiSpoof", "feature"};

Result<NetConf> parse(std::string_view text) { return NetConf::parse(text, "net.json", kTwillKeys); }

/// A configuration with `inside` between the network and a vxlan backend.
Result<NetConf> with(const std::string& inside)
{
    return parse(R"({"Network":"10.42.0.0/16",)" + inside + R"("Backend":{"Type":"vxlan"}})");
}

Result<NetConf> with_backend(const std::string& backend)
{
    return parse(R"({"Network":"10.42.0.0/16","Backend":)" + backend + "}");
}

} // namespace

TEST_CASE("net_conf: defaults are flannel's")
{
    const auto conf = with("");
    REQUIRE(conf);
    REQUIRE(conf->network.v4);
    CHECK_FALSE(conf->network.v6);
    CHECK(conf->network.v4->network.to_string() == "10.42.0.0/16");
    CHECK(conf->network.v4->subnet_len == 24);
    CHECK(conf->network.v4->subnet_min.to_string() == "10.42.1.0/24");
    CHECK(conf->network.v4->subnet_max.to_string() == "10.42.255.0/24");
    CHECK(conf->backend == Backend::vxlan);
    CHECK(conf->vni.value == 1);
    CHECK(conf->port == 8472);
    CHECK_FALSE(conf->mtu);
    CHECK_FALSE(conf->gbp);
    CHECK_FALSE(conf->learning);
    CHECK_FALSE(conf->direct_routing);
    CHECK_FALSE(conf->enable_nftables);
    CHECK(conf->twill.empty());
}

TEST_CASE("net_conf: ipv6 defaults are flannel's, alone and beside IPv4")
{
    const auto dual = with(R"("EnableIPv6":true,"IPv6Network":"fd00:42::/48",)");
    REQUIRE(dual);
    CHECK(dual->network.v4);
    REQUIRE(dual->network.v6);
    CHECK(dual->network.v6->subnet_len == 64);
    CHECK(dual->network.v6->subnet_min.to_string() == "fd00:42:0:1::/64");
    CHECK(dual->network.v6->subnet_max.to_string() == "fd00:42:0:ffff::/64");

    const auto only = parse(R"({"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:42::/56",
                               "Backend":{"Type":"host-gw"}})");
    REQUIRE(only);
    CHECK_FALSE(only->network.v4);
    CHECK(only->network.v6->subnet_max.to_string() == "fd00:42:0:ff::/64");
    CHECK(only->backend == Backend::host_gw);
}

TEST_CASE("net_conf: a network too long for the default length is cut in four")
{
    const auto conf = parse(R"({"Network":"10.42.4.0/23","EnableIPv6":true,"IPv6Network":"fd00:42::/63",
                               "Backend":{"Type":"alloc"}})");
    REQUIRE(conf);
    CHECK(conf->network.v4->subnet_len == 25);
    CHECK(conf->network.v4->subnet_min.to_string() == "10.42.4.128/25");
    CHECK(conf->network.v4->subnet_max.to_string() == "10.42.5.128/25");
    CHECK(conf->network.v6->subnet_len == 65);
    CHECK(with(R"("SubnetLen":0,"SubnetMin":"0.0.0.0",)")->network.v4->subnet_len == 24);
}

TEST_CASE("net_conf: every key overrides its default, host bits are masked off")
{
    const auto conf = parse(R"({
        "Network":"10.3.7.9/16", "SubnetLen":28, "SubnetMin":"10.3.5.0", "SubnetMax":"10.3.8.16",
        "EnableIPv6":true, "IPv6Network":"fc00::/48", "IPv6SubnetLen":72,
        "IPv6SubnetMin":"fc00::100:0:0:0", "IPv6SubnetMax":"fc00:0:0:1::", "EnableNFTables":true,
        "Backend":{"Type":"VXLAN","VNI":4096,"Port":4789,"MTU":9000,"GBP":true,"Learning":true,"DirectRouting":true},
        "Twill":{"overlay":"veth","fastPath":"off","feature":{"tcx":"off","ct_lookup":true}}})");
    REQUIRE(conf);
    CHECK(conf->network.v4->network.to_string() == "10.3.0.0/16");
    CHECK(conf->network.v4->subnet_len == 28);
    CHECK(conf->network.v4->subnet_min.to_string() == "10.3.5.0/28");
    CHECK(conf->network.v4->subnet_max.to_string() == "10.3.8.16/28");
    CHECK(conf->network.v6->subnet_min.to_string() == "fc00::100:0:0:0/72");
    CHECK(conf->enable_nftables);
    CHECK(conf->vni.value == 4096);
    CHECK(conf->port == 4789);
    CHECK(conf->mtu == 9000U);
    CHECK(conf->gbp);
    CHECK(conf->learning);
    CHECK(conf->direct_routing);
    CHECK(conf->twill ==
          std::map<std::string, std::string>{
              {"overlay", "veth"}, {"fastPath", "off"}, {"feature.tcx", "off"}, {"feature.ct_lookup", "true"}});
    CHECK(with_backend(R"({"Type":"vxlan","Port":0})")->port == 8472);
    CHECK(with_backend(R"({"Type":"vxlan","VNI":16777215})")->vni.value == Vni::kMax);
}

TEST_CASE("net_conf: keys match in any case, unknown ones are ignored, the later duplicate wins")
{
    CHECK(parse(R"({"network":"10.42.0.0/16","BACKEND":{"type":"vxlan","vni":7}})")->vni.value == 7);
    CHECK(parse(R"({"networ\u212a":"10.42.0.0/16","\u017fubnetlen":25,"backend":{"type":"alloc"}})")
              ->network.v4->subnet_len == 25);
    CHECK(with(R"("x":{"deep":[1,{"y":null}]},"Networks":5,)"));
    CHECK(with_backend(R"({"Type":"vxlan","Name":"v","nothing":[]})"));
    CHECK(with_backend(R"({"Type":"vxlan","VNI":1,"vni":2,"VNI":3})")->vni.value == 3);
    CHECK(with_backend(R"({"Type":"vxlan","VNI":1,"VNI":3,"vni":2})")->vni.value == 2);
    CHECK(with_backend(R"({"Type":"udp"},"backend":{"Type":"alloc"})")->backend == Backend::alloc);
}

TEST_CASE("net_conf: null changes nothing")
{
    const auto conf = with(R"("SubnetLen":26,"SubnetLen":null,"EnableIPv4":null,"SubnetMin":null,"Twill":null,)");
    REQUIRE(conf);
    CHECK(conf->network.v4->subnet_len == 26);
    CHECK(with_backend(R"({"Type":"vxlan","VNI":null,"MTU":null})")->vni.value == 1);
}

TEST_CASE("net_conf: an error is one line that names file, key, value and what is allowed")
{
    const auto what = [](const Result<NetConf>& conf) { return conf ? std::string("no error") : conf.error().what; };
    CHECK(what(with_backend(R"({"Type":"udp"})")) ==
          "net.json: Backend.Type udp: not supported; want vxlan, host-gw or alloc");
    CHECK(what(with(R"("SubnetLen":31,)")) == "net.json: SubnetLen 31: want a whole number from 0 to 30");
    CHECK(what(with(R"("SubnetLen":17,)")) ==
          "net.json: SubnetLen 17: want a length from 18 (2 more than Network 10.42.0.0/16) to 30");
    CHECK(what(with_backend(R"({"Type":"vxlan","VNI":16777216})")) ==
          "net.json: Backend.VNI 16777216: want a whole number from 0 to 16777215");
    CHECK(what(with_backend(R"({"Type":"vxlan","VNI":"1"})")) ==
          "net.json: Backend.VNI \"1\": want a whole number from 0 to 16777215, without quotes");
    CHECK(what(with(R"("Twill":{"overlya":"veth"},)")) ==
          "net.json: Twill.overlya \"veth\": unknown key; want one of overlay, overlayName, fastPath, antiSpoof, "
          "feature");
    CHECK(what(with(R"("Twill":{"no\nkey":1},)")).starts_with("net.json: Twill.\"no key\" 1: unknown key"));
    CHECK(what(parse(R"({"Netwrok":"10.42.0.0/16"})")) ==
          "net.json: Network absent: want an IPv4 CIDR such as \"10.42.0.0/16\", or EnableIPv4 false");
    CHECK(what(parse(R"({"Network":"10.42.0.0/16"})")).find("udp") != std::string::npos);
}

TEST_CASE("net_conf: a text that is not JSON is told by line and column, and what to mend")
{
    const std::tuple<const char*, const char*, const char*> rows[] = {
        {"{\n  \"Network\": \"10.42.0.0/16\",\n  oops\n}", "line 3, column 3", "unexpected oops, want a key in double"},
        {"{\n  \"Network\": \"10.42.0.0/16\",\n}", "line 3, column 1", "a comma before '}'"},
        {"{\"a\": [1,\n]}", "line 2, column 1", "a comma before ']'"},
        {"{\n  \"a\": \"b\"\n  \"Backend\": {}\n}", "line 3, column 3", "unexpected \"Backend\", want ',' or '}'"},
        {"{\"a\" \"b\"}", "line 1, column 6", "unexpected \"b\", want ':'"},
        {"{\"a\": [1 2]}", "line 1, column 10", "unexpected 2, want ',' or ']'"},
        {"{\n  // pods\n}", "line 2, column 3", "no comments"},
        {"# pods\n{}", "line 1, column 1", "no comments"},
        {"{\n\"a\": 1\n", "line 3, column 1", "the text ends too early"},
        {"{\"a\": \"b", "line 1, column 9", "the text ends within a string"},
        {"{\n \"a\": \"b,\n \"c\": 1}", "line 2, column 10", "the line ends within a string"},
        {"{\"a\": \"\t\"}", "line 1, column 8", "a control character"},
        {"{\"a\": \"\\d\"}", "line 1, column 9", "a backslash"},
        {"{\"a\": \"\\u12\"}", "line 1, column 12", "a backslash"},
        {"{'a': 1}", "line 1, column 2", "single quotes"},
        {"", "line 1, column 1", "there is nothing in it"},
        {" \n\n", "line 3, column 1", "there is nothing in it"},
        {"Network: 10.42.0.0/16", "line 1, column 1", "unexpected Network, want a value"},
        {"{\"a\": True}", "line 1, column 7", "unexpected True, want a value"},
        {"{\"a\": 024}", "line 1, column 7", "a number that begins with 0"},
        {"{}\n{}", "line 2, column 1", "unexpected {, want nothing after"},
        {"{\"a\": \"\xff\"}", "line 1, column 8", "not UTF-8"},
        {"{\"a\": 1e999}", "", ""},
    };
    for (const auto& [text, place, part] : rows) {
        CAPTURE(text);
        const auto conf = parse(text);
        REQUIRE_FALSE(conf.has_value());
        const std::string& what = conf.error().what;
        const std::string start = "net.json: " + std::string(place);
        CHECK_MESSAGE(what.starts_with(*place == '\0' ? start : start + ": not JSON: "), what);
        CHECK_MESSAGE(what.find(part) != std::string::npos, what);
        CHECK(what.find('\n') == std::string::npos);
    }
}

TEST_CASE("net_conf: what flannel refuses, what the kernel refuses and what twill does not speak is refused")
{
    const std::pair<const char*, const char*> rows[] = {
        {"", "line 1"},
        {"[]", "an array"},
        {"null", "null"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}} x)", "line 1"},
        {R"({"Backend":{"Type":"vxlan"}})", "Network absent"},
        {R"({"Network":5,"Backend":{"Type":"vxlan"}})", "Network 5"},
        {R"({"Network":"10.42.0.0","Backend":{"Type":"vxlan"}})", "Network \"10.42.0.0\""},
        {R"({"Network":"fd00::/48","Backend":{"Type":"vxlan"}})", "IPv4 CIDR"},
        {R"({"Network":"10.42.0.0/29","Backend":{"Type":"vxlan"}})", "/28 or wider"},
        {R"({"EnableIPv4":false,"Backend":{"Type":"vxlan"}})", "EnableIPv4 false: want true, or EnableIPv6 true"},
        {R"({"EnableIPv4":"true","Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})", "true or false"},
        {R"({"EnableIPv6":true,"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}})", "IPv6Network absent"},
        {R"({"EnableIPv6":true,"EnableIPv4":false,"IPv6Network":"fd00::/125","Backend":{"Type":"vxlan"}})", "/124"},
        {R"({"Network":"10.42.0.0/16","SubnetLen":"24","Backend":{"Type":"vxlan"}})", "SubnetLen \"24\""},
        {R"({"Network":"10.42.0.0/16","SubnetLen":24.0,"Backend":{"Type":"vxlan"}})", "SubnetLen 24.0"},
        {R"({"Network":"10.42.0.0/16","SubnetLen":-1,"Backend":{"Type":"vxlan"}})", "SubnetLen -1"},
        {R"({"Network":"10.42.0.0/16","SubnetLen":99999999999999999999,"Backend":{"Type":"vxlan"}})", "SubnetLen 9999"},
        {R"({"Network":"10.42.0.0/16","SubnetMin":"","Backend":{"Type":"vxlan"}})", "SubnetMin \"\""},
        {R"({"Network":"10.42.0.0/16","SubnetMin":"10.43.0.0","Backend":{"Type":"vxlan"}})", "SubnetMin 10.43.0.0"},
        {R"({"Network":"10.42.0.0/16","SubnetMax":"10.42.9.1","Backend":{"Type":"vxlan"}})", "SubnetMax 10.42.9.1"},
        {R"({"Network":"10.42.0.0/16","SubnetMin":"10.42.9.0","SubnetMax":"10.42.8.0","Backend":{"Type":"alloc"}})",
         "SubnetMax 10.42.8.0: want 10.42.9.0 (SubnetMin) or later"},
        {R"({"Network":"10.42.0.0/16"})", "Backend absent"},
        {R"({"Network":"10.42.0.0/16","Backend":null})", "Backend absent"},
        {R"({"Network":"10.42.0.0/16","Backend":"vxlan"})", "Backend \"vxlan\": want an object"},
        {R"({"Network":"10.42.0.0/16","Backend":{}})", "Backend.Type absent"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"wireguard"}})", "Backend.Type wireguard: not supported"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"a\nb"}})", "Backend.Type \"a b\""},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":7}})", "Backend.Type 7"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","Port":65536}})", "Backend.Port 65536"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","MTU":575}})", "576"},
        {R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan","MTU":1349}})",
         "from 1350 to 65535 (IPv6 needs 1280, VXLAN 70 around it)"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","GBP":1}})", "Backend.GBP 1"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","VNI":"x","VNI":1}})", "Backend.VNI \"x\""},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"},"Twill":{"Overlay":"veth"}})",
         "Twill.Overlay \"veth\""},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"},"Twill":{"overlay":["veth"]}})", "an array"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"},"Twill":{"feature":"tcx"}})", "Twill.feature"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"},"Twill":{"feature":{"tcx":{}}}})",
         "Twill.feature.tcx an object"},
        {R"({"Network":"10.42.0.0/16","Backend":{"Type":"alloc"},"Twill":"veth"})", "Twill \"veth\": want an object"},
    };
    for (const auto& [text, part] : rows) {
        CAPTURE(text);
        const auto conf = parse(text);
        REQUIRE_FALSE(conf.has_value());
        CHECK(conf.error().code == EINVAL);
        CHECK_MESSAGE(conf.error().what.find(part) != std::string::npos, conf.error().what);
        CHECK(conf.error().what.starts_with("net.json: "));
        CHECK(conf.error().what.find('\n') == std::string::npos);
    }
}

TEST_CASE("net_conf: no truncation and no nesting makes the parser fail otherwise than by an error")
{
    const std::string full = R"({"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48",
        "Backend":{"Type":"vxlan","VNI":1},"Twill":{"overlay":"veth","feature":{"tcx":"off"}}})";
    for (std::size_t size = 0; size < full.size(); ++size) CHECK_FALSE(parse(full.substr(0, size)).has_value());
    CHECK(parse(full));
    CHECK_FALSE(parse(std::string(100000, '[')).has_value());
    CHECK_FALSE(parse("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}").has_value());
    CHECK_FALSE(parse("{\"Network\":\"\xff\xfe\"}").has_value());
}

TEST_CASE("net_conf: where Kubernetes gives the pod CIDRs, what flannel does not look at there is not checked")
{
    const auto given = [](const std::string& inside) {
        return NetConf::parse(R"({"Network":"10.42.0.0/16",)" + inside + R"("Backend":{"Type":"vxlan"}})", "net.json",
                              kTwillKeys, Subnets::given);
    };
    // A range of another network, a length longer than any, the first behind the last.
    for (const auto* ignored :
         {R"("SubnetLen":8,)", R"("SubnetLen":31,)", R"("SubnetLen":4000000000,)", R"("SubnetMin":"192.0.2.1",)",
          R"("SubnetMin":"10.42.9.0","SubnetMax":"10.42.1.0",)", R"("SubnetLen":24,"SubnetMax":"10.42.1.7",)",
          R"("EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetLen":12,"IPv6SubnetMin":"fd01::",)"}) {
        CAPTURE(ignored);
        CHECK(given(ignored));
        CHECK_FALSE(with(ignored));
    }
    CHECK(NetConf::parse(R"({"Network":"10.42.0.0/29","Backend":{"Type":"vxlan"}})", "n", kTwillKeys, Subnets::given));
    // Go's decoder reads them all the same.
    for (const auto* refused :
         {R"("SubnetLen":-1,)", R"("SubnetLen":"24",)", R"("SubnetLen":1.5,)", R"("SubnetMin":"",)",
          R"("SubnetMax":"fd00::",)", R"("SubnetMin":5,)", R"("EnableIPv6":true,"IPv6SubnetLen":64,)"})
        CHECK_MESSAGE(!given(refused), refused);
}
