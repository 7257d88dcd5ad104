// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/store/allocator.hpp"
#include "agent/store/store.hpp"
#include "twill/clock.hpp"

namespace twill {

/// flannel's etcd flags. Tests shorten the times; the daemon sets renew_margin.
struct EtcdOptions {
    std::vector<std::string> endpoints = {"http://127.0.0.1:4001", "http://127.0.0.1:2379"};
    std::string prefix = "/coreos.com/network";
    /// As with flannel, TLS needs both files, and an endpoint http:// is plain text whatever is given.
    std::string cert_file;
    std::string key_file;
    std::string ca_file;
    std::string username; ///< empty: no authentication
    std::string password;

    std::vector<std::string_view> twill_keys = {"overlay", "overlayName", "fastPath", "antiSpoof", "feature"};
    std::chrono::seconds lease_ttl = std::chrono::hours{24};      ///< flannel's
    std::chrono::seconds renew_margin = std::chrono::minutes{60}; ///< before expiry
    std::chrono::milliseconds tick{1000};                         ///< renewal
    std::chrono::milliseconds settle{20};                         ///< before a lost lease is acquired again
    std::chrono::milliseconds backoff_min{100};                   ///< after every endpoint failed
    std::chrono::milliseconds backoff_max{700};                   ///< less than peers keep a lease that is gone
    std::chrono::milliseconds call_timeout{5000};
    std::chrono::milliseconds probe{10000}; ///< a watch that says nothing is asked for so often
    RandomSource random;                    ///< empty: seeded by the machine
};

/// The store in etcd v3 (EtcdStore). EINVAL names the option at fault: no endpoint, not a URL, an https:// endpoint
/// without both files.
Result<std::unique_ptr<Store>> make_etcd_store(EtcdOptions options, Loop& loop, const Clock& clock);

} // namespace twill
