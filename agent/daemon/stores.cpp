// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/stores.hpp"

#include <string_view>
#include <utility>

#include "agent/store/etcd_options.hpp"
#include "agent/store/file_store.hpp"
#include "agent/store/kube_store.hpp"

namespace twill {

namespace {

constexpr std::string_view kFileScheme = "file://";

Result<std::unique_ptr<Store>> open_file(const Settings& settings, Loop& loop, const Clock& clock)
{
    FileStoreOptions options;
    options.twill_keys = net_conf_keys();
    options.renew_margin = settings.renew_margin;
    std::unique_ptr<Store> store =
        std::make_unique<FileStore>(loop, clock, settings.store.substr(kFileScheme.size()), options);
    return store;
}

Result<std::unique_ptr<Store>> open_kubernetes(const Settings& settings, Loop& loop, const Clock& clock)
{
    KubeOptions options;
    options.api_url = settings.kube.api_url;
    options.kubeconfig_file = settings.kube.kubeconfig;
    options.annotation_prefix = settings.kube.annotation_prefix;
    options.net_config_path = settings.kube.net_config_path;
    options.set_node_network_unavailable = settings.kube.set_network_unavailable;
    options.node_name = settings.node;
    options.pod_name = settings.kube.pod_name;
    options.pod_namespace = settings.kube.pod_namespace;
    options.service_host = settings.kube.service_host;
    options.service_port = settings.kube.service_port;
    options.twill_keys = net_conf_keys();
    auto store = make_kube_store(std::move(options), loop, clock);
    if (!store) return Error{store.error().code, "flag -kube-subnet-mgr: " + store.error().what};
    return store;
}

Result<std::unique_ptr<Store>> open_etcd(const Settings& settings, Loop& loop, const Clock& clock)
{
    EtcdOptions options;
    options.endpoints = settings.etcd.endpoints;
    options.prefix = settings.etcd.prefix;
    options.cert_file = settings.etcd.cert_file;
    options.key_file = settings.etcd.key_file;
    options.ca_file = settings.etcd.ca_file;
    options.username = settings.etcd.username;
    options.password = settings.etcd.password;
    options.twill_keys = net_conf_keys();
    options.renew_margin = settings.renew_margin;
    auto store = make_etcd_store(std::move(options), loop, clock);
    if (!store) return Error{store.error().code, "flag -" + store.error().what};
    return store;
}

} // namespace

Result<std::unique_ptr<Store>> open_store(const Settings& settings, Loop& loop, const Clock& clock)
{
    switch (settings.store_kind) {
    case StoreKind::kubernetes:
        return open_kubernetes(settings, loop, clock);
    case StoreKind::etcd:
        return open_etcd(settings, loop, clock);
    case StoreKind::file:
        break;
    }
    return open_file(settings, loop, clock);
}

} // namespace twill
