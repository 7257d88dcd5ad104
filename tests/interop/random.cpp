// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tests/interop/cluster.hpp"
#include "tests/interop/packets.hpp"

namespace twill::interop {

using namespace test;

namespace {

/// splitmix64: packet number n of a seed is the same whatever came before it.
class Dice {
public:
    Dice(std::uint64_t seed, std::uint64_t index) : state_(seed * 0x9e3779b97f4a7c15U ^ index * 0xd1342543de82ef95U) {}

    std::uint64_t next()
    {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
        z = (z ^ z >> 30U) * 0xbf58476d1ce4e5b9U;
        z = (z ^ z >> 27U) * 0x94d049bb133111ebU;
        return z ^ z >> 31U;
    }
    std::size_t below(std::size_t limit) { return static_cast<std::size_t>(next() % limit); }
    bool chance(unsigned percent) { return below(100) < percent; }
    std::uint8_t byte() { return static_cast<std::uint8_t>(next()); }
    std::uint16_t word() { return static_cast<std::uint16_t>(next()); }
    template <typename T>
    T any(std::initializer_list<T> values)
    {
        return values.begin()[below(values.size())];
    }
    Bytes bytes(std::size_t size)
    {
        Bytes out(size);
        for (auto& one : out) one = byte();
        return out;
    }

private:
    std::uint64_t state_;
};

/// One random packet, or the fragments of one.
class Maker {
public:
    Maker(std::uint64_t seed, std::uint64_t index, bool is_offloaded)
        : dice_(seed, index), is_offloaded_(is_offloaded),
          what_("random packet, --seed " + std::to_string(seed) + " --first " + std::to_string(index))
    {
        family_ = dice_.chance(50) ? Family::v4 : Family::v6;
    }

    std::vector<Packet> make()
    {
        const std::size_t kind = dice_.below(100);
        std::vector<Packet> packets;
        if (kind < 5)
            packets.push_back(by_the_node());
        else if (kind < 30 && !is_offloaded_)
            packets.push_back(received());
        else if (kind >= 30 && kind < 36)
            packets = fragments();
        else
            packets.push_back(sent());
        for (auto& packet : packets) packet.is_valid = false;
        return packets;
    }

private:
    Dice dice_;
    bool is_offloaded_;
    std::string what_;
    Family family_;
    char pod_ = 'p';
    std::uint8_t proto_ = 17;

    // Pools keep the number of flows below what conntrack can hold.
    std::uint16_t sport() { return static_cast<std::uint16_t>(1024 + dice_.below(256) * 251); }
    std::uint16_t dport() { return dice_.any<std::uint16_t>({53, 80, 443, 5001, 8472, 65535, 1, 0}); }

    Ip outside() { return test::ip(family_ == Family::v4 ? "203.0.113.7" : "2001:db8:77::7"); }

    Ip own_address()
    {
        return dice_.chance(20) ? public_ip('a', family_) : pod_ip('a', family_, dice_.any({0U, 0U, 1U}));
    }
    /// Never VXLAN of its own, which would look like the overlay's.
    Packet by_the_node()
    {
        const Layer network = ip('a', own_address(), true);
        Layer layer = transport();
        if (auto* udp = std::get_if<Udp>(&layer)) udp->dport = 5001;
        return from_host({network, layer, Payload{dice_.bytes(dice_.below(1300))}}, what_);
    }

    /// Mostly the pod itself.
    Ip source()
    {
        const unsigned own = pod_ == 'p' ? 2 : 3;
        if (dice_.chance(95)) return pod_ip('a', family_, own);
        switch (dice_.below(6)) {
        case 0:
            return pod_ip('a', family_, 5 - own);
        case 1:
            return pod_ip('b', family_, 2);
        case 2:
            return public_ip('a', family_);
        case 3:
            return outside();
        case 4:
            return pod_ip('a', family_, static_cast<unsigned>(dice_.below(2)));
        default:
            return test::ip(family_ == Family::v4 ? "127.0.0.1" : "::1");
        }
    }
    /// Mostly a pod of a peer; never one of node `from`.
    Ip destination(char from)
    {
        if (dice_.chance(92))
            return pod_ip(from == 'a' ? dice_.any({'b', 'b', 'c', 'd'}) : from, family_, dice_.any({2U, 2U, 3U}));
        switch (dice_.below(6)) {
        case 0:
            return pod_ip(dice_.any({'b', 'd'}), family_, dice_.byte());
        case 1:
            return pod_ip('z', family_, 2);
        case 2:
            return public_ip('b', family_);
        case 3:
            return outside();
        case 4:
            return test::ip(family_ == Family::v4 ? "224.0.0.9" : "ff02::9");
        default:
            return pod_ip('d', family_, 1);
        }
    }

    std::uint8_t ttl()
    {
        return dice_.chance(80) ? 64 : dice_.chance(50) ? dice_.byte() : dice_.any<std::uint8_t>({0, 1, 2, 3});
    }
    std::uint8_t tos() { return dice_.chance(40) ? 0 : dice_.byte(); }

    Layer ip(char from, const Ip& src, bool is_plain)
    {
        Layer layer = ip_layer(src, destination(from), ttl(), tos());
        const bool is_odd = !is_plain && dice_.chance(12);
        if (auto* v4 = std::get_if<Ip4>(&layer)) {
            v4->id = dice_.word();
            v4->frag = dice_.any<std::uint16_t>({0, 0x4000, 0x4000, 0x4000});
            if (is_odd) odd(*v4);
        }
        if (auto* v6 = std::get_if<Ip6>(&layer)) {
            if (dice_.chance(50)) v6->label = static_cast<std::uint32_t>(dice_.next() & 0xfffff);
            if (is_odd) odd(*v6);
        }
        return layer;
    }
    void odd(Ip4& v4)
    {
        switch (dice_.below(6)) {
        case 0:
            v4.options = Bytes(4 * (1 + dice_.below(10)), 1);
            break;
        case 1:
            v4.options = dice_.bytes(4 * (1 + dice_.below(10)));
            break;
        case 2:
            v4.csum = dice_.word();
            break;
        case 3:
            v4.len = static_cast<std::uint16_t>(dice_.below(2000));
            break;
        case 4:
            v4.ihl = static_cast<std::uint8_t>(dice_.below(16));
            break;
        default:
            v4.frag = static_cast<std::uint16_t>(dice_.word() & 0xc000U);
            break;
        }
    }
    void odd(Ip6& v6)
    {
        if (dice_.chance(20)) {
            v6.len = static_cast<std::uint16_t>(dice_.below(2000));
            return;
        }
        for (std::size_t i = 0, count = 1 + dice_.below(4); i < count; ++i) {
            Ext6 one{.type = dice_.any<std::uint8_t>({0, 60, 60, 43, 60})};
            if (dice_.chance(40)) one.body = dice_.bytes(6 + 8 * dice_.below(4));
            v6.ext.push_back(one);
        }
    }

    Layer transport()
    {
        const std::size_t kind = dice_.below(10);
        if (kind < 4) {
            proto_ = 17;
            Udp udp{.sport = sport(), .dport = dport()};
            if (dice_.chance(3)) udp.len = static_cast<std::uint16_t>(dice_.below(1600));
            if (dice_.chance(5)) udp.csum = dice_.chance(50) ? std::uint16_t{0} : dice_.word();
            return udp;
        }
        if (kind < 8) {
            proto_ = 6;
            Tcp tcp{.sport = sport(), .dport = dport()};
            if (dice_.chance(20)) tcp.flags = dice_.byte();
            if (dice_.chance(10)) tcp.seq = static_cast<std::uint32_t>(dice_.next());
            if (dice_.chance(3)) tcp.csum = dice_.word();
            return tcp;
        }
        proto_ = family_ == Family::v4 ? 1 : 58;
        const bool is_echo = dice_.chance(60);
        const auto id = static_cast<std::uint16_t>(dice_.below(64));
        if (family_ == Family::v4) {
            Icmp icmp{.type = is_echo ? std::uint8_t{8} : dice_.any<std::uint8_t>({0, 3, 4, 11, 12, 13, 30}), .id = id};
            if (dice_.chance(3)) icmp.csum = dice_.word();
            return icmp;
        }
        Icmp6 icmp{.type = is_echo ? std::uint8_t{128} : dice_.any<std::uint8_t>({1, 2, 3, 4, 129, 130, 135, 200}),
                   .id = id};
        if (dice_.chance(3)) icmp.csum = dice_.word();
        return icmp;
    }

    Payload payload()
    {
        const std::size_t size = dice_.chance(50)   ? dice_.below(64)
                                 : dice_.chance(80) ? dice_.below(1460)
                                                    : 1350 + dice_.below(120);
        return {dice_.bytes(size)};
    }

    /// What an error message quotes, so that some belong to a flow.
    Payload quoted()
    {
        const Udp udp{.sport = dport(), .dport = sport()};
        return {build({ip_layer(pod_ip('b', family_, 2), pod_ip('a', family_, 2)), udp, Payload::of(8)})};
    }

    void flip_bytes(Bytes& bytes, std::size_t from)
    {
        if (bytes.size() <= from) return;
        for (std::size_t i = 0, count = 1 + dice_.below(4); i < count; ++i)
            bytes[from + dice_.below(std::min<std::size_t>(bytes.size() - from, 80))] = dice_.byte();
    }

    Packet sent()
    {
        pod_ = dice_.any({'p', 'q'});
        const Layer network = ip('a', source(), false);
        Layers layers = {network};
        if (dice_.chance(6)) {
            if (auto* v4 = std::get_if<Ip4>(&layers[0])) v4->proto = dice_.byte();
            if (auto* v6 = std::get_if<Ip6>(&layers[0])) v6->next = dice_.byte();
            layers.push_back(payload());
        } else {
            layers.push_back(transport());
            layers.push_back((proto_ == 1 || proto_ == 58) && dice_.chance(40) ? quoted() : payload());
        }
        if (dice_.chance(3)) layers.insert(layers.begin(), Vlan{dice_.chance(50) ? std::uint16_t{0} : dice_.word()});
        const bool is_plain = is_plain_transport(layers);
        Packet packet = from_pod(pod_, layers, what_);
        if (is_plain && dice_.chance(25)) return offloaded(layers);
        if (dice_.chance(3)) odd_frame(packet.bytes);
        if (dice_.chance(4)) flip_bytes(packet.bytes, 14);
        if (dice_.chance(3)) packet.bytes.resize(14 + dice_.below(packet.bytes.size() - 13));
        if (dice_.chance(3)) packet.bytes.resize(packet.bytes.size() + dice_.below(60), 0x55);
        return packet;
    }

    /// TCP or UDP behind an IP header that says nothing unusual.
    bool is_plain_transport(const Layers& layers) const
    {
        if (layers.size() != 3 || (proto_ != 6 && proto_ != 17)) return false;
        if (const auto* v4 = std::get_if<Ip4>(&layers[0]))
            return v4->options.empty() && !v4->len && !v4->csum && !v4->ihl && !v4->proto && (v4->frag & 0xa000U) == 0;
        const auto* v6 = std::get_if<Ip6>(&layers[0]);
        return v6 != nullptr && v6->ext.empty() && !v6->len && !v6->next;
    }

    Packet offloaded(Layers& layers)
    {
        if (auto* udp = std::get_if<Udp>(&layers[1])) udp->len.reset(), udp->csum.reset();
        if (dice_.chance(40)) return as_partial(from_pod(pod_, layers, what_));
        const auto size = static_cast<std::uint16_t>(1 + dice_.below(dice_.chance(80) ? 1400 : 1480));
        const std::size_t segments = 2 + dice_.below(dice_.chance(90) ? 5 : 40);
        layers[2] =
            Payload{dice_.bytes(std::min<std::size_t>(std::size_t{size} * segments - dice_.below(size), 64000))};
        return as_super(from_pod(pod_, layers, what_), size);
    }

    void odd_frame(Bytes& bytes)
    {
        if (dice_.chance(50)) {
            const Mac to = dice_.any({test::mac("ff:ff:ff:ff:ff:ff"), test::mac("33:33:00:00:00:01"),
                                      test::mac("02:99:00:00:00:01"), test::mac("00:00:00:00:00:00")});
            std::copy(to.bytes.begin(), to.bytes.end(), bytes.begin());
        } else {
            const auto type = dice_.any<std::uint16_t>({0x0800, 0x86dd, 0x8847, 0x88b5, 0x0004, 0x05dc, 0x22f3});
            bytes[12] = static_cast<std::uint8_t>(type >> 8U);
            bytes[13] = static_cast<std::uint8_t>(type);
        }
    }

    /// A datagram in pieces, in any order, some lost, some twice.
    std::vector<Packet> fragments()
    {
        const Ip src = pod_ip('a', family_, 2), dst = pod_ip(dice_.any({'b', 'd'}), family_, 2);
        const Bytes whole = build({ip_layer(src, dst), transport(), Payload{dice_.bytes(16 + dice_.below(2600))}});
        const std::size_t header = family_ == Family::v4 ? 20 : 40;
        const Bytes body(whole.begin() + static_cast<long>(header), whole.end());
        const std::uint32_t id = static_cast<std::uint32_t>(dice_.next());
        std::vector<Packet> packets;
        for (std::size_t at = 0; at < body.size();) {
            const std::size_t size = std::min(body.size() - at, 8 + dice_.below(dice_.chance(80) ? 170 : 20) * 8);
            packets.push_back(piece(src, dst, body, at, size, id));
            at += size;
        }
        for (std::size_t i = packets.size(); i > 1 && dice_.chance(60); --i)
            std::swap(packets[i - 1], packets[dice_.below(i)]);
        if (dice_.chance(10)) packets.pop_back();
        if (!packets.empty() && dice_.chance(5)) packets.push_back(packets.front());
        return packets;
    }
    Packet piece(const Ip& src, const Ip& dst, const Bytes& body, std::size_t at, std::size_t size, std::uint32_t id)
    {
        const bool is_last = at + size == body.size();
        const Payload data{Bytes(body.begin() + static_cast<long>(at), body.begin() + static_cast<long>(at + size))};
        Layer layer = ip_layer(src, dst);
        if (auto* v4 = std::get_if<Ip4>(&layer)) {
            v4->id = static_cast<std::uint16_t>(id);
            v4->proto = proto_;
            v4->frag = static_cast<std::uint16_t>(at / 8 | (is_last ? 0U : 0x2000U));
        }
        if (auto* v6 = std::get_if<Ip6>(&layer)) {
            v6->next = proto_;
            v6->ext = {{.type = 44,
                        .body = {static_cast<std::uint8_t>(at >> 8U),
                                 static_cast<std::uint8_t>((at & 0xf8U) | (is_last ? 0U : 1U)),
                                 static_cast<std::uint8_t>(id >> 24U), static_cast<std::uint8_t>(id >> 16U),
                                 static_cast<std::uint8_t>(id >> 8U), static_cast<std::uint8_t>(id)}}};
        }
        return from_pod('p', {layer, data}, what_);
    }

    /// A tunnel frame to node b, often with something wrong.
    Packet received()
    {
        const char from = dice_.any({'a', 'a', 'a', 'd'});
        Ip src = pod_ip(from, family_, dice_.any({2U, 3U}));
        if (dice_.chance(5)) src = source();
        Layers inner = {ip('b', src, false), transport(), payload()};
        if (dice_.chance(5)) inner.insert(inner.begin(), Vlan{dice_.word()});
        Layers layers = tunnel(from, family_, inner);
        layers[1] = ip_layer(public_ip(from, family_), public_ip('b', family_), ttl(), tos());
        auto& udp = std::get<Udp>(layers[2]);
        auto& vxlan = std::get<Vxlan>(layers[3]);
        auto& eth = std::get<Eth>(layers[4]);
        udp.sport = dice_.word();
        if (family_ == Family::v4 && dice_.chance(50)) udp.csum = 0;
        if (dice_.chance(30)) {
            switch (dice_.below(9)) {
            case 0:
                udp.len = static_cast<std::uint16_t>(dice_.below(1600));
                break;
            case 1:
                udp.csum = dice_.word();
                break;
            case 2:
                vxlan.flags = dice_.byte();
                break;
            case 3:
                vxlan.vni = static_cast<std::uint32_t>(dice_.below(4));
                break;
            case 4:
                vxlan.reserved = static_cast<std::uint32_t>(dice_.next() & 0xffffff);
                break;
            case 5:
                eth.dst = dice_.any({vtep_mac('a'), vtep_mac('c'), test::mac("ff:ff:ff:ff:ff:ff")});
                break;
            case 6:
                eth.src = dice_.any({vtep_mac('b'), vtep_mac('c'), test::mac("01:00:5e:00:00:01"), Mac{}});
                break;
            case 7:
                eth.type = dice_.any<std::uint16_t>({0x0800, 0x86dd, 0x0806, 0x8100, 0x1234});
                break;
            default:
                odd_outer(layers[1]);
                break;
            }
        }
        Packet packet = from_wire(layers, what_);
        const std::size_t header = family_ == Family::v4 ? kOuter4 : kOuter6;
        if (dice_.chance(4)) flip_bytes(packet.bytes, header);
        if (dice_.chance(3)) packet.bytes.resize(14 + dice_.below(packet.bytes.size() - 13));
        if (dice_.chance(3)) packet.bytes.resize(packet.bytes.size() + dice_.below(60), 0x55);
        return packet;
    }
    void odd_outer(Layer& layer)
    {
        if (auto* v4 = std::get_if<Ip4>(&layer)) {
            switch (dice_.below(4)) {
            case 0:
                v4->options = Bytes(4, 1);
                break;
            case 1:
                v4->csum = dice_.word();
                break;
            case 2:
                v4->frag = 0x4000;
                break;
            default:
                v4->src = dice_.any({public_ip('c', family_), public_ip('b', family_), test::ip("192.0.2.99")});
                break;
            }
        } else if (auto* v6 = std::get_if<Ip6>(&layer)) {
            switch (dice_.below(3)) {
            case 0:
                v6->ext = {{.type = 60}};
                break;
            case 1:
                v6->label = static_cast<std::uint32_t>(dice_.next() & 0xfffff);
                break;
            default:
                v6->src = dice_.any({public_ip('c', family_), public_ip('b', family_), test::ip("2001:db8:1::99")});
                break;
            }
        }
    }
};

} // namespace

std::vector<Packet> random_packets(std::uint64_t seed, std::uint64_t index, bool is_offloaded)
{
    return Maker(seed, index, is_offloaded).make();
}

} // namespace twill::interop
