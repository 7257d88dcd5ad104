// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "agent/cli/suggest.hpp"
#include "tests/unit/cli/fake_machine.hpp"

using namespace twill;
using namespace twill::cli;

namespace {

/// A healthy node's answer.
Json status_of_node()
{
    return Json::parse(R"({"version":"0.1.0","kernel":"6.1.0","node":"a","pid":7,"started":"2026-01-01T00:00:00Z",
        "ready":true,"store":{"url":"file:///s","healthy":true,"error":""},
        "lease":{"key":"10.42.1.0-24","pods":["10.42.1.0/24"],"public_ip":["192.0.2.10"],"backend":"vxlan",
                 "vtep_mac":["12:00:00:00:00:01"],"expires":""},
        "network":["10.42.0.0/16"],"wires":[{"name":"eth0","ifindex":2,"mtu":1500}],
        "overlay":{"name":"twill0","ifindex":5,"kind":"vxlan","mac":"12:00:00:00:00:01"},
        "fast_path":{"mode":"auto","on":true,"why":""},
        "masquerade":{"on":true,"rules":"nft","capacity":100000,
                      "interfaces":[{"name":"eth0","ifindex":2,"ipv4":"192.0.2.10","ipv6":""}]},
        "features":[{"name":"tcx","on":false,"setting":"auto","effect":"clsact is used"}],
        "attachments":[{"program":"tw_from_wire","ifindex":2,"interface":"eth0","kind":"clsact"}],
        "peers":{"programmed":2,"pending":0},"pending":[],"bad_leases":[],"endpoints":3,
        "addr_conflict":1,"conflicts":[{"ip":"10.42.1.2","owner_ifindex":2,"claimed_by_ifindex":9,"count":4}],
        "warnings":["ip_forward is 0"]})");
}

Api answering(int status, std::string body)
{
    return [status, body](const std::string&, const std::string&) -> Result<HttpReply> {
        return HttpReply{status, body};
    };
}

} // namespace

TEST_CASE("status: a healthy node is shown whole and exits with 0")
{
    Ctl ctl;
    ctl.api = answering(200, status_of_node().dump());
    CHECK(ctl.run({"status"}) == 0);
    for (const char* line :
         {"node        a\n", "ready       yes\n", "store       file:///s  ok\n",
          "lease       10.42.1.0/24  public IP 192.0.2.10  backend vxlan  VTEP MAC 12:00:00:00:00:01  expires never\n",
          "wire        eth0 (2)  mtu 1500\n", "overlay     twill0 (5)  vxlan  12:00:00:00:00:01\n",
          "fast path   on  (auto)\n", "masquerade  on  (rules of nft)  room for 100000 flows\n",
          "leads out   eth0 (2)  192.0.2.10\n", "feature     tcx  off  (auto)  clsact is used\n",
          "program     tw_from_wire  eth0 (2)  clsact\n", "peers       2 programmed, 0 pending\n", "endpoints   3\n",
          "conflict    10.42.1.2 of eth0 (2) claimed by (9)  4 times\n", "warning     ip_forward is 0\n"}) {
        CAPTURE(line);
        CHECK(ctl.out.find(line) != std::string::npos);
    }
    CHECK(ctl.run({"status", "-o", "json"}) == 0);
    CHECK(ctl.json() == status_of_node());
}

TEST_CASE("status: not ready is 1; a failing store, pending peers, a bad lease, programs that cannot be had are 5")
{
    const auto exit_of = [](const std::function<void(Json&)>& change) {
        Ctl ctl;
        Json status = status_of_node();
        change(status);
        ctl.api = answering(200, status.dump());
        return ctl.run({"status"});
    };
    CHECK(exit_of([](Json& s) { s["ready"] = false; }) == 1);
    CHECK(exit_of([](Json& s) { s["store"]["healthy"] = false; }) == 5);
    CHECK(exit_of([](Json& s) { s["peers"]["pending"] = 1; }) == 5);
    CHECK(exit_of([](Json& s) { s["bad_leases"] = Json::parse(R"([{"key":"x","why":"y"}])"); }) == 5);
    const auto without_programs = [&](const char* mode) {
        return exit_of([&](Json& s) {
            s["data_plane"] = {{"kind", "kernel overlay"}, {"why", "y"}};
            s["fast_path"]["mode"] = mode;
        });
    };
    CHECK(without_programs("auto") == 5);
    CHECK(without_programs("off") == 0);
    CHECK(exit_of([](Json& s) { s = Json::object(); }) == 1); // whatever an agent of another version leaves out
    CHECK(exit_of([](Json& s) { s = Json::parse(R"({"ready":7,"store":[],"peers":"x","wires":3})"); }) == 1);
}

TEST_CASE("status: without an agent it exits with 3 and says how to look anyway")
{
    Ctl ctl;
    CHECK(ctl.run({"status"}) == 3);
    CHECK(ctl.out.empty());
    CHECK(ctl.err.find("Traffic goes on") != std::string::npos);
    CHECK(ctl.err.find("twillctl drops") != std::string::npos);
    ctl.api = answering(500, "");
    CHECK(ctl.run({"status"}) == 1);
    ctl.api = answering(200, "no json");
    CHECK(ctl.run({"status"}) == 1);
}

TEST_CASE("detach: asks at a terminal, needs --yes elsewhere")
{
    Ctl ctl;
    int posts = 0;
    ctl.api = [&](const std::string& method, const std::string& path) -> Result<HttpReply> {
        CHECK(method + " " + path == "POST /v1/detach");
        ++posts;
        return HttpReply{200, R"({"removed":["device twill0"]})"};
    };
    CHECK(ctl.run({"detach"}) == 2);
    CHECK(ctl.err.find("--yes") != std::string::npos);
    ctl.answer = false;
    CHECK(ctl.run({"detach"}) == 1);
    CHECK(posts == 0);
    ctl.answer = true;
    CHECK(ctl.run({"detach"}) == 0);
    CHECK(posts == 1);
    ctl.asked.clear();
    CHECK(ctl.run({"detach", "--yes"}) == 0);
    CHECK(ctl.asked.empty());
    CHECK(ctl.out == "removed device twill0\ndetached\n");
}

TEST_CASE("detach: without an agent twilld does it, with the same paths")
{
    Ctl ctl;
    CHECK(ctl.run({"detach", "-y", "--bpf-root", "/b", "--socket=/s", "--overlay-name=ov0"}) == 0);
    CHECK(ctl.executed ==
          std::vector<std::string>{"twilld", "-detach", "-bpf-root=/b", "-overlay-name=ov0", "-socket=/s"});
}

TEST_CASE("detach: an agent that refuses or hangs is not gone behind its back")
{
    Ctl ctl;
    ctl.api = answering(409, R"({"detail":"busy"})");
    CHECK(ctl.run({"detach", "--yes"}) == 1);
    CHECK(ctl.err == "twillctl: detach: busy\n");
    for (const int code : {EACCES, ETIMEDOUT, EIO}) {
        ctl.api = [code](const std::string&, const std::string&) -> Result<HttpReply> { return Error{code, "no"}; };
        CHECK(ctl.run({"detach", "--yes"}) == 1);
    }
    CHECK(ctl.executed.empty());
}

TEST_CASE("detach: --dry-run lists pins and device and changes nothing")
{
    Ctl ctl;
    ctl.dirs = {{"/b/v1/links", {"tw_from_wire_2"}}, {"/b/v1/maps", {"tw_nodes"}}, {"/sys/class/net/twill0", {"mtu"}}};
    CHECK(ctl.run({"detach", "--dry-run", "--bpf-root=/b"}) == 0);
    CHECK(ctl.out == "pin  /b/v1/links/tw_from_wire_2\npin  /b/v1/maps/tw_nodes\ndevice  twill0\n");
    CHECK(ctl.executed.empty());
    CHECK(Ctl{}.run({"detach", "--dry-run"}) == 0);
}

TEST_CASE("version: both programs, and no failure without an agent")
{
    Ctl ctl;
    CHECK(ctl.run({"version"}) == 0);
    CHECK(ctl.out.find("(not running)") != std::string::npos);
    ctl.api = answering(200, status_of_node().dump());
    CHECK(ctl.run({"version", "-o", "json"}) == 0);
    CHECK(ctl.json()["twilld"] == "0.1.0");
}

TEST_CASE("migrate status: who runs which node, the checks, and 5 when one of them stops a take-over")
{
    Ctl ctl;
    const std::string body =
        R"({"nodes":[{"node":"a","runs":"twill","own":true,"pods":["10.42.1.0/24"],"public_ip":["192.0.2.1"],
        "backend":"vxlan"},{"node":"","runs":"flannel","own":false,"pods":["10.42.2.0/24"],"public_ip":["192.0.2.2"],
        "backend":"vxlan"}],"checks":[{"name":"mtu","verdict":"ok","text":"1450"}]})";
    ctl.api = answering(200, body);
    CHECK(ctl.run({"migrate", "status"}) == 0);
    for (const char* text :
         {"a (this one)  twill", "flannel  10.42.2.0/24", "1 of 2 nodes run twill", "mtu    ok", "nothing stops"}) {
        CAPTURE(text);
        CAPTURE(ctl.out);
        CHECK(ctl.out.find(text) != std::string::npos);
    }
    CHECK(ctl.run({"migrate", "status", "-o", "json"}) == 0);
    CHECK(ctl.json() == Json::parse(body));
    ctl.api = answering(200, R"({"nodes":[],"checks":[{"name":"mtu","verdict":"stop","text":"too much"}]})");
    CHECK(ctl.run({"migrate", "status"}) == 5);
    CHECK(ctl.out.find("too much") != std::string::npos);
    ctl.api = answering(500, "");
    CHECK(ctl.run({"migrate", "status"}) == 1);
    CHECK(ctl.run({"migrate", "start"}) == 2);
    CHECK(ctl.run({"migrate"}) == 2);
}

TEST_CASE("migrate status: without an agent twilld looks at this node")
{
    Ctl ctl;
    CHECK(ctl.run({"migrate", "status"}) == 1);
    CHECK(ctl.err.find("twilld is not there") != std::string::npos);
    ctl.printed = R"({"nodes":null,"checks":[{"name":"mtu","verdict":"ok","text":"1450"}]})";
    CHECK(ctl.run({"migrate", "status", "--bpf-root", "/b"}) == 0);
    CHECK(ctl.executed == std::vector<std::string>{"twilld", "-preflight", "-bpf-root=/b"});
    CHECK(ctl.out.find("NODE") == std::string::npos);
    CHECK(ctl.out.find("nothing stops") != std::string::npos);
}

TEST_CASE("completion: the script names every subcommand and its options")
{
    Ctl ctl;
    CHECK(ctl.run({"completion", "bash"}) == 0);
    for (const auto& sub : subcommands()) CHECK(ctl.out.find(std::string(sub.name) + ") words+=") != std::string::npos);
    CHECK(ctl.out.find("--dry-run") != std::string::npos);
    CHECK(ctl.run({"completion", "tcsh"}) == 2);
}

TEST_CASE("twillctl: usage errors exit with 2 and suggest what was meant")
{
    Ctl ctl;
    CHECK(ctl.run({"staus"}) == 2);
    CHECK(ctl.err.find("did you mean \"status\"?") != std::string::npos);
    CHECK(ctl.run({"-o", "json", "pers"}) == 2);
    CHECK(ctl.err.find("did you mean \"peers\"?") != std::string::npos);
    CHECK(ctl.run({"xyzzyplugh"}) == 2);
    CHECK(ctl.err.find("did you mean") == std::string::npos);
    CHECK(ctl.run({"stat"}) == 2); // no abbreviations
    CHECK(ctl.run({}) == 2);
    CHECK(ctl.run({"status", "--nonsense"}) == 2);
    CHECK(ctl.run({"status", "peers"}) == 2);
    CHECK(ctl.run({"peers", "-o", "yaml"}) == 2);
    CHECK(ctl.run({"help", "staus"}) == 2);
    CHECK(ctl.out.empty());
}

TEST_CASE("twillctl: help shows examples first, and help CMD is CMD --help")
{
    Ctl ctl;
    CHECK(ctl.run({"--help"}) == 0);
    CHECK(ctl.out.find("Examples:") < ctl.out.find("Usage:"));
    for (const auto& sub : subcommands()) {
        const std::string name{sub.name};
        CAPTURE(name);
        CHECK(ctl.out.size() > 0);
        CHECK(ctl.run({name, "-h"}) == 0);
        const std::string help = ctl.out;
        CHECK(help.find("Examples:") < help.find("Usage:"));
        CHECK(ctl.run({"help", name}) == 0);
        CHECK(ctl.out == help);
    }
}

TEST_CASE("twillctl: global options may stand on either side of the subcommand")
{
    Ctl ctl;
    ctl.run({"--bpf-root=/b", "--socket", "/x", "maps"});
    CHECK(ctl.root == "/b");
    CHECK(ctl.socket == "/x");
    ctl.run({"maps", "--bpf-root", "/c", "--socket=/y"});
    CHECK(ctl.root == "/c");
    CHECK(ctl.socket == "/y");
}

TEST_CASE("suggest: swaps, slips and omissions are near, other words are not")
{
    const std::vector<std::string_view> names = {"status", "peers", "drops", "maps"};
    CHECK(nearest("sattus", names) == "status");
    CHECK(nearest("peer", names) == "peers");
    CHECK(nearest("dorps", names) == "drops");
    CHECK(nearest("map", names) == "maps");
    CHECK(nearest("monitor", names).empty());
    CHECK(nearest("", names).empty());
}

TEST_CASE("twillctl(1) describes every subcommand, global option and exit status")
{
    const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
    std::ifstream file(root / "docs/man/twillctl.1.scd");
    REQUIRE(file);
    std::string page{std::istreambuf_iterator<char>(file), {}};
    std::erase(page, '\\');
    for (const auto& sub : subcommands()) {
        CAPTURE(std::string(sub.name));
        CHECK(page.find("\n*" + std::string(sub.name) + "*") != std::string::npos);
    }
    for (const char* word : {"*--socket*", "*--bpf-root*", "*--output*", "*--no-headers*", "*--all*", "*--yes*",
                             "*--dry-run*", "*--overlay-name*", "*0*", "*1*", "*2*", "*3*", "*4*", "*5*"}) {
        CAPTURE(word);
        CHECK(page.find(word) != std::string::npos);
    }
}
