// SPDX-License-Identifier: Apache-2.0
// tw_from_pod and VLAN tags. BPF_PROG_TEST_RUN refuses a context with vlan_present or vlan_tci set, and leaves a tag in
// the frame where it is (net/bpf/test_run.c). On a real interface the kernel takes the outermost tag off and notes it
// beside the packet before the program runs (__netif_receive_skb_core). So the program is attached here and the frames
// are sent by the other end of the veth pair.
#include <doctest/doctest.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "tests/packet/world.hpp"

using namespace twill;
using namespace twill::test;

namespace {

/// tw_from_pod of a loaded node at the ingress of an interface on which nothing happens but what the test sends.
class Attached {
public:
    explicit Attached(const Node& node) : node_(node)
    {
        const auto index = private_interface("tagged", kGateway);
        REQUIRE(index);
        REQUIRE(private_quiet_up("tagged"));
        hook_.sz = sizeof hook_;
        hook_.attach_point = BPF_TC_INGRESS;
        hook_.ifindex = static_cast<int>(*index);
        REQUIRE(bpf_tc_hook_create(&hook_) == 0);
        LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = node.dp->fd(Program::from_pod));
        REQUIRE(bpf_tc_attach(&hook_, &opts) == 0);
        sock_ = socket(AF_PACKET, SOCK_RAW, 0);
        REQUIRE(sock_ >= 0);
    }
    ~Attached()
    {
        if (sock_ >= 0) close(sock_);
        hook_.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS); // the whole qdisc
        bpf_tc_hook_destroy(&hook_);
    }
    Attached(const Attached&) = delete;
    Attached& operator=(const Attached&) = delete;

    /// Sends the frame and says what it was counted as.
    std::string send(const Bytes& frame)
    {
        const auto before = node_.dp->counters();
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = static_cast<int>(if_nametoindex("taggedp"));
        to.sll_halen = 6;
        const auto sent =
            sendto(sock_, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
        if (sent != static_cast<ssize_t>(frame.size())) return std::strerror(errno);
        for (int tries = 0; tries < 2000; ++tries) {
            const auto after = node_.dp->counters();
            for (unsigned reason = 0; reason < TW_R__MAX; ++reason)
                if (after[reason].from_pod != before[reason].from_pod) return to_string(static_cast<tw_reason>(reason));
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return "nothing";
    }

private:
    const Node& node_;
    bpf_tc_hook hook_{};
    int sock_ = -1;
};

Layers tagged(const Net& net, const std::vector<std::uint16_t>& tags, const Ip& dst, std::uint16_t dport)
{
    Layers frame = {Eth{kGateway, kPod1}};
    for (const std::uint16_t tag : tags) frame.emplace_back(Vlan{tag});
    return frame +
           Layers{ip_layer(net.pod1, dst), Udp{.sport = 50000, .dport = dport}, Vxlan{.vni = kVni}, Eth{kVtepB, kVtepA},
                  ip_layer(net.pod2, net.pod_b)} +
           udp();
}

/// The upper three bits are the priority (IEEE 802.1Q 9.6).
constexpr std::uint16_t kPriority5 = 5U << 13U;

} // namespace

TEST_CASE("from_pod: a VLAN tag does not hide a forged tunnel, a priority tag least of all")
{
    const Node a = node_a();
    Attached attached(a);
    for (const Net& net : nets())
        for (const std::uint16_t tag : U16s{0, kPriority5, 5}) {
            CAPTURE(tag);
            for (const Ip& node : {net.node_a, net.node_b, net.pods_a.address()})
                CHECK(attached.send(build(tagged(net, {tag}, node, kPort))) == "FORGED");
            // Tagged, but no tunnel: the kernel's.
            CHECK(attached.send(build(tagged(net, {tag}, net.node_b, 4789))) == "NOT_IP");
            CHECK(attached.send(build(tagged(net, {tag}, net.pod_b, kPort))) == "NOT_IP");
        }
}

TEST_CASE("from_pod: a second tag behind a priority tag is dropped: the kernel would take off both")
{
    const Node a = node_a();
    Attached attached(a);
    for (const Net& net : nets())
        for (const auto& [tags, counted] : {std::pair{std::vector<std::uint16_t>{0, 0}, "FORGED"},
                                            {{0, 5}, "FORGED"},
                                            {{kPriority5, kPriority5}, "FORGED"},
                                            {{0, 0, 0}, "FORGED"},
                                            {{5, 0}, "NOT_IP"}}) {
            CAPTURE(tags[0]);
            CAPTURE(tags[1]);
            CHECK(attached.send(build(tagged(net, tags, net.node_b, kPort))) == counted);
            // The tag in the middle may also be that of a provider (802.1ad).
            Bytes provider = build(tagged(net, tags, net.node_b, kPort));
            provider[16] = 0x88;
            provider[17] = 0xa8;
            CHECK(attached.send(provider) == counted);
        }
}

TEST_CASE("from_pod: a tag that is still in the frame is the stack's")
{
    const Node a = node_a();
    for (const Net& net : nets())
        for (const std::uint16_t tag : U16s{0, 5}) {
            const Layers frame = tagged(net, {tag}, net.node_b, kPort);
            expect_untouched(a.from_pod(frame), frame, TW_R_NOT_IP);
        }
}
