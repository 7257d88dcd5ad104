// SPDX-License-Identifier: Apache-2.0
// Where twill means to differ from the kernel's device. A row holds only for its kind of packet, and only where twill's
// own counter, or conntrack's, says the reason.
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "tests/interop/cluster.hpp"
#include "tests/interop/compare.hpp"
#include "tests/interop/mask.hpp"

namespace twill::interop {
namespace {

constexpr std::size_t kEth = 14;

bool has(const Outcome& outcome, const char* reason) { return outcome.reasons.contains(reason); }

/// Twill drops, and says why.
bool dropped(const Outcome& twill, const char* reason) { return twill.frames.empty() && has(twill, reason); }

/// The programs carry what the kernel drops.
bool only_twill(const Outcome& twill, const Outcome& kernel)
{
    return kernel.frames.empty() && !twill.frames.empty() &&
           (has(twill, "from_pod TO_VXLAN") || has(twill, "from_pod TO_LOCAL") || has(twill, "from_wire TO_LOCAL") ||
            has(twill, "from_wire TO_STACK") || has(twill, "from_overlay TO_LOCAL"));
}

unsigned get16(const Bytes& bytes, std::size_t at) { return static_cast<unsigned>(bytes[at]) << 8U | bytes[at + 1]; }

Mac mac_at(const Bytes& bytes, std::size_t at)
{
    Mac mac;
    std::copy_n(bytes.begin() + static_cast<long>(at), 6, mac.bytes.begin());
    return mac;
}

/// Where the packet of a pod starts in what the wire brings; 0 in everything else.
std::size_t tunnel_offset(const Packet& packet)
{
    return packet.origin == Origin::wire ? inner_offset(packet.bytes) : 0;
}

/// Where the packet of a pod starts: in the frame, or in the tunnel.
std::size_t pod_packet(const Packet& packet)
{
    if (packet.origin == Origin::host) return 0;
    if (const std::size_t inner = tunnel_offset(packet); inner != 0) return inner;
    return packet.bytes.size() > kEth && packet.bytes[12] == 0x81 ? kEth + 4 : kEth; // VLAN tag
}

bool is_bad_ipv4_header(const Bytes& bytes, std::size_t at)
{
    if (bytes.size() < at + 20 || bytes[at] >> 4U != 4) return false;
    const std::size_t size = (bytes[at] & 0xfU) * 4U;
    return bytes.size() >= at + size && test::ones_sum(bytes.data() + at, size) != 0xffff;
}

/// The frame without what lies behind its IP packet.
Bytes without_trailer(const Bytes& frame)
{
    if (frame.size() < kEth + 20) return frame;
    const std::size_t size = frame[12] == 0x08 ? get16(frame, kEth + 2) : get16(frame, kEth + 4) + 40U;
    return Bytes(frame.begin(), frame.begin() + static_cast<long>(std::min(frame.size(), kEth + size)));
}

// --- what pods send ------------------------------------------------------------------------------------------------

bool is_forged(const Packet&, const Outcome& twill, const Outcome&)
{
    return dropped(twill, "from_pod FORGED") || dropped(twill, "from_overlay FORGED");
}

bool is_short(const Packet&, const Outcome& twill, const Outcome&)
{
    return dropped(twill, "from_pod SHORT") || dropped(twill, "from_wire SHORT") ||
           dropped(twill, "from_overlay SHORT");
}

/// Is it an address of the cluster network that no node has?
bool is_of_nobody(const Bytes& bytes, std::size_t at)
{
    if (bytes[at] == 10) return bytes[at + 1] == 42 && (bytes[at + 2] < 10 || bytes[at + 2] > 13);
    static const Ip kNetwork = pod_ip('a', Family::v6, 0);
    if (bytes.size() < at + 16 ||
        !std::equal(kNetwork.network(), kNetwork.network() + 6, bytes.begin() + static_cast<long>(at)))
        return false;
    const unsigned subnet = get16(bytes, at + 6);
    return subnet < 0x10 || subnet > 0x13;
}

/// An ICMP error that the node itself made.
bool is_error_of(char node, const Bytes& frame)
{
    const std::size_t inner = inner_offset(frame), at = inner != 0 ? inner : kEth;
    if (frame.size() <= at + 40) return false;
    const Family family = frame[at] >> 4U == 4 ? Family::v4 : Family::v6;
    const bool is_error = family == Family::v4 ? frame[at + 9] == 1 && (frame[at + 20] == 3 || frame[at + 20] == 11)
                                               : frame[at + 6] == 58 && frame[at + 40] < 128;
    const std::array own = {public_ip(node, family), pod_ip(node, family, 0), pod_ip(node, family, 1)};
    return is_error && std::any_of(own.begin(), own.end(), [&](const Ip& ip) {
               const auto source = frame.begin() + static_cast<long>(at) + (family == Family::v4 ? 12 : 8);
               return std::equal(ip.network(), ip.network() + ip.network_size(), source);
           });
}

/// To a pod CIDR that nobody has. The route to the overlay device may answer first: packet too big.
bool has_no_peer(const Packet& packet, const Outcome& twill, const Outcome&)
{
    if (dropped(twill, "from_host NO_PEER")) return true;
    const std::size_t at = pod_packet(packet);
    if (packet.bytes.size() < at + 40) return false;
    return is_of_nobody(packet.bytes, at + (packet.bytes[at] >> 4U == 4 ? 16U : 24U)) &&
           std::all_of(twill.frames.begin(), twill.frames.end(),
                       [&](const Frame& frame) { return is_error_of(twill.world.node(), frame.bytes); });
}

std::uint32_t pseudo_sum(const Bytes& bytes, std::size_t ip)
{
    return static_cast<std::uint32_t>(test::ones_sum(bytes.data() + ip + 8, 32) + get16(bytes, ip + 4) + bytes[ip + 6]);
}

/// Sum over the packet at `ip` (IPv6, no extension headers) from its transport header on, with the pseudo header:
/// 0xffff when its checksum is right.
unsigned transport_sum(const Bytes& bytes, std::size_t ip)
{
    const std::size_t size = get16(bytes, ip + 4);
    return bytes.size() < ip + 40 + size ? 0 : test::ones_sum(bytes.data() + ip + 40, size, pseudo_sum(bytes, ip));
}

/// Over IPv6 to a node that wants an outer UDP checksum: twill writes it, as headers tell it if the pod's own is right.
/// The kernel sums up the packet, or leaves that to the wire and writes the pseudo header's sum.
bool has_sum_by_headers(const Packet&, const Outcome& twill, const Outcome& kernel)
{
    if (!has(twill, "from_pod TO_VXLAN") && !has(twill, "from_host TO_VXLAN")) return false;
    if (twill.frames.size() != 1 || kernel.frames.size() != 1) return false;
    Bytes ours = twill.frames[0].bytes, theirs = kernel.frames[0].bytes;
    if (ours.size() != theirs.size() || inner_offset(ours) != kOuter6 || ours.size() < kOuter6 + 40) return false;
    const bool is_left_to_wire =
        get16(theirs, kEth + 46) == test::ones_sum(theirs.data() + kEth + 8, 0, pseudo_sum(theirs, kEth));
    if (!is_left_to_wire && transport_sum(theirs, kEth) != 0xffff) return false;
    // Where the pod's is wrong, ours is by just as much.
    if (transport_sum(ours, kEth) != transport_sum(ours, kOuter6)) return false;
    for (const std::size_t at : {kEth + 46, kEth + 47}) ours[at] = theirs[at] = 0;
    return ours == theirs;
}

// --- both ways -----------------------------------------------------------------------------------------------------

bool is_invalid(const Packet&, const Outcome& twill, const Outcome& kernel)
{
    return kernel.frames.empty() && !twill.frames.empty() && kernel.invalid > twill.invalid;
}

/// Most packets of its flow took the fast path.
bool is_half_seen(const Packet&, const Outcome& twill, const Outcome& kernel)
{
    return twill.frames.empty() && twill.invalid > kernel.invalid;
}

/// A pod used a source that it does not have, and the node answers that source with an ICMPv6 error: the overlay's
/// route says from which address, flannel's does not.
bool is_error_to_spoofed(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    if (!has(twill, "from_pod NEW_SOURCE") && !has(twill, "from_pod NOT_IP")) return false;
    if (twill.frames.size() != 1 || kernel.frames.size() != 1) return false;
    const auto is_error = [](const Frame& frame, unsigned host) {
        const Ip from = pod_ip('a', Family::v6, host);
        return inner_offset(frame.bytes) == kOuter6 && frame.bytes.size() > kOuter6 + 40 &&
               frame.bytes[kOuter6 + 6] == 58 && frame.bytes[kOuter6 + 40] < 128 &&
               std::equal(from.network(), from.network() + 16, frame.bytes.begin() + kOuter6 + 8);
    };
    return packet.origin != Origin::wire && is_error(twill.frames[0], 0) && is_error(kernel.frames[0], 1);
}

bool has_bad_header(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    return only_twill(twill, kernel) && is_bad_ipv4_header(packet.bytes, pod_packet(packet));
}

// --- what the wire brings ------------------------------------------------------------------------------------------

bool is_spoofed(const Packet&, const Outcome& twill, const Outcome&)
{
    return dropped(twill, "from_wire SPOOF_POD") || dropped(twill, "from_wire SPOOF_NODE") ||
           dropped(twill, "from_overlay SPOOF_POD") || dropped(twill, "from_overlay SPOOF_NODE");
}

/// UDP to the node itself whose length field is not that of the packet: conntrack sums up the packet, the socket what
/// the field says, and the latter only if no one has vouched for the sum before. The kernel's device has, by the outer
/// one.
bool has_wrong_udp_length(const Packet& packet, const Outcome& twill, const Outcome&)
{
    const std::size_t inner = tunnel_offset(packet);
    if (inner == 0 || !twill.frames.empty() || !has(twill, "from_wire TO_STACK")) return false;
    const bool is_v4 = packet.bytes[12] == 0x08;
    const std::size_t udp = inner + (is_v4 ? 20 : 40);
    if (packet.bytes.size() < udp + 8 || packet.bytes[inner + (is_v4 ? 9 : 6)] != 17) return false;
    return get16(packet.bytes, udp + 4) !=
           (is_v4 ? get16(packet.bytes, inner + 2) - 20U : get16(packet.bytes, inner + 4));
}

bool is_no_ip(const Packet& packet, const Outcome& twill, const Outcome&)
{
    const std::size_t inner = tunnel_offset(packet);
    return inner != 0 && get16(packet.bytes, inner - 2) != get16(packet.bytes, 12) &&
           (dropped(twill, "from_wire BAD_VXLAN") || dropped(twill, "from_overlay BAD_VXLAN"));
}

/// The kernel's node takes a packet to itself out of a broadcast.
bool is_broadcast(const Packet& packet, const Outcome& twill, const Outcome&)
{
    const std::size_t inner = tunnel_offset(packet);
    return inner != 0 && (packet.bytes[inner - 14] & 1U) != 0 && dropped(twill, "from_wire BAD_MAC");
}

/// The outer IPv4 header's checksum, or the outer UDP checksum.
bool has_bad_outer_checksum(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    const Bytes& bytes = packet.bytes;
    const std::size_t inner = tunnel_offset(packet);
    if (inner == 0 || !only_twill(twill, kernel)) return false;
    if (is_bad_ipv4_header(bytes, kEth)) return true;
    const bool is_v4 = packet.bytes[12] == 0x08;
    const std::size_t udp = kEth + (is_v4 ? 20 : 40);
    const std::size_t size = get16(bytes, udp + 4);
    if (get16(bytes, udp + 6) == 0 || size < 8 || udp + size > bytes.size()) return false;
    const auto pseudo = test::ones_sum(bytes.data() + (is_v4 ? kEth + 12 : kEth + 8), is_v4 ? 8 : 32);
    return test::ones_sum(bytes.data() + udp, size, static_cast<std::uint32_t>(pseudo + 17U + size)) != 0xffff;
}

bool has_zero_checksum(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    return kernel.frames.empty() && !twill.frames.empty() && tunnel_offset(packet) == kOuter6 &&
           get16(packet.bytes, kEth + 46) == 0;
}

bool has_own_inner_source_mac(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    const std::size_t inner = tunnel_offset(packet);
    return inner != 0 && only_twill(twill, kernel) && mac_at(packet.bytes, inner - 8) == vtep_mac('b');
}

bool has_trailer(const Packet&, const Outcome& twill, const Outcome& kernel)
{
    return twill.frames.size() == 1 && kernel.frames.size() == 1 && twill.frames[0].port == kernel.frames[0].port &&
           twill.frames[0].port != 'w' && without_trailer(twill.frames[0].bytes) == kernel.frames[0].bytes;
}

/// Between 6.18 and 7.3 the kernel's range of source ports came to include its last port: of half of all flows the port
/// is one more than before, and than twill's.
bool has_next_source_port(const Packet&, const Outcome& twill, const Outcome& kernel)
{
    utsname name{};
    if (::uname(&name) != 0 || std::atoi(name.release) < 7) return false;
    if (twill.frames.size() != kernel.frames.size()) return false;
    bool is_next = false;
    for (std::size_t i = 0; i < twill.frames.size(); ++i) {
        Bytes ours = mask(twill.frames[i], twill.world, true).bytes;
        Bytes theirs = mask(kernel.frames[i], kernel.world, true).bytes;
        const std::size_t inner = twill.frames[i].port == 'w' ? inner_offset(ours) : 0;
        if (inner != 0 && inner == inner_offset(theirs)) {
            const std::size_t udp = inner - 30;
            is_next = is_next || get16(theirs, udp) == get16(ours, udp) + 1U;
            if (get16(theirs, udp) - get16(ours, udp) > 1U) return false;
            for (const std::size_t at : {udp, udp + 1, udp + 6, udp + 7}) ours[at] = theirs[at] = 0;
        }
        if (twill.frames[i].port != kernel.frames[i].port || ours != theirs) return false;
    }
    return is_next;
}

} // namespace

const std::vector<Accepted>& all_accepted()
{
    static const std::vector<Accepted> kRows = {
        {"forged", "a pod must not make VXLAN for a node, nor hide it behind a priority tag", is_forged},
        {"no peer", "flannel sends what no lease covers by the default route, unencapsulated", has_no_peer},
        {"short", "a packet of a pod that is shorter than its own headers is dropped", is_short},
        {"UDP length", "who vouches for the checksum over a wrong UDP length", has_wrong_udp_length},
        {"outer checksum", "the fast path verifies no outer checksum: the inner one covers the pod's data",
         has_bad_outer_checksum},
        {"invalid", "the fast path does not ask kube-proxy's rule for what conntrack finds invalid", is_invalid},
        {"half seen", "conntrack has seen only the odd packets of a flow that takes the fast path", is_half_seen},
        {"error to spoofed", "the overlay's route names the node's source address, flannel's does not",
         is_error_to_spoofed},
        {"outer sum", "by headers: written where the kernel leaves it to the wire, and wrong where the pod's own is",
         has_sum_by_headers},
        {"header checksum", "of a pod's packet: the fast path keeps it wrong, the receiving pod drops", has_bad_header},
        {"spoof", "twill alone checks that an inner source belongs to the sending node", is_spoofed},
        {"no IP", "a flannel overlay carries IP only; the kernel takes priority tags off", is_no_ip},
        {"broadcast", "twill takes only what is addressed to its VtepMAC", is_broadcast},
        {"zero checksum", "twill takes IPv6 without an outer UDP checksum (RFC 6935)", has_zero_checksum},
        {"own inner source mac", "the kernel's device takes it for a loop", has_own_inner_source_mac},
        {"source port", "newer kernels use the last port of the range too", has_next_source_port},
        {"trailer", "what lies behind the IP packet is left on the frame for the pod to cut off", has_trailer},
    };
    return kRows;
}

const Accepted* accepted(const Packet& packet, const Outcome& twill, const Outcome& kernel)
{
    for (const auto& row : all_accepted())
        if (row.explains(packet, twill, kernel)) return &row;
    return nullptr;
}

} // namespace twill::interop
