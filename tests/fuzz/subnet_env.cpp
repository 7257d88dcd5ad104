// SPDX-License-Identifier: Apache-2.0
// subnet.env of an earlier start, which anybody with root may have edited. It is a hint, so nothing is an error; what
// was written from it reads back as the same.
#include <cstdlib>
#include <string_view>

#include "agent/store/subnet_env.hpp"

using namespace twill;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size)
{
    auto env = SubnetEnv::parse({reinterpret_cast<const char*>(data), size});
    for (const Family family : kFamilies) {
        if (env.subnet[family] && env.subnet[family]->family() != family) std::abort();
        // Written in pairs only.
        if (!env.network[family] || !env.subnet[family]) env.network[family] = env.subnet[family] = std::nullopt;
        // A single address has no first address plus 1 in it.
        if (env.subnet[family] && env.subnet[family]->bits() > (family == Family::v4 ? 31U : 127U)) return 0;
    }
    if (SubnetEnv::parse(env.to_string()) != env) std::abort();
    return 0;
}
