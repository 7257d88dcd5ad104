// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "maps/abi/addr.h"
#include "maps/abi/flow.h"
#include "twill/ip.hpp"
#include "twill/mac.hpp"

namespace twill {

/// The only place where values of ours become bytes of the map ABI, and back.
tw_addr to_abi(const Ip& ip);
Ip from_abi(const tw_addr& addr);
/// The mask of a prefix length, as programs compare it: an IPv4 one has 96 bits more.
tw_addr to_mask(Family family, unsigned bits);
/// The prefix as programs compare it.
tw_net to_net(const Cidr& cidr);
Cidr from_net(const tw_net& net);
/// Map keys. The caller passes a CIDR of the right family.
tw_cidr_v4 to_key_v4(const Cidr& cidr);
tw_cidr_v6 to_key_v6(const Cidr& cidr);
/// EINVAL when the key's length is out of range.
Result<Cidr> from_key(const tw_cidr_v4& key);
Result<Cidr> from_key(const tw_cidr_v6& key);
void to_abi(const Mac& mac, unsigned char (&bytes)[6]);
Mac mac_from_abi(const unsigned char (&bytes)[6]);
/// The flow between two ends, ports in host order; which end is named first does not matter.
tw_flow to_flow(const Ip& ip, std::uint16_t port, const Ip& other, std::uint16_t other_port, std::uint8_t proto);
/// A prefix that no address matches: "family off" in struct tw_cfg.
tw_net no_net();

} // namespace twill
