// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/flags.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

using namespace twill;

namespace {

using Variables = std::map<std::string, std::string>;

std::variant<Flags, FlagExit> parse(const std::vector<std::string>& args, const Variables& env = {})
{
    return parse_flags(args, [&env](const std::string& name) -> std::optional<std::string> {
        const auto found = env.find(name);
        if (found == env.end()) return std::nullopt;
        return found->second;
    });
}

Flags parsed(const std::vector<std::string>& args, const Variables& env = {})
{
    auto outcome = parse(args, env);
    REQUIRE(std::holds_alternative<Flags>(outcome));
    return std::get<Flags>(outcome);
}

FlagExit refused(const std::vector<std::string>& args, const Variables& env = {})
{
    auto outcome = parse(args, env);
    REQUIRE(std::holds_alternative<FlagExit>(outcome));
    return std::get<FlagExit>(outcome);
}

/// A file of the repository, without backslashes.
std::string document(const char* path)
{
    std::ifstream file(std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path() / path);
    REQUIRE(file);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    std::erase(text, '\\');
    return text;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

} // namespace

TEST_CASE("flags: every spelling of Go's package flag sets a value")
{
    CHECK(parsed({"-subnet-file", "/a"}).text("subnet-file") == "/a");
    CHECK(parsed({"--subnet-file", "/a"}).text("subnet-file") == "/a");
    CHECK(parsed({"-subnet-file=/a"}).text("subnet-file") == "/a");
    CHECK(parsed({"--subnet-file=/a=b"}).text("subnet-file") == "/a=b");
    CHECK(parsed({"-subnet-file="}).text("subnet-file").empty());
    CHECK(parsed({"-public-ip", "-ip-masq"}).text("public-ip") == "-ip-masq"); // the next word, whatever it is
    CHECK(parsed({"-v=1", "-v=2"}).integer("v") == 2);
    CHECK(parsed({"-iface=eth0", "-iface", "eth1"}).values.at("iface").values ==
          std::vector<std::string>{"eth0", "eth1"});
}

TEST_CASE("flags: booleans take no separate value, and Go's spellings of true and false")
{
    CHECK(parsed({"-ip-masq"}).boolean("ip-masq"));
    for (const char* text : {"1", "t", "T", "true", "TRUE", "True"})
        CHECK(parsed({std::string("-ip-masq=") + text}).boolean("ip-masq"));
    for (const char* text : {"0", "f", "F", "false", "FALSE", "False"})
        CHECK_FALSE(parsed({std::string("-iptables-forward-rules=") + text}).boolean("iptables-forward-rules"));

    const Flags flags = parsed({"-ip-masq", "false"}); // "false" is the first word that is no flag
    CHECK(flags.boolean("ip-masq"));
    CHECK(flags.arguments == std::vector<std::string>{"false"});
    CHECK(flags.warnings.size() == 1);
}

TEST_CASE("flags: integers are read as Go reads them")
{
    const std::vector<std::pair<std::string, std::int64_t>> good = {
        {"0", 0},    {"60", 60},      {"-5", -5},    {"+5", 5}, {"0x1f", 31}, {"0b11", 3},   {"0o17", 15},
        {"017", 15}, {"1_000", 1000}, {"0x_1f", 31}, {"0", 0},  {"00", 0},    {"-0x10", -16}};
    for (const auto& [text, value] : good) {
        CAPTURE(text);
        CHECK(parsed({"-healthz-port=" + text}).integer("healthz-port") == value);
    }
    for (const char* text : {"", "x", "1x", "--1", "+-1", "_1", "1_", "1__0", "0x", "08", "1.5", " 1"}) {
        CAPTURE(text);
        CHECK(first_line(refused({std::string("-healthz-port=") + text}).message) ==
              "invalid value \"" + std::string(text) + "\" for flag -healthz-port: parse error");
    }
    CHECK(first_line(refused({"-v=99999999999999999999"}).message) ==
          "invalid value \"99999999999999999999\" for flag -v: value out of range");
}

TEST_CASE("flags: errors have Go's wording, the usage behind them, and status 2")
{
    const std::vector<std::pair<std::vector<std::string>, std::string>> table = {
        {{"-nonsense"}, "flag provided but not defined: -nonsense"},
        {{"--nonsense=1"}, "flag provided but not defined: -nonsense"},
        {{"-subnet-file"}, "flag needs an argument: -subnet-file"},
        {{"---x"}, "bad flag syntax: ---x"},
        {{"-=x"}, "bad flag syntax: -=x"},
        {{"--=x"}, "bad flag syntax: --=x"},
        {{"-ip-masq=maybe"}, "invalid boolean value \"maybe\" for -ip-masq: parse error"},
    };
    for (const auto& [args, message] : table) {
        const FlagExit exit = refused(args);
        CHECK(exit.status == 2);
        CHECK(first_line(exit.message) == message);
        CHECK(exit.message.find("Usage: twilld") != std::string::npos);
    }
}

TEST_CASE("flags: two dashes, one dash or a plain word end the flags")
{
    CHECK(parsed({"-ip-masq", "--", "-v=3"}).arguments == std::vector<std::string>{"-v=3"});
    CHECK(parsed({"-", "-v=3"}).arguments == std::vector<std::string>{"-", "-v=3"});
    CHECK(parsed({"word", "-v=3"}).integer("v") == 0);
}

TEST_CASE("flags: -help and -version say so and exit with 0")
{
    for (const char* flag : {"-help", "--help", "-h"}) {
        CHECK(refused({flag}).status == 0);
        CHECK(refused({flag}).message == flag_usage());
    }
    CHECK(refused({"-version"}).status == 0);
    CHECK(refused({"-version"}).message == "twilld " + std::string(version()) + "\n");
}

TEST_CASE("flags: the environment fills in what the command line leaves out")
{
    const Variables env = {{"FLANNELD_SUBNET_FILE", "/env"},    {"FLANNELD_IP_MASQ", "T"},
                           {"FLANNELD_IFACE", "eth7"},          {"FLANNELD_V", "4"},
                           {"TWILL_BPF_ROOT", "/sys/fs/bpf/x"}, {"FLANNELD_PUBLIC_IP", ""}};
    const Flags flags = parsed({"-subnet-file=/cli"}, env);
    CHECK(flags.text("subnet-file") == "/cli");
    CHECK(flags.values.at("subnet-file").origin == Origin::command_line);
    CHECK(flags.boolean("ip-masq"));
    CHECK(flags.values.at("iface").values == std::vector<std::string>{"eth7"});
    CHECK(flags.integer("v") == 4);
    CHECK(flags.text("bpf-root") == "/sys/fs/bpf/x");
    CHECK(flags.values.at("bpf-root").origin == Origin::environment);
    CHECK(flags.values.at("public-ip").origin == Origin::builtin); // an empty variable counts as absent
}

TEST_CASE("flags: a bad FLANNELD variable is a warning and the default stays")
{
    const Flags flags = parsed({}, {{"FLANNELD_IP_MASQ", "maybe"}, {"FLANNELD_HEALTHZ_PORT", "x"}});
    CHECK_FALSE(flags.boolean("ip-masq"));
    CHECK(flags.integer("healthz-port") == 0);
    REQUIRE(flags.warnings.size() == 2);
    CHECK(flags.warnings[0] == "environment FLANNELD_IP_MASQ \"maybe\": allowed: true, false; ignored");
}

TEST_CASE("flags: an event queue that is no number is a warning, and an empty variable counts as absent")
{
    const Flags flags = parsed({}, {{"EVENT_QUEUE_DEPTH", "many"}, {"POD_NAME", ""}, {"POD_NAMESPACE", "ns"}});
    CHECK(flags.warnings == std::vector<std::string>{"environment EVENT_QUEUE_DEPTH \"many\": allowed: a whole number; "
                                                     "ignored, twilld has no such queue"});
    CHECK(flags.variable("POD_NAME").empty());
    CHECK(flags.variable("POD_NAMESPACE") == "ns");
}

TEST_CASE("flags: what asks for something else than running is not taken from the environment")
{
    CHECK_FALSE(parsed({}, {{"TWILL_DETACH", "true"}, {"FLANNELD_VERSION", "true"}}).boolean("detach"));
}

TEST_CASE("flags: the node's name comes from -node, TWILL_NODE or NODE_NAME, in this order")
{
    const Variables both = {{"TWILL_NODE", "b"}, {"NODE_NAME", "c"}};
    CHECK(parsed({"-node=a"}, both).text("node") == "a");
    CHECK(parsed({}, both).text("node") == "b");
    CHECK(parsed({}, {{"NODE_NAME", "c"}}).text("node") == "c");
    CHECK(parsed({}).text("node").empty());
}

TEST_CASE("flags: every flag of flannel is known, with flannel's default")
{
    const std::map<std::string, std::string> flannel = {
        {"etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379"},
        {"etcd-prefix", "/coreos.com/network"},
        {"etcd-keyfile", ""},
        {"etcd-certfile", ""},
        {"etcd-cafile", ""},
        {"etcd-username", ""},
        {"etcd-password", ""},
        {"iface", ""},
        {"iface-regex", ""},
        {"iface-can-reach", ""},
        {"subnet-file", "/run/flannel/subnet.env"},
        {"public-ip", ""},
        {"public-ipv6", ""},
        {"subnet-lease-renew-margin", "60"},
        {"ip-masq", "false"},
        {"ip-masq-fully-random-disable", "false"},
        {"kube-subnet-mgr", "false"},
        {"kube-api-url", ""},
        {"kube-annotation-prefix", "flannel.alpha.coreos.com"},
        {"kubeconfig-file", ""},
        {"version", "false"},
        {"healthz-ip", "0.0.0.0"},
        {"healthz-port", "0"},
        {"iptables-resync", "5"},
        {"iptables-forward-rules", "true"},
        {"ip-blackhole-route", "false"},
        {"net-config-path", "/etc/kube-flannel/net-conf.json"},
        {"set-node-network-unavailable", "true"},
        {"v", "0"},
        {"vmodule", ""},
        {"log_backtrace_at", ""},
    };
    const Flags flags = parsed({});
    std::size_t known = 0;
    for (const FlagSpec& flag : flag_table()) {
        if (flag.owner != FlagOwner::flannel) continue;
        ++known;
        const std::string name{flag.name};
        CAPTURE(name);
        REQUIRE(flannel.contains(name));
        CHECK(flags.text(name) == flannel.at(name));
        CHECK(env_name(flag).starts_with("FLANNELD_"));
    }
    CHECK(known == flannel.size());
}

TEST_CASE("flags: the table has no duplicates and every flag has a help text")
{
    std::set<std::string_view> names;
    for (const FlagSpec& flag : flag_table()) {
        CHECK(names.insert(flag.name).second);
        CHECK_FALSE(flag.help.empty());
        CHECK(flag_usage().find("  -" + std::string(flag.name)) != std::string::npos);
    }
}

TEST_CASE("flags: twilld(8) names every variable that no flag stands for")
{
    const std::string text = document("docs/man/twilld.8.scd");
    for (const auto name : plain_variables()) {
        CAPTURE(name);
        CHECK(text.find("*" + std::string(name) + "*") != std::string::npos);
    }
}

TEST_CASE("flags: docs/configuration.md has every flag, and says what each default is")
{
    const std::string text = document("docs/configuration.md");
    for (const FlagSpec& flag : flag_table()) {
        CAPTURE(flag.name);
        const std::string name = "`-" + std::string(flag.name) + "`";
        const auto row = std::min(text.find("\n| " + name), text.find(", " + name)) + 1;
        REQUIRE(row != 0);
        if (flag.default_value.empty() || flag.kind == FlagKind::list) continue;
        const std::string line = text.substr(row, text.find('\n', row) - row);
        CHECK((flag.default_value == "false" || line.find(flag.default_value) != std::string::npos));
    }
}

TEST_CASE("flags: twilld(8) describes every flag and every default")
{
    const std::string text = document("docs/man/twilld.8.scd");
    for (const FlagSpec& flag : flag_table()) {
        const std::string name{flag.name};
        CAPTURE(name);
        const auto begin = text.find("*-" + name + "*");
        REQUIRE(begin != std::string::npos);
        const std::string paragraph = text.substr(begin, text.find("\n\n", begin) - begin);
        if (!flag.value_name.empty())
            CHECK(paragraph.find("_" + std::string(flag.value_name) + "_") != std::string::npos);
        const bool is_plain = flag.kind == FlagKind::boolean && flag.default_value == "false";
        if (!flag.default_value.empty() && !is_plain)
            CHECK(paragraph.find("Default: " + std::string(flag.default_value) + ".") != std::string::npos);
    }
}
