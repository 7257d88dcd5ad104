// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/host_local.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

using namespace twill;
namespace fs = std::filesystem;

namespace {

struct Recorder final : HostLocal::Listener {
    std::map<Ip, Owner> owners;
    std::vector<std::string> log;
    void on_owner(const Ip& ip, const Owner& owner) override
    {
        owners.insert_or_assign(ip, owner);
        log.push_back("+" + ip.to_string() + " " + owner.container_id + " " + owner.ifname + " " +
                      owner.host_interface);
    }
    void on_owner_gone(const Ip& ip) override
    {
        owners.erase(ip);
        log.push_back("-" + ip.to_string());
    }
};

struct Lab {
    Lab()
    {
        char name[] = "/tmp/twill-host-local-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        dir = name;
    }
    ~Lab() { fs::remove_all(dir); }
    void write(const std::string& path, const std::string& text) const
    {
        fs::create_directories((dir / path).parent_path());
        std::ofstream{dir / path, std::ios::binary} << text;
    }
    /// Runs the loop until `is_reached`, at most for seconds.
    bool until(const std::function<bool()>& is_reached)
    {
        int ticks = 0;
        Timer tick{loop};
        tick.every(std::chrono::milliseconds{5}, [&] {
            if (is_reached() || ++ticks > 1000) loop.stop();
        });
        loop.run();
        return is_reached();
    }
    fs::path dir;
    Loop loop;
    Recorder told;
};

const Ip kA = Ip::v4(10, 42, 1, 2);
const Ip kB = Ip::v4(10, 42, 1, 3);

const char* const kResult = R"({"kind":"cniCacheV1","result":{"interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},
    {"name":"veth12ab","mac":"02:00:00:00:00:02"},{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/proc/7/ns/net"}],
    "ips":[{"address":"10.42.1.2/24","interface":2}]}})";

} // namespace

TEST_CASE("host_local: an allocation is read as all versions wrote it")
{
    Owner owner;
    CHECK(parse_allocation("abc\r\neth0", owner));
    CHECK(owner == Owner{"abc", "eth0", ""});
    CHECK(parse_allocation("abc\neth0\n", owner));
    CHECK(owner == Owner{"abc", "eth0", ""});
    CHECK(parse_allocation("  abc \t\r\n net1 \r\n\r\n", owner));
    CHECK(owner == Owner{"abc", "net1", ""});
    CHECK(parse_allocation("abc", owner));
    CHECK(owner == Owner{"abc", "", ""});
    CHECK(parse_allocation("abc\n../x", owner));
    CHECK(owner.ifname.empty());
    for (const auto& junk : {std::string{}, std::string{"\r\n"}, std::string{"../x\neth0"}, std::string{"a b\neth0"},
                             std::string(300, 'x'), std::string("a\0b", 3)})
        CHECK_FALSE(parse_allocation(junk, owner));
}

TEST_CASE("host_local: the host interface is the last one without a sandbox")
{
    CHECK(host_interface_of(kResult) == "veth12ab");
    CHECK(host_interface_of(
              R"({"result":{"interfaces":[{"name":"vethx","sandbox":""},{"name":"eth0","sandbox":"x"}]}})") == "vethx");
    CHECK(host_interface_of(R"({"interfaces":[{"name":"vethx"}]})") == "vethx");
    for (const char* junk :
         {"", "{", "[]", "7", "null", R"({"result":7})", R"({"result":{"interfaces":{}}})",
          R"({"result":{"interfaces":[7,{"name":7},{"sandbox":1,"name":"a"},{"name":"../../etc"}]}})",
          R"({"result":{"interfaces":[{"name":"a-name-that-is-too-long"}]}})"})
        CHECK(host_interface_of(junk).empty());
    CHECK(host_interface_of(std::string(100000, '[')).empty());
}

TEST_CASE("host_local: a scan tells owners, then only differences")
{
    Lab lab;
    lab.write("networks/cbr0/10.42.1.2", "abc\r\neth0");
    lab.write("networks/cbr0/fd00:42:1::2", "abc\r\neth0");
    lab.write("networks/cbr0/last_reserved_ip.0", "10.42.1.2");
    lab.write("networks/cbr0/lock", "");
    lab.write("networks/cbr0/10.42.1.9", "");
    lab.write("results/cbr0-abc-eth0", kResult);
    HostLocal files{lab.loop, lab.dir.string(), lab.told};
    CHECK(lab.told.log.empty());
    files.scan();
    CHECK(lab.told.log == std::vector<std::string>{"+10.42.1.2 abc eth0 veth12ab", "+fd00:42:1::2 abc eth0 veth12ab"});
    lab.told.log.clear();
    files.scan();
    CHECK(lab.told.log.empty());

    fs::remove(lab.dir / "networks/cbr0/10.42.1.2");
    lab.write("networks/cbr0/10.42.1.3", "def");
    files.scan();
    CHECK(lab.told.log == std::vector<std::string>{"-10.42.1.2", "+10.42.1.3 def  "});
    lab.told.log.clear();
    lab.write("results/cbr0-def-eth0", kResult);
    files.scan();
    CHECK(lab.told.log == std::vector<std::string>{"+10.42.1.3 def  veth12ab"});
}

TEST_CASE("host_local: links, FIFOs, directories and large files are not read")
{
    Lab lab;
    lab.write("elsewhere", "abc\neth0");
    lab.write("networks/n/10.42.1.3", std::string(5000, 'x'));
    fs::create_symlink(lab.dir / "elsewhere", lab.dir / "networks/n/10.42.1.2");
    fs::create_directories(lab.dir / "networks/n/10.42.1.4");
    REQUIRE(::mkfifo((lab.dir / "networks/n/10.42.1.5").c_str(), 0600) == 0);
    lab.write("other/10.42.1.6", "abc");
    fs::create_directory_symlink(lab.dir / "other", lab.dir / "networks/link");
    lab.write("networks/n/10.42.1.7", "abc\neth0");
    lab.write("results/n-abc-eth0", kResult + std::string(HostLocal::kMaxResultBytes, ' '));
    HostLocal files{lab.loop, lab.dir.string(), lab.told};
    files.scan();
    CHECK(lab.told.log == std::vector<std::string>{"+10.42.1.7 abc eth0 "});
}

TEST_CASE("host_local: changes are told, also in directories that come and go")
{
    Lab lab;
    HostLocal files{lab.loop, lab.dir.string(), lab.told};
    files.scan();
    CHECK(lab.told.log.empty());

    lab.write("networks/cbr0/10.42.1.2", "abc\r\neth0");
    CHECK(lab.until([&] { return lab.told.owners.count(kA) == 1; }));
    lab.write("results/cbr0-abc-eth0", kResult);
    CHECK(lab.until([&] { return lab.told.owners[kA].host_interface == "veth12ab"; }));

    lab.write("networks/second/10.42.1.3", "def\r\neth0");
    CHECK(lab.until([&] { return lab.told.owners.count(kB) == 1; }));

    fs::remove_all(lab.dir / "networks");
    CHECK(lab.until([&] { return lab.told.owners.empty(); }));
    lab.write("networks/cbr0/10.42.1.3", "ghi\r\neth0");
    CHECK(lab.until([&] { return lab.told.owners.count(kB) == 1; }));

    // A directory put in the place of another one.
    lab.write("fresh/10.42.1.2", "jkl\neth0");
    fs::rename(lab.dir / "networks/cbr0", lab.dir / "old");
    fs::rename(lab.dir / "fresh", lab.dir / "networks/cbr0");
    CHECK(lab.until([&] { return lab.told.owners.count(kA) == 1 && lab.told.owners.count(kB) == 0; }));
    lab.write("networks/cbr0/10.42.1.3", "mno\neth0");
    CHECK(lab.until([&] { return lab.told.owners.count(kB) == 1; }));
}

TEST_CASE("host_local: an empty file is an owner once it is written")
{
    Lab lab;
    fs::create_directories(lab.dir / "networks/cbr0");
    HostLocal files{lab.loop, lab.dir.string(), lab.told};
    std::ofstream file{lab.dir / "networks/cbr0/10.42.1.2"};
    file.flush();
    files.scan();
    CHECK(lab.told.owners.empty());
    file << "abc\r\neth0";
    file.close();
    CHECK(lab.until([&] { return lab.told.owners.count(kA) == 1; }));
    CHECK(lab.told.owners[kA].container_id == "abc");
}
