// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/loop/http.hpp"
#include "agent/store/kube_store.hpp"
#include "twill/result.hpp"

namespace twill {

/// Where the API server is, and who we are to it.
struct KubeAccess {
    std::string url; ///< scheme and host, no slash at the end
    HttpTls tls;
    std::string token;      ///< bearer
    std::string token_file; ///< read for each request: tokens rotate; wins over `token`
    std::string username;
    std::string password;

    /// The Authorization header, if there is one to send. Errors: the token file cannot be read, or holds no token.
    Result<std::vector<std::string>> headers() const;
    /// `url` without what could be a secret.
    std::string describe() const;
};

/// From a kubeconfig's text: the cluster and user of its current context. Relative file names are below `directory`.
/// `api_url`, if set, is used for the server; then a context may be missing. EINVAL names the key; exec plugins,
/// auth-provider and proxy-url are refused by name. Never throws.
Result<KubeAccess> parse_kubeconfig(std::string_view text, const std::string& directory, const std::string& api_url);

/// By -kubeconfig-file and -kube-api-url, else the service account of the pod. With -kube-api-url alone there are no
/// credentials, as with flannel, but for https from within a pod: there the service account's are used.
Result<KubeAccess> kube_access(const KubeOptions& options);

} // namespace twill
