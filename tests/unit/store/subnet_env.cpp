// SPDX-License-Identifier: Apache-2.0
#include "agent/store/subnet_env.hpp"

#include <sys/stat.h>

#include "agent/store/file_io.hpp"
#include "store_fixture.hpp"

using namespace twill;
using namespace twill::test;
namespace fs = std::filesystem;

namespace {

const SubnetEnv kDual{{*Cidr::parse("10.244.0.0/16"), *Cidr::parse("fd00:10:244::/56")},
                      {*Cidr::parse("10.244.1.0/24"), *Cidr::parse("fd00:10:244:1::/64")},
                      1450,
                      true};

unsigned mode_of(const std::string& path)
{
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    return status.st_mode & 0777;
}

} // namespace

TEST_CASE("subnet_env: order, gateway form and spelling are flannel's")
{
    CHECK(kDual.to_string() == "FLANNEL_NETWORK=10.244.0.0/16\n"
                               "FLANNEL_SUBNET=10.244.1.1/24\n"
                               "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\n"
                               "FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\n"
                               "FLANNEL_MTU=1450\n"
                               "FLANNEL_IPMASQ=true\n");
    SubnetEnv v4 = kDual;
    v4.network.v6.reset();
    v4.subnet.v6.reset();
    v4.ip_masq = false;
    CHECK(v4.to_string() == "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n"
                            "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n");
}

TEST_CASE("subnet_env: what is written reads back; junk costs only its line")
{
    CHECK(SubnetEnv::parse(kDual.to_string()) == kDual);
    const auto env = SubnetEnv::parse("junk\n\nFLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\nFLANNEL_SUBNET=oops\n"
                                      "FLANNEL_IPV6_SUBNET=10.1.1.1/24\nFLANNEL_MTU=x");
    CHECK(env.network.v4->to_string() == "10.1.0.0/16");
    CHECK_FALSE(env.subnet.v4);
    CHECK_FALSE(env.subnet.v6);
    CHECK(env.mtu == 0);
}

TEST_CASE("subnet_env: the file is 0644 in a directory of 0755 whatever the umask, and is replaced in one step")
{
    const TempDir dir;
    const std::string path = dir.path() + "/run/flannel/subnet.env";
    CHECK_FALSE(read_subnet_env(path)->has_value());
    const mode_t old = umask(077);
    const auto written = write_subnet_env(path, kDual);
    umask(old);
    REQUIRE_MESSAGE(written, written.error().what);
    CHECK(mode_of(path) == 0644);
    CHECK(mode_of(dir.path() + "/run/flannel") == 0755);
    CHECK(**read_subnet_env(path) == kDual);
    SubnetEnv other = kDual;
    other.mtu = 1400;
    REQUIRE(write_subnet_env(path, other));
    CHECK(**read_subnet_env(path) == other);
    CHECK(std::distance(fs::directory_iterator(dir.path() + "/run/flannel"), {}) == 1);
}

TEST_CASE("file_io: reading is bounded, takes regular files only; a failed write leaves nothing behind")
{
    const TempDir dir;
    write_text(dir.path() + "/f", std::string(100, 'x'));
    CHECK(read_file(dir.path() + "/f", 100)->size() == 100);
    CHECK(read_file(dir.path() + "/f", 99).error().code == EFBIG);
    CHECK(read_file(dir.path(), 100).error().code == EINVAL);
    CHECK(read_file(dir.path() + "/none", 100).error().code == ENOENT);
    REQUIRE(mkfifo((dir.path() + "/fifo").c_str(), 0600) == 0);
    CHECK(read_file(dir.path() + "/fifo", 100).error().code == EINVAL);

    fs::create_directories(dir.path() + "/d/full");
    CHECK_FALSE(write_file(dir.path() + "/d", "x", 0644).has_value());
    CHECK(fs::is_directory(dir.path() + "/d"));
    CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 3);
    CHECK(remove_file(dir.path() + "/none"));
}
