// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "maps/abi/nat.h"

// Masquerade once more, as plain as can be: two maps, one for each direction, and rules in the order of
// docs/design/masquerade.md. It chooses no ports: the engine says which one it took, the model whether it might.
namespace twill::test {

struct NatModel {
    struct Less {
        bool operator()(const tw_nat_key& a, const tw_nat_key& b) const { return std::memcmp(&a, &b, sizeof a) < 0; }
    };
    using Halves = std::map<tw_nat_key, tw_nat_flow, Less>;
    enum Event { syn, synack, fin, ack, rst, nothing, data, answer };
    struct Packet {
        tw_nat_key key;
        Event event = data;
        bool is_icmp = false, is_error = false;
    };
    struct Change {
        tw_addr addr;
        std::uint16_t port;
    };

    Halves fwd, rev;
    std::uint32_t now = 0;

    static std::uint32_t seconds(int state)
    {
        switch (state) {
        case TW_NAT_SYN_SENT:
        case TW_NAT_SYN_SENT2:
        case TW_NAT_FIN_WAIT:
        case TW_NAT_TIME_WAIT:
        case TW_NAT_UDP_BOTH:
            return 120;
        case TW_NAT_SYN_RECV:
        case TW_NAT_CLOSE_WAIT:
            return 60;
        case TW_NAT_ESTABLISHED:
            return 5 * 24 * 3600;
        case TW_NAT_LAST_ACK:
        case TW_NAT_UDP:
        case TW_NAT_ECHO:
            return 30;
        case TW_NAT_CLOSE:
            return 10;
        default:
            return 600;
        }
    }

    static int next(int state, Event event, bool reply)
    {
        if (state == TW_NAT_UDP) return reply ? TW_NAT_UDP_BOTH : state;
        if (state > TW_NAT_UDP) return state;
        const bool opening = state == TW_NAT_SYN_SENT || state == TW_NAT_SYN_SENT2;
        switch (event) {
        case rst:
            return TW_NAT_CLOSE;
        case syn:
            if (state == TW_NAT_TIME_WAIT || (!reply && state == TW_NAT_CLOSE)) return TW_NAT_SYN_SENT;
            return reply && state == TW_NAT_SYN_SENT ? TW_NAT_SYN_SENT2 : state;
        case synack:
            return (reply && opening) || state == TW_NAT_SYN_SENT2 ? TW_NAT_SYN_RECV : state;
        case fin:
            if (state == TW_NAT_SYN_RECV || state == TW_NAT_ESTABLISHED) return TW_NAT_FIN_WAIT;
            return state == TW_NAT_FIN_WAIT || state == TW_NAT_CLOSE_WAIT ? TW_NAT_LAST_ACK : state;
        case ack:
            if (state == TW_NAT_SYN_RECV) return reply ? state : TW_NAT_ESTABLISHED;
            if (state == TW_NAT_FIN_WAIT) return TW_NAT_CLOSE_WAIT;
            return state == TW_NAT_LAST_ACK ? TW_NAT_TIME_WAIT : state;
        default:
            return state;
        }
    }

    bool alive(const tw_nat_flow& half) const { return static_cast<std::int32_t>(half.until - now) > 0; }
    bool taken(const tw_nat_key& key) const
    {
        const auto found = rev.find(key);
        return found != rev.end() && alive(found->second);
    }
    std::size_t living() const
    {
        return static_cast<std::size_t>(
            std::count_if(rev.begin(), rev.end(), [&](const auto& entry) { return alive(entry.second); }));
    }

    /// The key under which the other half of `half` is.
    static tw_nat_key turned(const tw_nat_key& key, const tw_nat_flow& half, bool reply)
    {
        tw_nat_key other{};
        other.src = reply ? half.addr : key.dst;
        other.sport = reply ? half.port : key.dport;
        other.dst = reply ? key.src : half.addr;
        other.dport = reply ? key.sport : half.port;
        other.proto = key.proto;
        return other;
    }

    /// What becomes of a packet of a flow that there is; nothing: no such flow.
    std::optional<Change> pass(const Packet& packet, bool reply)
    {
        Halves& own = reply ? rev : fwd;
        Halves& others = reply ? fwd : rev;
        const auto found = own.find(packet.key);
        if (found == own.end() || !alive(found->second)) return std::nullopt;
        if (packet.is_icmp && !packet.is_error && reply != (packet.event == answer)) return std::nullopt;
        tw_nat_flow& half = found->second;
        const Change change{half.addr, half.port};
        if (packet.is_error) return change;
        const int state = next(half.state, packet.event, reply);
        const std::uint32_t until = now + seconds(state);
        if (half.state == state && half.until == until) return change;
        const tw_nat_key key = turned(packet.key, half, reply);
        const tw_addr& side = reply ? packet.key.dst : packet.key.src;
        const std::uint16_t port = reply ? packet.key.dport : packet.key.sport;
        const auto other = others.find(key);
        if (other != others.end() && alive(other->second) &&
            (std::memcmp(&other->second.addr, &side, sizeof side) != 0 || other->second.port != port)) {
            own.erase(found);
            return std::nullopt;
        }
        half.state = static_cast<std::uint8_t>(state);
        half.until = until;
        tw_nat_flow& both = others[key];
        both = half;
        both.addr = side;
        both.port = port;
        return change;
    }

    static bool begins(const Packet& packet)
    {
        if (packet.is_error || packet.event == answer) return false;
        return packet.key.proto != 6 || packet.event == syn;
    }

    /// A flow that the engine has made for the packet.
    void made(const Packet& packet, const Change& change)
    {
        const int state = packet.key.proto == 6 ? TW_NAT_SYN_SENT : packet.is_icmp ? TW_NAT_ECHO : TW_NAT_UDP;
        tw_nat_flow half{};
        half.addr = change.addr;
        half.port = change.port;
        half.state = static_cast<std::uint8_t>(state);
        half.until = now + seconds(state);
        const tw_nat_key key = turned(packet.key, half, false);
        // What was under this key, and is over, ends whole.
        if (const auto old = rev.find(key); old != rev.end()) {
            const auto first = fwd.find(turned(key, old->second, true));
            if (first != fwd.end() && std::memcmp(&first->second.addr, &key.dst, sizeof key.dst) == 0 &&
                first->second.port == key.dport)
                fwd.erase(first);
        }
        fwd[packet.key] = half;
        half.addr = packet.key.src;
        half.port = packet.key.sport;
        rev[key] = half;
    }
};

} // namespace twill::test
