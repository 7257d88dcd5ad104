// SPDX-License-Identifier: Apache-2.0
// A world: one node that masquerades, by the kernel's rules or by twill's programs, with everything around it played by
// the test. nat.sh makes the namespaces; all worlds have the same addresses and MACs.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "tests/interop/port.hpp"
#include "tests/support/bpf_fixture.hpp"

namespace twill::interop::nat {

using test::Bytes;

/// The addresses of one family.
struct Ends {
    Family family;
    Cidr cluster, own;
    Ip gateway;           ///< of the pods: the node's address in its own pod CIDR
    Ip overlay;           ///< of the overlay device
    Ip wire, wire2;       ///< of the two interfaces that lead out
    Ip extra;             ///< second address of the first one, in a network of its own
    Ip pod1, pod2;        ///< on the interfaces Where::pod1 and pod2
    Ip pod_over;          ///< of another node, by the overlay
    Ip pod_wire;          ///< of another node, routed out of the first interface
    Ip pod_wire2;         ///< the same with the second
    Ip outside, outside2; ///< by the first interface's gateway, and by the second
    Ip on_link;           ///< in the network of `extra`
    Ip node_b;            ///< another node, on the wire
    Ip excluded;          ///< by the non-masquerade list
    Ip group;             ///< multicast
};
const Ends& ends(Family family);

/// Where the test writes and reads: the other ends of the node's interfaces.
enum class Where : std::uint8_t { pod1, pod2, wire, wire2 };
inline constexpr std::size_t kWheres = 4;
const char* to_string(Where where);

/// How twill masquerades in a world; nothing of it matters in one where the kernel does.
struct Twill {
    tw_nat_rules rules = TW_NAT_IPTABLES;
    bool keep = false;
    bool conntrack = true; ///< is asked; else twill notes what arrives
    std::uint32_t max = 4096;
};

/// Ports that twill may use, as bits.
struct PortRange {
    std::uint16_t first = 1024, last = 29999;
};

class World {
public:
    /// `name` is the namespace behind twl-LAB- and the beginning of the interfaces in this one.
    static Result<std::unique_ptr<World>> open(const std::string& lab, const std::string& name);
    /// Loads the programs and attaches them as the agent would.
    Result<> attach(const Twill& twill);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    const std::string& name() const { return name_; }
    bool is_twill() const { return dp_ != nullptr; }
    const Twill& twill() const { return twill_; }
    test::Dataplane& dp() const { return *dp_; }
    Port& port(Where where) { return ports_[static_cast<std::size_t>(where)]; }

    /// Runs `act` in the node's namespace.
    template <typename Act>
    auto inside(Act act) const
    {
        const Inside here(*this);
        return act();
    }
    /// Everything that the node remembers goes: conntrack entries or flows. (Kernel's flows: by conntrack's netlink.)
    void forget();
    void set_ports(const PortRange& range);
    /// Makes all flows of twill `seconds` older.
    void pass(std::uint32_t seconds);
    std::vector<std::pair<tw_nat_key, tw_nat_flow>> halves(const char* map) const;
    std::size_t flows(const char* map) const { return halves(map).size(); }

private:
    struct Inside {
        explicit Inside(const World& world);
        ~Inside();
        Fd back;
    };
    World() = default;
    Result<> attach_at(test::Program program, const std::string& interface, bool ingress);
    void set_addresses();
    void set_peers(std::uint32_t eth0, std::uint32_t eth1);

    std::string name_;
    Fd ns_;
    std::vector<Port> ports_;
    std::unique_ptr<test::Dataplane> dp_;
    Twill twill_;
};

} // namespace twill::interop::nat
