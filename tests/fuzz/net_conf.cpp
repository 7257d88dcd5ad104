// SPDX-License-Identifier: Apache-2.0
// net-conf.json, as a file, an etcd key or a ConfigMap has it. What is accepted must be fit to work with.
#include <cstdlib>
#include <string_view>

#include "agent/store/net_conf.hpp"

using namespace twill;

namespace {

void check_family(const NetworkConf& conf)
{
    const bool is_inside = conf.network.contains(conf.subnet_min.address()) &&
                           conf.network.contains(conf.subnet_max.last()) &&
                           conf.subnet_min.address() <= conf.subnet_max.address();
    if (!is_inside || conf.subnet_min.bits() != conf.subnet_len || conf.subnet_max.bits() != conf.subnet_len)
        std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size)
{
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto conf = NetConf::parse(text, "fuzz", {"overlay", "feature"});
    const auto given = NetConf::parse(text, "fuzz", {"overlay", "feature"}, Subnets::given);
    // What allocation accepts is good for Kubernetes too.
    if (conf && (!given || given->vni != conf->vni)) std::abort();
    if (!conf) {
        // One line, and it says where.
        if (conf.error().code != EINVAL || !conf.error().what.starts_with("fuzz: ") ||
            conf.error().what.find('\n') != std::string::npos)
            std::abort();
        return 0;
    }
    if (!conf->network.v4 && !conf->network.v6) std::abort();
    for (const Family family : kFamilies)
        if (conf->network[family]) check_family(*conf->network[family]);
    if (conf->port == 0 || conf->vni.value > Vni::kMax) std::abort();
    return 0;
}
