// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/nat/talk.hpp"
namespace twill::interop::nat {
std::vector<Conversation> rfc_conversations() { return {}; }
std::vector<Conversation> rfc_tcp_icmp_conversations() { return {}; }
std::vector<Conversation> guard_conversations() { return {}; }
} // namespace twill::interop::nat
