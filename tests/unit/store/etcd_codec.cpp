// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_codec.hpp"

#include <doctest/doctest.h>

#include <cerrno>

#include "agent/store/etcd_client.hpp"
#include "agent/store/etcd_view.hpp"

using namespace twill;

namespace {

EtcdKv lease_kv(const std::string& ip, std::int64_t mod = 5, std::int64_t etcd_lease = 7)
{
    return {"", R"({"PublicIP":")" + ip + R"(","PublicIPv6":null,"BackendType":"host-gw"})", 1, mod, etcd_lease};
}

} // namespace

TEST_CASE("etcd: frames come out whole however they are cut")
{
    const std::string bytes = grpc_frame("one") + grpc_frame("") + grpc_frame("three");
    for (std::size_t step = 1; step <= bytes.size(); ++step) {
        GrpcReader reader(100);
        std::vector<std::string> messages;
        for (std::size_t at = 0; at < bytes.size(); at += step)
            REQUIRE(reader.feed(std::string_view(bytes).substr(at, step), [&](std::string_view message) {
                messages.emplace_back(message);
                return true;
            }));
        CHECK(messages == std::vector<std::string>{"one", "", "three"});
        CHECK(reader.is_empty());
    }
}

TEST_CASE("etcd: a frame that is compressed or too long is refused")
{
    const auto ignore = [](std::string_view) { return true; };
    GrpcReader reader(4);
    CHECK(reader.feed(grpc_frame("four"), ignore));
    CHECK(reader.feed(grpc_frame("five!"), ignore).error().code == EFBIG);
    std::string compressed = grpc_frame("x");
    compressed[0] = 1;
    CHECK(GrpcReader(4).feed(compressed, ignore).error().code == EINVAL);
}

TEST_CASE("etcd: how a call ended is read from trailers, else from the head")
{
    const auto code = [](int status, const HttpFields& head, const HttpFields& trailers) {
        const auto outcome = grpc_outcome({status, head}, trailers);
        return outcome ? 0 : outcome.error().code;
    };
    CHECK(code(200, {}, {{"grpc-status", "0"}}) == 0);
    CHECK(code(200, {{"grpc-status", "7"}}, {}) == EACCES);
    CHECK(code(200, {}, {}) == EAGAIN);
    CHECK(code(503, {}, {{"grpc-status", "0"}}) == EAGAIN);
    CHECK(code(404, {}, {}) == EIO);
    CHECK(code(200, {}, {{"grpc-status", "14"}}) == EAGAIN);
    CHECK(code(200, {}, {{"grpc-status", "x"}}) == EAGAIN);
    CHECK(code(200, {}, {{"grpc-status", "3"}, {"grpc-message", "etcdserver: user name is empty"}}) == EKEYREJECTED);
    const auto outcome = grpc_outcome({200, {}}, {{"grpc-status", "5"}, {"grpc-message", "lease%20not%0Afound"}});
    CHECK(outcome.error().what == "lease not found");
}

TEST_CASE("etcd: a prefix ends where the next one begins")
{
    CHECK(EtcdRange::prefix("/a/").end == "/a0");
    CHECK(EtcdRange::prefix("a\xff").end == "b");
    CHECK(EtcdRange::prefix("\xff").end == std::string(1, '\0'));
}

TEST_CASE("etcd: keys are those of Go's path.Join")
{
    CHECK(EtcdKeys("/coreos.com/network").lease("10.42.1.0-24") == "/coreos.com/network/subnets/10.42.1.0-24");
    CHECK(EtcdKeys("//coreos.com//network/").config() == "/coreos.com/network/config");
    CHECK(EtcdKeys("n").marker("k") == "n/twill/k");
    CHECK_FALSE(EtcdKeys("/n").lease_key("/n/subnetsX"));
    // Without IPv4, as flannel writes and reads it.
    CHECK(EtcdKeys("/n").lease("fd00:42:0:7::-64") == "/n/subnets/0.0.0.0-0&fd00:42:0:7::-64");
    CHECK(EtcdKeys("/n").lease_key("/n/subnets/0.0.0.0-0&fd00:42:0:7::-64") == "fd00:42:0:7::-64");
    CHECK(EtcdKeys("/n").lease_key("/n/subnets/10.42.1.0-24&fd00::-64") == "10.42.1.0-24&fd00::-64");
    CHECK_FALSE(EtcdKeys("/n").lease_key("/n/subnets/fd00:42:0:7::-64"));
    CHECK_FALSE(EtcdKeys("/n").lease_key("/n/subnets/0.0.0.0-0&10.42.1.0-24"));
}

TEST_CASE("etcd: endpoints in the spellings of etcd's client")
{
    CHECK(*etcd_endpoint("http://192.0.2.1:2379/", true) == "http://192.0.2.1:2379");
    CHECK(*etcd_endpoint(" 192.0.2.1:2379", false) == "http://192.0.2.1:2379");
    CHECK(*etcd_endpoint("192.0.2.1:2379", true) == "https://192.0.2.1:2379");
    for (const char* bad : {"", "ftp://x", "http://", "http://x/y", "http://user:hunter2@x"}) {
        const auto url = etcd_endpoint(bad, false);
        REQUIRE_FALSE(url);
        CHECK(url.error().code == EINVAL);
        CHECK(url.error().what.find("hunter2") == std::string::npos);
    }
}

TEST_CASE("etcd: members that flannel does not know change nothing, not even wrong ones")
{
    const auto lease = parse_etcd_lease(
        "10.42.1.0-24", R"({"PublicIP":"192.0.2.1","BackendType":"host-gw","Subnet":4,"Expiration":"x","Node":[]})");
    REQUIRE(lease);
    CHECK(lease->node.empty());
    CHECK_FALSE(lease->expires);
    CHECK_FALSE(parse_etcd_lease("10.42.1.0-24", R"({"PublicIP":"192.0.2.1","BackendType":"vxlan"})"));
    CHECK_FALSE(parse_etcd_lease("10.42.1.5-24", R"({"PublicIP":"192.0.2.1"})"));
}

TEST_CASE("etcd: allocation knows reservations, takes junk's subnet for taken, and the own key for its own")
{
    EtcdView view;
    view.put_lease("10.42.1.0-24", lease_kv("192.0.2.1"));
    view.put_lease("10.42.2.0-24", lease_kv("192.0.2.2", 6, 0));
    view.put_lease("10.42.3.0-24", {"", "junk", 1, 7, 8});
    view.put_lease("junk", lease_kv("192.0.2.3"));
    Lease own;
    own.key = "10.42.3.0-24";
    own.public_ip.v4 = *Ip::parse("192.0.2.9");
    const auto held = view.held(own);
    REQUIRE(held.size() == 3);
    CHECK_FALSE(held[0].is_reservation);
    CHECK(held[1].is_reservation);
    CHECK(held[2].public_ip == own.public_ip);
    CHECK_FALSE(view.held(std::nullopt)[2].public_ip.v4);
}
