// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.hpp"
#include "twill/clock.hpp"

namespace twill {

/// The answer of GET /v1/status, member by member: names are the JSON's. Every key is always written.
struct Status {
    struct Store {
        std::string url;
        bool healthy = false;
        std::string error;
    };
    struct Lease {
        std::string key;
        std::vector<std::string> pods;
        std::vector<std::string> public_ip;
        std::string backend;
        std::vector<std::string> vtep_mac;
        std::optional<WallTime> expires; ///< written as RFC 3339 UTC, or ""
    };
    struct Wire {
        std::string name;
        int ifindex = 0;
        unsigned mtu = 0;
    };
    struct Overlay {
        std::string name;
        int ifindex = 0;
        std::string kind;
        std::string mac;
    };
    struct DataPlane {
        std::string kind; ///< "programs", "kernel overlay", or "" while neither carries
        std::string why;  ///< why it is not the programs
    };
    struct FastPath {
        std::string mode;
        bool on = false;
        std::string why;
    };
    struct Masquerade {
        struct Interface {
            std::string name;
            int ifindex = 0;
            std::string ipv4, ipv6; ///< what leaves by it gets this one; empty: none
        };
        bool on = false;
        std::string rules = "off";  ///< "iptables", "nft": as flannel's; "off": not asked for
        std::uint64_t capacity = 0; ///< flows
        std::vector<Interface> interfaces;
    };
    struct Feature {
        std::string name;
        bool on = false;
        std::string setting;
        std::string effect; ///< what is lost when it is off
    };
    struct Attachment {
        std::string program;
        int ifindex = 0;
        std::string interface;
        std::string kind; ///< "tcx" or "clsact"
    };
    struct Peers {
        std::uint64_t programmed = 0;
        std::uint64_t pending = 0;
    };
    struct Pending {
        std::string pods;
        std::string node;
        std::string why;
    };
    struct BadLease {
        std::string key;
        std::string why;
    };
    struct Conflict {
        std::string ip;
        int owner_ifindex = 0;
        int claimed_by_ifindex = 0;
        std::uint64_t count = 0;
    };

    std::string version;
    std::string kernel;
    std::string node;
    int pid = 0;
    WallTime started{};
    bool ready = false;
    Store store;
    Lease lease;
    std::vector<std::string> network;
    std::vector<Wire> wires;
    Overlay overlay;
    std::optional<Overlay> overlay6; ///< where IPv6 has a device of its own, as with flannel
    DataPlane data_plane;
    FastPath fast_path;
    Masquerade masquerade;
    std::vector<Feature> features;
    std::vector<Attachment> attachments;
    Peers peers;
    std::vector<Pending> pending;
    std::vector<BadLease> bad_leases;
    std::uint64_t endpoints = 0;
    std::uint64_t addr_conflict = 0;
    std::vector<Conflict> conflicts;
    std::vector<std::string> warnings;
};

/// Compact JSON in one line, keys in the order above.
std::string to_json(const Status& status);
/// The answers of GET /v1/peers and GET /v1/endpoints: what the data plane that carries is known to hold.
std::string to_json(const Peers& peers);
std::string to_json(const Endpoints& endpoints);

} // namespace twill
