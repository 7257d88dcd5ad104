// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_access.hpp"

#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "agent/store/file_io.hpp"

namespace twill {

namespace {

constexpr std::size_t kMaxConfigBytes = 1U << 20;
constexpr std::size_t kMaxTokenBytes = 1U << 16;

std::string_view trimmed(std::string_view text)
{
    const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

/// Standard alphabet, with or without padding; line ends within are skipped.
std::optional<std::string> base64_decode(std::string_view text)
{
    std::string out;
    unsigned bits = 0;
    unsigned held = 0;
    for (const char c : text) {
        unsigned value = 0;
        if (c >= 'A' && c <= 'Z')
            value = static_cast<unsigned>(c - 'A');
        else if (c >= 'a' && c <= 'z')
            value = static_cast<unsigned>(c - 'a') + 26;
        else if (c >= '0' && c <= '9')
            value = static_cast<unsigned>(c - '0') + 52;
        else if (c == '+' || c == '/')
            value = c == '+' ? 62 : 63;
        else if (c == '=' || c == '\n' || c == '\r')
            continue;
        else
            return std::nullopt;
        bits = (bits << 6 | value) & 0xffff;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        out += static_cast<char>(bits >> held & 0xff);
    }
    return out;
}

std::string base64_encode(std::string_view text)
{
    static constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t i = 0; i < text.size(); i += 3) {
        unsigned block = 0;
        const std::size_t n = std::min<std::size_t>(3, text.size() - i);
        for (std::size_t j = 0; j < 3; ++j) block = block << 8 | (j < n ? static_cast<unsigned char>(text[i + j]) : 0U);
        for (std::size_t j = 0; j < 4; ++j) out += j <= n ? kLetters[block >> (18 - 6 * j) & 63] : '=';
    }
    return out;
}

/// One map of the kubeconfig, for which errors name `where`.
class Section {
public:
    Section(const YAML::Node& node, std::string where) : node_(node), where_(std::move(where)) {}

    Result<std::string> text(const char* name) const
    {
        if (!node_.IsDefined() || node_.IsNull()) return std::string{};
        if (!node_.IsMap()) return Error{EINVAL, where_ + ": want a map"};
        const YAML::Node value = node_[name];
        if (!value.IsDefined() || value.IsNull()) return std::string{};
        if (!value.IsScalar()) return Error{EINVAL, where_ + "." + name + ": want a text"};
        return value.Scalar();
    }
    bool has(const char* name) const { return node_.IsMap() && node_[name].IsDefined() && !node_[name].IsNull(); }
    /// NAME-data, decoded, into `data`; else NAME into `file`.
    Result<> file_or_data(const std::string& name, const std::string& directory, std::string& file,
                          std::string& data) const
    {
        TWILL_TRY_AS(encoded, text((name + "-data").c_str()));
        if (!encoded.empty()) {
            auto decoded = base64_decode(encoded);
            if (!decoded || decoded->empty()) return Error{EINVAL, where_ + "." + name + "-data: want base64"};
            data = *std::move(decoded);
            return Ok{};
        }
        TWILL_TRY_AS(path, text(name.c_str()));
        if (!path.empty()) file = (std::filesystem::path(directory) / path).string();
        return Ok{};
    }

private:
    YAML::Node node_;
    std::string where_;
};

/// `list`[i].`kind` of the entry of that name.
Result<YAML::Node> find_entry(const YAML::Node& root, const char* list, const char* kind, const std::string& name)
{
    const YAML::Node entries = root[list];
    if (entries.IsDefined() && entries.IsSequence())
        for (const auto& entry : entries) {
            if (!entry.IsMap()) continue;
            const YAML::Node entry_name = entry["name"];
            if (entry_name.IsDefined() && entry_name.IsScalar() && entry_name.Scalar() == name) return entry[kind];
        }
    return Error{EINVAL, std::string(list) + ": none is called \"" + name + "\""};
}

std::string with_scheme(std::string url, bool is_tls)
{
    while (url.ends_with('/')) url.pop_back();
    if (!url.empty() && url.find("://") == url.npos) url.insert(0, is_tls ? "https://" : "http://");
    return url;
}

bool has_tls(const HttpTls& tls)
{
    return !tls.ca_file.empty() || !tls.ca_pem.empty() || !tls.cert_file.empty() || !tls.cert_pem.empty() ||
           tls.is_insecure;
}

Result<> read_cluster(const Section& cluster, const std::string& directory, KubeAccess& access)
{
    if (cluster.has("proxy-url")) return Error{EINVAL, "cluster.proxy-url: not supported, set HTTPS_PROXY instead"};
    TWILL_TRY_AS(server, cluster.text("server"));
    access.url = std::move(server);
    TWILL_TRY(cluster.file_or_data("certificate-authority", directory, access.tls.ca_file, access.tls.ca_pem));
    TWILL_TRY_AS(name, cluster.text("tls-server-name"));
    access.tls.server_name = std::move(name);
    TWILL_TRY_AS(insecure, cluster.text("insecure-skip-tls-verify"));
    if (!insecure.empty() && insecure != "true" && insecure != "false")
        return Error{EINVAL, "cluster.insecure-skip-tls-verify: want true or false"};
    access.tls.is_insecure = insecure == "true";
    if (access.tls.is_insecure && (!access.tls.ca_file.empty() || !access.tls.ca_pem.empty()))
        return Error{EINVAL, "cluster.insecure-skip-tls-verify: not beside certificate-authority"};
    return Ok{};
}

Result<> read_user(const Section& user, const std::string& directory, KubeAccess& access)
{
    for (const auto* refused : {"exec", "auth-provider"})
        if (user.has(refused))
            return Error{EINVAL, std::string("user.") + refused +
                                     ": not supported, the agent starts no other programs; want a token, tokenFile or "
                                     "client certificate"};
    TWILL_TRY(user.file_or_data("client-certificate", directory, access.tls.cert_file, access.tls.cert_pem));
    TWILL_TRY(user.file_or_data("client-key", directory, access.tls.key_file, access.tls.key_pem));
    const bool has_cert = !access.tls.cert_file.empty() || !access.tls.cert_pem.empty();
    const bool has_key = !access.tls.key_file.empty() || !access.tls.key_pem.empty();
    if (has_cert != has_key)
        return Error{EINVAL, has_cert ? "user.client-key: absent beside client-certificate"
                                      : "user.client-certificate: absent beside client-key"};
    TWILL_TRY_AS(token, user.text("token"));
    TWILL_TRY_AS(token_file, user.text("tokenFile"));
    TWILL_TRY_AS(username, user.text("username"));
    TWILL_TRY_AS(password, user.text("password"));
    access.token = std::move(token);
    if (!token_file.empty()) access.token_file = (std::filesystem::path(directory) / token_file).string();
    access.username = std::move(username);
    access.password = std::move(password);
    return Ok{};
}

Result<KubeAccess> read_kubeconfig(const YAML::Node& root, const std::string& directory, const std::string& api_url)
{
    KubeAccess access;
    if (!root.IsMap()) return Error{EINVAL, "want a map"};
    TWILL_TRY_AS(current, Section(root, "kubeconfig").text("current-context"));
    if (current.empty() && api_url.empty()) return Error{EINVAL, "current-context: absent"};
    if (!current.empty()) {
        TWILL_TRY_AS(context_node, find_entry(root, "contexts", "context", current));
        const Section context(context_node, "context");
        TWILL_TRY_AS(cluster_name, context.text("cluster"));
        TWILL_TRY_AS(user_name, context.text("user"));
        TWILL_TRY_AS(cluster, find_entry(root, "clusters", "cluster", cluster_name));
        TWILL_TRY(read_cluster(Section(cluster, "cluster"), directory, access));
        if (!user_name.empty()) {
            TWILL_TRY_AS(user, find_entry(root, "users", "user", user_name));
            TWILL_TRY(read_user(Section(user, "user"), directory, access));
        }
    }
    if (!api_url.empty()) access.url = api_url;
    if (access.url.empty()) return Error{EINVAL, "cluster.server: absent"};
    access.url = with_scheme(access.url, has_tls(access.tls));
    if (!access.url.starts_with("https://") && !access.url.starts_with("http://"))
        return Error{EINVAL, "cluster.server: want http:// or https://"};
    return access;
}

} // namespace

Result<std::vector<std::string>> KubeAccess::headers() const
{
    std::string bearer = token;
    if (!token_file.empty()) {
        TWILL_TRY_AS(text, read_file(token_file, kMaxTokenBytes));
        bearer = trimmed(text);
        if (bearer.empty()) return Error{ENODATA, "read " + token_file + ": no token in it"};
    }
    for (const char c : bearer)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
            return Error{EINVAL, (token_file.empty() ? std::string("token") : token_file) + ": not one token"};
    if (!bearer.empty()) return std::vector{"Authorization: Bearer " + bearer};
    if (!username.empty()) return std::vector{"Authorization: Basic " + base64_encode(username + ":" + password)};
    return std::vector<std::string>{};
}

std::string KubeAccess::describe() const
{
    const auto scheme = url.find("://");
    const auto host = scheme == url.npos ? 0 : scheme + 3;
    const auto at = url.substr(0, url.find('/', host)).rfind('@');
    return at == url.npos || at < host ? url : url.substr(0, host) + url.substr(at + 1);
}

Result<KubeAccess> parse_kubeconfig(std::string_view text, const std::string& directory, const std::string& api_url)
{
    try {
        return read_kubeconfig(YAML::Load(std::string(text)), directory, api_url);
    } catch (const std::exception& error) {
        // The library quotes nothing of the text but line and column.
        return Error{EINVAL, error.what()};
    }
}

Result<KubeAccess> kube_access(const KubeOptions& options)
{
    const std::string token_file = options.account_dir + "/token";
    if (!options.kubeconfig_file.empty()) {
        TWILL_TRY_AS(text, read_file(options.kubeconfig_file, kMaxConfigBytes));
        const auto directory = std::filesystem::path(options.kubeconfig_file).parent_path().string();
        auto access = parse_kubeconfig(text, directory, options.api_url);
        if (!access) return Error{access.error().code, options.kubeconfig_file + ": " + access.error().what};
        return access;
    }
    KubeAccess access;
    if (!options.api_url.empty()) {
        access.url = with_scheme(options.api_url, false);
        if (!access.url.starts_with("https://") && !access.url.starts_with("http://"))
            return Error{EINVAL, "kube-api-url " + access.describe() + ": want http:// or https://"};
        if (!access.url.starts_with("https://") || ::access(token_file.c_str(), F_OK) != 0) return access;
    } else {
        if (options.service_host.empty() || options.service_port.empty())
            return Error{EINVAL, "no way to the Kubernetes API server: want -kubeconfig-file, -kube-api-url, or a pod "
                                 "with KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"};
        const bool is_v6 = options.service_host.find(':') != std::string::npos;
        const std::string host = is_v6 ? "[" + options.service_host + "]" : options.service_host;
        access.url = "https://" + host + ":" + options.service_port;
    }
    access.token_file = token_file;
    // Without one the system's authorities hold, as for every Go program.
    const std::string ca_file = options.account_dir + "/ca.crt";
    if (::access(ca_file.c_str(), F_OK) == 0 || options.api_url.empty()) access.tls.ca_file = ca_file;
    return access;
}

} // namespace twill
