// SPDX-License-Identifier: Apache-2.0
// Every flag, on the command line and as a variable, beside what it changes: nothing is accepted and then forgotten.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "agent/daemon/settings.hpp"

using namespace twill;

namespace {

using Variables = std::map<std::string, std::string>;

Result<Settings> make(const std::vector<std::string>& args, const Variables& env)
{
    auto outcome = parse_flags(args, [&env](const std::string& name) -> std::optional<std::string> {
        const auto found = env.find(name);
        if (found == env.end()) return std::nullopt;
        return found->second;
    });
    REQUIRE(std::holds_alternative<Flags>(outcome));
    CHECK(std::get<Flags>(outcome).warnings.empty());
    return make_settings(std::get<Flags>(outcome));
}

std::string joined(const std::vector<std::string>& items)
{
    std::string out;
    for (const auto& item : items) out += (out.empty() ? "" : " ") + item;
    return out;
}

std::string text(const std::optional<Ip>& ip) { return ip ? ip->to_string() : ""; }
std::string text(bool value) { return value ? "true" : "false"; }

/// A flag, a value that is not its default, and what the value does. Without `effect` it does nothing, by design.
struct Row {
    const char* name;
    const char* value;
    std::string (*effect)(const Settings&);
    const char* expected;
};

const std::vector<Row> kRows = {
    {"iface", "eth1", [](const Settings& s) { return joined(s.iface.names); }, "eth1"},
    {"iface-regex", "^e.*", [](const Settings& s) { return joined(s.iface.regexes); }, "^e.*"},
    {"iface-can-reach", "192.0.2.1", [](const Settings& s) { return s.iface.can_reach; }, "192.0.2.1"},
    {"public-ip", "192.0.2.9", [](const Settings& s) { return text(s.iface.public_ip.v4); }, "192.0.2.9"},
    {"public-ipv6", "2001:db8::9", [](const Settings& s) { return text(s.iface.public_ip.v6); }, "2001:db8::9"},
    {"subnet-file", "/tmp/s.env", [](const Settings& s) { return s.subnet_file; }, "/tmp/s.env"},
    {"net-config-path", "/tmp/n.json", [](const Settings& s) { return s.kube.net_config_path; }, "/tmp/n.json"},
    {"ip-masq", "true", [](const Settings& s) { return text(s.ip_masq); }, "true"},
    {"ip-masq-fully-random-disable", "true", [](const Settings& s) { return text(s.ip_masq_fully_random_disable); },
     "true"},
    {"subnet-lease-renew-margin", "1439", [](const Settings& s) { return std::to_string(s.renew_margin.count()); },
     "1439"},
    {"etcd-endpoints", "https://a:1, https://b:2", [](const Settings& s) { return joined(s.etcd.endpoints); },
     "https://a:1 https://b:2"},
    {"etcd-prefix", "/x", [](const Settings& s) { return s.etcd.prefix; }, "/x"},
    {"etcd-keyfile", "/k", [](const Settings& s) { return s.etcd.key_file; }, "/k"},
    {"etcd-certfile", "/c", [](const Settings& s) { return s.etcd.cert_file; }, "/c"},
    {"etcd-cafile", "/ca", [](const Settings& s) { return s.etcd.ca_file; }, "/ca"},
    {"etcd-username", "u", [](const Settings& s) { return s.etcd.username; }, "u"},
    {"etcd-password", "p", [](const Settings& s) { return s.etcd.password; }, "p"},
    {"kube-subnet-mgr", "true", [](const Settings& s) { return text(s.store_kind == StoreKind::kubernetes); }, "true"},
    {"kube-api-url", "https://k", [](const Settings& s) { return s.kube.api_url; }, "https://k"},
    {"kube-annotation-prefix", "a.b/c", [](const Settings& s) { return s.kube.annotation_prefix; }, "a.b/c"},
    {"kubeconfig-file", "/kc", [](const Settings& s) { return s.kube.kubeconfig; }, "/kc"},
    {"set-node-network-unavailable", "false", [](const Settings& s) { return text(s.kube.set_network_unavailable); },
     "false"},
    {"healthz-ip", "127.0.0.1", [](const Settings& s) { return s.healthz_ip; }, "127.0.0.1"},
    {"healthz-port", "8081", [](const Settings& s) { return std::to_string(s.healthz_port); }, "8081"},
    {"iptables-resync", "9", nullptr, ""},
    {"iptables-forward-rules", "false", [](const Settings& s) { return text(s.iptables_forward_rules); }, "false"},
    {"ip-blackhole-route", "true", [](const Settings& s) { return text(s.ip_blackhole_route); }, "true"},
    {"v", "4", [](const Settings& s) { return text(s.log_level() == log::Level::debug); }, "true"},
    {"vmodule", "a=1", nullptr, ""},
    {"log_backtrace_at", "a.go:1", nullptr, ""},

    {"store", "file:///dir", [](const Settings& s) { return s.store; }, "file:///dir"},
    {"node", "n1", [](const Settings& s) { return s.node; }, "n1"},
    {"bpf-root", "/b", [](const Settings& s) { return s.bpf_root; }, "/b"},
    {"overlay", "veth", [](const Settings& s) { return std::string(to_string(s.overlay)); }, "veth"},
    {"overlay-name", "ov0", [](const Settings& s) { return s.overlay_name; }, "ov0"},
    {"fast-path", "required", [](const Settings& s) { return std::string(to_string(s.fast_path)); }, "required"},
    {"anti-spoof", "strict", [](const Settings& s) { return std::string(to_string(s.anti_spoof)); }, "strict"},
    {"masq-ports", "1024-29999,40000",
     [](const Settings& s) {
         std::string out;
         for (const auto& range : s.masq_ports)
             out += std::to_string(range.first) + "-" + std::to_string(range.last) + " ";
         return out;
     },
     "1024-29999 40000-40000 "},
    {"detach-timeout", "7", [](const Settings& s) { return std::to_string(s.detach_timeout.count()); }, "7"},
    {"nat-max", "5000", [](const Settings& s) { return std::to_string(s.nat_max); }, "5000"},
    {"non-masquerade-cidrs", "10.0.0.0/8, 2001:db8::/32",
     [](const Settings& s) {
         std::string out;
         for (const auto& cidr : s.non_masquerade) out += cidr.to_string() + " ";
         return out;
     },
     "10.0.0.0/8 2001:db8::/32 "},
    {"feature", "tcx=off", [](const Settings& s) { return std::string(to_string(s.feature("tcx"))); }, "off"},
    {"socket", "/t.sock", [](const Settings& s) { return s.socket_path; }, "/t.sock"},
    {"cni-state-dir", "/cni", [](const Settings& s) { return s.cni_state_dir; }, "/cni"},
    {"log-format", "json", [](const Settings& s) { return text(s.log_format == log::Format::json); }, "true"},
    {"detach", "true", [](const Settings& s) { return text(s.detach); }, "true"},
    {"preflight", "true", [](const Settings& s) { return text(s.preflight); }, "true"},
};

/// Not settings: they end the program before there are any; tests/unit/daemon/flags.cpp has them.
const std::set<std::string_view> kCommands = {"version"};

} // namespace

TEST_CASE("flags: each has its effect, on the command line and as a variable")
{
    const auto builtin = make({}, {});
    REQUIRE(builtin);
    for (const Row& row : kRows) {
        CAPTURE(row.name);
        const FlagSpec* flag = find_flag(row.name);
        REQUIRE(flag != nullptr);
        auto given = make({"-" + std::string(row.name) + "=" + row.value}, {});
        REQUIRE(given);
        if (row.effect == nullptr) {
            given->origins = builtin->origins;
            CHECK(*given == *builtin);
        } else {
            CHECK(row.effect(*given) == row.expected);
            CHECK(row.effect(*builtin) != row.expected);
        }
        const auto by_variable = make({}, {{env_name(*flag), row.value}});
        REQUIRE(by_variable);
        if (row.name == std::string_view("detach") || row.name == std::string_view("preflight"))
            CHECK_FALSE((by_variable->detach || by_variable->preflight)); // they ask for something else than running
        else if (row.effect != nullptr)
            CHECK(row.effect(*by_variable) == row.expected);
    }
}

TEST_CASE("flags: the table above names every flag")
{
    for (const FlagSpec& flag : flag_table()) {
        CAPTURE(flag.name);
        const auto rows = std::ranges::count_if(kRows, [&](const Row& row) { return row.name == flag.name; });
        CHECK(rows == (kCommands.contains(flag.name) ? 0 : 1));
    }
}

TEST_CASE("flags: variables that no flag stands for reach the Kubernetes store, or do nothing")
{
    const auto s = make({"-kube-subnet-mgr"}, {{"POD_NAME", "p"},
                                               {"POD_NAMESPACE", "ns"},
                                               {"KUBERNETES_SERVICE_HOST", "10.0.0.1"},
                                               {"KUBERNETES_SERVICE_PORT", "443"},
                                               {"EVENT_QUEUE_DEPTH", "5000"},
                                               {"CONT_WHEN_CACHE_NOT_READY", "true"}});
    REQUIRE(s);
    CHECK(s->kube.pod_name == "p");
    CHECK(s->kube.pod_namespace == "ns");
    CHECK(s->kube.service_host == "10.0.0.1");
    CHECK(s->kube.service_port == "443");
    CHECK(s->node.empty()); // the pod tells

    const auto named = make({"-kube-subnet-mgr"}, {{"POD_NAME", "p"}, {"NODE_NAME", "n"}});
    REQUIRE(named);
    CHECK(named->node == "n");
}

TEST_CASE("flags: the store is a directory, or Kubernetes, or etcd as with flannel")
{
    const auto kind = [](const std::vector<std::string>& args) {
        const auto s = make(args, {});
        REQUIRE(s);
        return s->store_kind;
    };
    CHECK(kind({}) == StoreKind::etcd);
    CHECK(kind({"-kube-subnet-mgr=false"}) == StoreKind::etcd);
    CHECK(kind({"-kube-subnet-mgr"}) == StoreKind::kubernetes);
    CHECK(kind({"-store=file:///d"}) == StoreKind::file);
    CHECK(kind({"-store=file:///d", "-etcd-endpoints=http://x:1"}) == StoreKind::file);

    const auto endpoints = make({}, {});
    REQUIRE(endpoints);
    CHECK(joined(endpoints->etcd.endpoints) == "http://127.0.0.1:4001 http://127.0.0.1:2379");
    const auto both = make({"-store=file:///d", "-kube-subnet-mgr"}, {});
    REQUIRE_FALSE(both);
    CHECK(both.error().what ==
          "flag -store \"file:///d\": allowed: nothing beside -kube-subnet-mgr, a node has one store");
    const auto none = make({"-etcd-endpoints= ,"}, {});
    REQUIRE_FALSE(none);
    CHECK(none.error().what == "flag -etcd-endpoints \" ,\": allowed: URLs, comma separated");
}

TEST_CASE("flags: values that flannel takes are taken")
{
    const auto port = [](const char* value) { return make({std::string("-healthz-port=") + value}, {}); };
    CHECK(port("-1")->healthz_port == 0); // off
    CHECK_FALSE(port("65536"));
    CHECK(make({"-v=1000"}, {})->log_level() == log::Level::debug);
    CHECK(make({"-v=-1"}, {})->log_level() == log::Level::info);
    CHECK(make({"-healthz-ip="}, {}));
    CHECK(make({"-healthz-ip=localhost"}, {}));
    CHECK(make({"-iptables-resync=0"}, {}));
    // A selector that means nothing is only one that does not serve.
    CHECK(make({"-iface-regex=["}, {}));
    CHECK(make({"-iface-can-reach=host"}, {}));
    const auto relative = make({"-subnet-file=a/../subnet.env"}, {});
    REQUIRE(relative);
    CHECK(relative->subnet_file.front() == '/');
    CHECK(relative->subnet_file.ends_with("/subnet.env"));
    CHECK(relative->subnet_file.find("..") == std::string::npos);
    for (const char* file : {"", "/", "/dir/"}) CHECK_FALSE(make({std::string("-subnet-file=") + file}, {}));
}
