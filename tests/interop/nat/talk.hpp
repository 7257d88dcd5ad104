// SPDX-License-Identifier: Apache-2.0
// Conversations: what the ends send, in words that are the same for every world, and what each of them then sees.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/interop/nat/frame.hpp"
#include "tests/interop/nat/world.hpp"

namespace twill::interop::nat {

using test::Layer;
using test::Layers;

/// A frame that came out of the node.
struct Heard {
    Where where;
    Bytes frame;          ///< as it came
    bool own = false;     ///< made by the node: it chose identification and flow label
    bool overlay = false; ///< it was VXLAN; `frame` is what was inside, with an empty Ethernet header
    Offload left;
    View view;
};

/// A flow between a pod and somebody outside, as a conversation needs it.
struct Flow {
    Ip near, far; ///< the pod, or whoever; the other end
    std::uint8_t proto = 0;
    std::uint16_t sport = 0, dport = 0; ///< of the near end (identifier of echo), of the far end
    Where at = Where::pod1, out = Where::wire;
    bool made = false;                    ///< its first packet came out
    Ip address = {};                      ///< as which the near end appears outside
    std::uint16_t port = 0;               ///< and its port
    std::uint32_t seq = 1000, ack = 5000; ///< next of the near end, next of the far end
};

enum Flag : std::uint8_t { kFin = 1, kSyn = 2, kRst = 4, kPush = 8, kAck = 16 };

/// How frames are given to the node.
struct Style {
    bool partial = false; ///< sums of TCP and UDP are left to the NIC
};

/// One conversation in one world.
class Talk {
public:
    Talk(World& world, Family family, const Style& style) : e(ends(family)), world_(world), style_(style) {}

    const Ends& e;
    World& world() { return world_; }
    bool is_twill() const { return world_.is_twill(); }
    bool v4() const { return e.family == Family::v4; }

    /// Sends what is above Ethernet into the node, waits until it is through, and notes what came out.
    std::vector<Heard> send(Where where, const Layers& layers, const std::optional<Offload>& offload = {});
    /// A packet larger than the link's MTU, to be cut into segments of `size` bytes of payload.
    std::vector<Heard> send_segments(Where where, const Layers& layers, std::uint16_t size);
    /// Several, before anything is heard.
    std::vector<Heard> send_all(Where where, const std::vector<Layers>& packets);
    std::vector<Heard> send_bytes(Where where, const Bytes& frame, const std::optional<Offload>& offload);
    /// Does something in the node's namespace instead.
    std::vector<Heard> act(const std::string& what, const std::function<void()>& act);

    /// First packet of a flow from `near`: UDP, bare SYN, echo request, SCTP INIT, GRE.
    Flow open(const Ip& near, const Ip& far, std::uint8_t proto, std::uint16_t sport, std::uint16_t dport);
    Flow udp(std::uint16_t sport, std::uint16_t dport = 53) { return open(e.pod1, e.outside, 17, sport, dport); }
    Flow tcp(std::uint16_t sport, std::uint16_t dport = 80) { return open(e.pod1, e.outside, 6, sport, dport); }
    Flow ping(std::uint16_t id) { return open(e.pod1, e.outside, echo(), id, 0); }
    /// A TCP connection that is established: three packets.
    Flow connect(std::uint16_t sport, std::uint16_t dport = 80);
    std::uint8_t echo() const { return v4() ? 1 : 58; }

    /// Another packet of the near end, and of the far end to where the flow appeared. `flags`: of TCP. True: it came
    /// out at the other end, translated as the flow is.
    bool say(Flow& flow, std::uint8_t flags = kAck, std::size_t size = 8);
    bool hear(Flow& flow, std::uint8_t flags = kAck, std::size_t size = 8);
    /// From the far end to the address outside by another source address or port.
    bool hear_from(const Flow& flow, const Ip& from, std::uint16_t port);
    /// An ICMP error from `router` about the last packet that the near end sent, to the near end (or about what the far
    /// end sent, by the near end).
    bool error_in(const Flow& flow, const Ip& router, std::uint8_t kind, std::size_t quoted = 8);
    bool error_out(const Flow& flow, const Ip& by, std::uint8_t kind, std::size_t quoted = 8);

    /// The transport of a packet of the flow, with these ports.
    Layers transport(const Flow& flow, bool near, std::uint16_t sport, std::uint16_t dport, std::uint8_t flags,
                     std::size_t size) const;
    /// A line of the trace that is compared.
    void note(const std::string& line) { trace_.push_back({line, {}}); }
    /// The flow whose first packet came out among these, if one did.
    Flow learned(Flow flow, const std::vector<Heard>& heard);
    Layers ip_to(const Ip& src, const Ip& dst, std::uint8_t proto, std::uint8_t ttl = 64) const;
    /// Where packets of this address are given to the node, and with what in front of them.
    Where where_of(const Ip& ip) const;
    std::vector<Heard> send_from(const Ip& src, const Layers& layers);
    /// The packet in fragments of `size` bytes of payload each, in order.
    std::vector<Layers> fragments(const Layers& packet, std::size_t size, std::uint16_t id) const;
    /// What has to hold with twill, whatever the kernel does.
    void check(bool holds, const std::string& what);
    bool kept(const Flow& flow) const { return flow.port == flow.sport; }

    /// All lines and frames, with names for ports.
    std::vector<std::string> trace() const;
    const std::vector<std::string>& failures() const { return failures_; }
    bool is_lost() const { return lost_; }
    Names& names() { return names_; }

private:
    void fence();
    void read(std::vector<Heard>& heard, bool own);
    void keep(Where where, Bytes frame, const Offload& left, std::vector<Heard>& heard);
    Layer error_layer(std::uint8_t kind) const;
    Bytes quote(const Ip& src, const Ip& dst, std::uint8_t proto, const Layers& transport, std::size_t size) const;

    World& world_;
    Style style_;
    Names names_;
    std::vector<std::pair<std::string, std::optional<Heard>>> trace_;
    std::vector<std::string> failures_;
    unsigned fences_ = 0;
    bool lost_ = false;
};

/// ICMP errors, by what they say in either family.
enum Kind : std::uint8_t { kPortUnreachable, kTooBig, kTimeExceeded, kParameter };

struct Conversation {
    const char* name;
    std::function<void(Talk&)> run;
    /// In which worlds twill is compared with the kernel: letters of "i" iptables' rules, "n" nft's, "k" ports kept,
    /// "c" without conntrack. Empty: it is about twill alone.
    const char* worlds = "inkc";
    const char* accepted = ""; ///< a difference that is meant, and why
    const char* families = "46";
};

std::vector<Conversation> protocol_conversations();
std::vector<Conversation> rule_conversations();
std::vector<Conversation> error_conversations();
std::vector<Conversation> rfc_conversations();
std::vector<Conversation> rfc_tcp_icmp_conversations();
std::vector<Conversation> guard_conversations();

} // namespace twill::interop::nat
