// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/daemon/settings.hpp"
#include "agent/dataplane/features.hpp"
#include "agent/nl/types.hpp"
#include "agent/store/lease.hpp"
#include "agent/store/net_conf.hpp"
#include "agent/store/subnet_env.hpp"

namespace twill {

/// One thing that a take-over depends on, for people. `note`: it works, but not as well; `stop`: not before it is
/// mended.
struct MigrateCheck {
    enum class Verdict : std::uint8_t { ok, note, stop };
    std::string name;
    Verdict verdict = Verdict::ok;
    std::string text;
    bool operator==(const MigrateCheck&) const = default;
};

/// What of a node decides whether twilld can take it over from flanneld.
struct MigrateInput {
    std::optional<NetConf> conf;            ///< nullopt: not known here
    std::string conf_error;                 ///< why it cannot be used
    std::vector<nl::Link> links;            ///< all of the node
    std::optional<nl::Link> wire;           ///< the one between nodes
    std::optional<SubnetEnv> env;           ///< flannel's, for CNI plugins
    std::optional<std::string> obstacle;    ///< rule between pods, see find_forward_rules()
    std::string obstacle_error;             ///< rules cannot be read
    std::optional<KernelFeatures> features; ///< nullopt: cannot be probed
    std::string features_error;
    bool has_bpffs = true;
    std::string bpf_root;
    std::vector<std::string> pins; ///< schemas that are pinned there
    std::string overlay_name = "twill0";
};

/// All checks, in a fixed order. Pure.
std::vector<MigrateCheck> check_migration(const MigrateInput& input);

/// Reads this machine. `conf`: as the agent has it; without one -net-config-path is read where the flags ask for it.
MigrateInput read_migrate_input(const Settings& settings, const std::optional<NetConf>& conf);

/// GET /v1/migrate: {"nodes": [{"node", "runs": "twill"|"flannel", "own", "pods", "public_ip", "backend"}], "checks":
/// [{"name", "verdict": "ok"|"note"|"stop", "text"}]}. `nodes` is null without `leases`.
std::string migration_json(const std::vector<Lease>* leases, const std::string& own_key,
                           const std::vector<MigrateCheck>& checks);

} // namespace twill
