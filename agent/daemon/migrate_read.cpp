// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "agent/daemon/migrate.hpp"
#include "agent/daemon/netfilter.hpp"
#include "agent/nl/addr.hpp"
#include "agent/nl/link.hpp"
#include "agent/nl/route.hpp"
#include "agent/store/file_io.hpp"
#include "maps/pins.hpp"

namespace twill {

namespace {

namespace fs = std::filesystem;

void read_conf(const Settings& settings, MigrateInput& input)
{
    if (input.conf || settings.store_kind != StoreKind::kubernetes) return;
    const auto text = read_file(settings.kube.net_config_path, std::size_t{1} << 20);
    if (!text) {
        input.conf_error = text.error().what;
        return;
    }
    auto conf = NetConf::parse(*text, settings.kube.net_config_path, net_conf_keys(), Subnets::given);
    if (conf)
        input.conf = *std::move(conf);
    else
        input.conf_error = conf.error().what;
}

Result<> read_kernel(const Settings& settings, MigrateInput& input)
{
    TWILL_TRY_AS(socket, nl::Socket::open());
    TWILL_TRY_AS(view, read_iface_view(socket));
    input.links = view.links;
    PerFamily<bool> enabled{true, false};
    for (const auto family : kFamilies) {
        if (input.conf) enabled[family] = input.conf->network[family].has_value();
        if (!input.conf && input.env) enabled[family] = input.env->network[family].has_value();
    }
    if (auto choice = choose_wire(settings.iface, enabled, view)) input.wire = choice->wire;
    return Ok{};
}

void read_firewall(MigrateInput& input)
{
    PerFamily<std::optional<Cidr>> networks;
    if (input.env) networks = input.env->network;
    if (input.conf) networks = input.conf->networks();
    if (!networks.v4 && !networks.v6) {
        input.obstacle_error = "the network of the pods is not known";
        return;
    }
    auto found = find_forward_rules(networks);
    if (found)
        input.obstacle = *std::move(found);
    else
        input.obstacle_error = found.error().what;
}

} // namespace

MigrateInput read_migrate_input(const Settings& settings, const std::optional<NetConf>& conf)
{
    MigrateInput input;
    input.conf = conf;
    input.overlay_name = settings.overlay_name;
    input.bpf_root = settings.bpf_root;
    const PinDir pins(settings.bpf_root);
    input.has_bpffs = pins.can_create();
    input.pins = pins.other_schemas();
    if (pins.is_filled()) input.pins.push_back(fs::path(pins.maps()).parent_path().filename());
    read_conf(settings, input);
    if (auto env = read_subnet_env(settings.subnet_file)) input.env = *std::move(env);
    if (auto read = read_kernel(settings, input); !read && input.conf_error.empty())
        input.conf_error = read.error().what;
    read_firewall(input);
    auto features = probe_features();
    if (features)
        input.features = *features;
    else
        input.features_error = features.error().what;
    return input;
}

} // namespace twill
