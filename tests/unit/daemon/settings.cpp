// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/settings.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

using Texts = std::map<std::string, std::string>;

Result<Settings> make(std::vector<std::string> args, const Texts& env = {}, const Texts& net_conf = {})
{
    args.insert(args.begin(), "-store=file:///s");
    auto outcome = parse_flags(args, [&env](const std::string& name) -> std::optional<std::string> {
        const auto found = env.find(name);
        if (found == env.end()) return std::nullopt;
        return found->second;
    });
    REQUIRE(std::holds_alternative<Flags>(outcome));
    return make_settings(std::get<Flags>(outcome), net_conf, "/s/config");
}

std::string refusal(const std::vector<std::string>& args, const Texts& env = {}, const Texts& net_conf = {})
{
    const auto made = make(args, env, net_conf);
    REQUIRE_FALSE(made);
    CHECK(made.error().code == EINVAL);
    CHECK(made.error().what.find('\n') == std::string::npos);
    return made.error().what;
}

} // namespace

TEST_CASE("settings: defaults")
{
    const auto s = make({"-node=a"});
    REQUIRE(s);
    CHECK(s->store == "file:///s");
    CHECK(s->subnet_file == "/run/flannel/subnet.env");
    CHECK(s->renew_margin == std::chrono::minutes{60});
    CHECK(s->bpf_root == "/sys/fs/bpf/twill");
    CHECK(s->socket_path == "/run/twill/twill.sock");
    CHECK(s->cni_state_dir == "/var/lib/cni");
    CHECK(s->overlay == OverlayKind::vxlan);
    CHECK(s->overlay_name == "twill0");
    CHECK(s->fast_path == FastPath::automatic);
    CHECK(s->anti_spoof == AntiSpoof::loose);
    CHECK(s->feature("tcx") == FeatureSetting::automatic);
    CHECK(s->log_format == log::Format::automatic);
    CHECK(s->log_level() == log::Level::info);
    CHECK(s->iptables_forward_rules);
    CHECK(s->origins.at("overlay") == Origin::builtin);
}

TEST_CASE("settings: command line beats environment beats net-conf.json beats default")
{
    const Texts env = {{"TWILL_OVERLAY", "vxlan"}, {"TWILL_FAST_PATH", "on"}};
    const Texts conf = {{"overlay", "veth"},     {"overlayName", "ov0"}, {"fastPath", "off"},
                        {"antiSpoof", "strict"}, {"feature.tcx", "off"}, {"feature.ct_lookup", "on"}};
    const auto s = make({"-fast-path=required", "-feature=tcx=on"}, env, conf);
    REQUIRE(s);
    CHECK(s->fast_path == FastPath::required);
    CHECK(s->origins.at("fast-path") == Origin::command_line);
    CHECK(s->overlay == OverlayKind::vxlan);
    CHECK(s->origins.at("overlay") == Origin::environment);
    CHECK(s->overlay_name == "ov0");
    CHECK(s->anti_spoof == AntiSpoof::strict);
    CHECK(s->origins.at("anti-spoof") == Origin::net_conf);
    CHECK(s->feature("tcx") == FeatureSetting::on);
    CHECK(s->origins.at("feature.tcx") == Origin::command_line);
    CHECK(s->feature("ct_lookup") == FeatureSetting::on);
    CHECK(s->origins.at("feature.ct_lookup") == Origin::net_conf);
    CHECK(s->feature("encap_l2_eth") == FeatureSetting::automatic);
    CHECK(s->origins.at("feature.encap_l2_eth") == Origin::builtin);
}

TEST_CASE("settings: -feature is repeatable and takes lists")
{
    const auto s = make({"-feature", "tcx=off", "-feature=ct_lookup=off,encap_l2_eth=on", "-feature=tcx=auto"});
    REQUIRE(s);
    CHECK(s->feature("tcx") == FeatureSetting::automatic);
    CHECK(s->feature("ct_lookup") == FeatureSetting::off);
    CHECK(s->feature("encap_l2_eth") == FeatureSetting::on);
}

TEST_CASE("settings: a bad value is refused in one line with place, value and what is allowed")
{
    CHECK(refusal({"-overlay=gre"}) == "flag -overlay \"gre\": allowed: vxlan, veth");
    CHECK(refusal({}, {{"TWILL_OVERLAY", "gre"}}) == "environment TWILL_OVERLAY \"gre\": allowed: vxlan, veth");
    CHECK(refusal({}, {}, {{"overlay", "gre"}}) == "/s/config: Twill.overlay \"gre\": allowed: vxlan, veth");
    CHECK(refusal({"-fast-path=yes"}) == "flag -fast-path \"yes\": allowed: auto, on, off, required");
    CHECK(refusal({"-anti-spoof=no"}) == "flag -anti-spoof \"no\": allowed: loose, strict, off");
    CHECK(refusal({"-log-format=xml"}) == "flag -log-format \"xml\": allowed: auto, text, json");
    CHECK(refusal({"-feature=xdp=on"}) ==
          "flag -feature \"xdp\": allowed names: tcx, ct_lookup, encap_l2_eth, check_mtu");
    CHECK(refusal({"-feature=tcx=yes"}) == "flag -feature \"tcx=yes\": allowed: auto, on, off");
    CHECK(refusal({"-feature=tcx"}) ==
          "flag -feature \"tcx\": allowed: NAME=auto|on|off, NAME of tcx, ct_lookup, encap_l2_eth, check_mtu");
    CHECK(refusal({}, {}, {{"feature.xdp", "on"}}) ==
          "/s/config: Twill.feature \"xdp\": allowed names: tcx, ct_lookup, encap_l2_eth, check_mtu");
    CHECK(refusal({"-subnet-lease-renew-margin=0"}) == "flag -subnet-lease-renew-margin \"0\": allowed: 1 to 1439");
    CHECK(refusal({}, {{"FLANNELD_SUBNET_LEASE_RENEW_MARGIN", "1440"}}) ==
          "environment FLANNELD_SUBNET_LEASE_RENEW_MARGIN \"1440\": allowed: 1 to 1439");
    CHECK(refusal({"-healthz-port=65536"}) == "flag -healthz-port \"65536\": allowed: 0 to 65535");
    CHECK(refusal({"-public-ip=fd00::1"}) == "flag -public-ip \"fd00::1\": allowed: an IPv4 address");
    CHECK(refusal({"-public-ipv6=192.0.2.1"}) == "flag -public-ipv6 \"192.0.2.1\": allowed: an IPv6 address");
    CHECK(refusal({"-node=a b"}) == "flag -node \"a b\": allowed: 1 to 253 printable characters without blanks");
}

TEST_CASE("settings: an overlay name that the kernel would refuse is refused")
{
    for (const char* name : {"", "sixteen_letters_", "a/b", "a b", "a:b", ".", "..", "tw%d"}) {
        CAPTURE(name);
        CHECK_FALSE(make({std::string("-overlay-name=") + name}));
    }
    for (const char* name : {"a", "fifteen_letters", "tw.0-x"}) {
        CAPTURE(name);
        CHECK(make({std::string("-overlay-name=") + name}));
    }
}

TEST_CASE("settings: -store takes a directory only")
{
    for (const char* url : {"file://", "file://rel", "etcd://x", "/dir", "file:///", "file:///a/../b", "file:"}) {
        CAPTURE(url);
        CHECK(refusal({std::string("-store=") + url}) ==
              "flag -store \"" + std::string(url) + "\": allowed: file:///dir");
    }
    CHECK(make({"-store=file:///dir/"})->store == "file:///dir");
}

TEST_CASE("settings: paths are absolute, and a socket's fits the kernel's address")
{
    CHECK(refusal({"-bpf-root=bpf"}) == "flag -bpf-root \"bpf\": allowed: an absolute path");
    CHECK(refusal({"-socket=/" + std::string(107, 'x')}).ends_with("allowed: a path of at most 107 characters"));
    CHECK(make({"-socket=/" + std::string(106, 'x')}));
    CHECK(make({"-bpf-root=/sys/fs/bpf/a/"})->bpf_root == "/sys/fs/bpf/a");
}

TEST_CASE("settings: the node's name defaults to the host's")
{
    const auto s = make({});
    REQUIRE(s);
    CHECK_FALSE(s->node.empty());
}

TEST_CASE("settings: -v=4 writes debug lines")
{
    CHECK(make({"-v=3"})->log_level() == log::Level::info);
    CHECK(make({"-v=4"})->log_level() == log::Level::debug);
}

TEST_CASE("settings: what masquerade may use, from flags and from net-conf.json")
{
    const auto s = make({"-node=a"});
    REQUIRE(s);
    CHECK(s->masq_ports.empty());
    CHECK(s->non_masquerade.empty());
    CHECK(s->nat_max == 100000);
    const auto conf = make({"-masq-ports=7"}, {},
                           {{"natMax", "2000"}, {"nonMasqueradeCIDRs", "10.0.0.0/8,fd00::/8"}, {"masqPorts", "9"}});
    REQUIRE(conf);
    CHECK(conf->masq_ports == std::vector<PortRange>{{7, 7}});
    CHECK(conf->nat_max == 2000);
    CHECK(conf->non_masquerade == std::vector<Cidr>{*Cidr::parse("10.0.0.0/8"), *Cidr::parse("fd00::/8")});

    const std::string ports = ": allowed: ports from 1 to 65535 and ranges of them such as 1024-29999,40000";
    for (const std::string bad : {"x", "0", "65536", "5-4", "1-2-3", "1,,2", "1,", "-5", "5-", " 5"}) {
        CAPTURE(bad);
        CHECK(refusal({"-masq-ports=" + bad}) == "flag -masq-ports \"" + bad + "\"" + ports);
    }
    CHECK(refusal({"-nat-max=1023"}) == "flag -nat-max \"1023\": allowed: 1024 to 4000000");
    CHECK(refusal({}, {}, {{"nonMasqueradeCIDRs", "10.0.0.0"}}) ==
          "/s/config: Twill.nonMasqueradeCIDRs \"10.0.0.0\": allowed: networks such as 192.0.2.0/24,2001:db8::/32");
}
