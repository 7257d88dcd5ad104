// SPDX-License-Identifier: Apache-2.0
#include "agent/store/subnet_env.hpp"

#include <cerrno>
#include <charconv>

#include "agent/store/file_io.hpp"

namespace twill {

namespace {

constexpr std::size_t kMaxBytes = 65536;

std::optional<Cidr> first_cidr(std::string_view list, Family family)
{
    auto cidr = Cidr::parse(list.substr(0, list.find(',')));
    return cidr && cidr->family() == family ? std::optional(*cidr) : std::nullopt;
}

/// Every missing directory above the file.
Result<> make_parents(const std::string& path)
{
    for (std::size_t slash = path.find('/', 1); slash != path.npos; slash = path.find('/', slash + 1))
        TWILL_TRY(make_directory(path.substr(0, slash), 0755));
    return Ok{};
}

} // namespace

std::string SubnetEnv::to_string() const
{
    std::string text;
    for (const Family family : kFamilies) {
        if (!network[family] || !subnet[family]) continue;
        const std::string prefix = family == Family::v4 ? "FLANNEL_" : "FLANNEL_IPV6_";
        const Cidr& pods = *subnet[family];
        text += prefix + "NETWORK=" + network[family]->to_string() + "\n";
        text += prefix + "SUBNET=" + pods.address().plus(1).to_string() + "/" + std::to_string(pods.bits()) + "\n";
    }
    return text + "FLANNEL_MTU=" + std::to_string(mtu) + "\nFLANNEL_IPMASQ=" + (ip_masq ? "true" : "false") + "\n";
}

SubnetEnv SubnetEnv::parse(std::string_view text)
{
    SubnetEnv env;
    while (!text.empty()) {
        const auto end = text.find('\n');
        const auto line = text.substr(0, end);
        text = end == text.npos ? std::string_view{} : text.substr(end + 1);
        const auto equals = line.find('=');
        if (equals == line.npos) continue;
        const auto key = line.substr(0, equals);
        const auto value = line.substr(equals + 1);
        if (key == "FLANNEL_NETWORK") env.network.v4 = first_cidr(value, Family::v4);
        if (key == "FLANNEL_SUBNET") env.subnet.v4 = first_cidr(value, Family::v4);
        if (key == "FLANNEL_IPV6_NETWORK") env.network.v6 = first_cidr(value, Family::v6);
        if (key == "FLANNEL_IPV6_SUBNET") env.subnet.v6 = first_cidr(value, Family::v6);
        if (key == "FLANNEL_MTU") std::from_chars(value.data(), value.data() + value.size(), env.mtu);
        if (key == "FLANNEL_IPMASQ") env.ip_masq = value == "true";
    }
    return env;
}

Result<> write_subnet_env(const std::string& path, const SubnetEnv& env)
{
    TWILL_TRY(make_parents(path));
    return write_file(path, env.to_string(), 0644);
}

Result<std::optional<SubnetEnv>> read_subnet_env(const std::string& path)
{
    auto text = read_file(path, kMaxBytes);
    if (!text && text.error().code == ENOENT) return std::optional<SubnetEnv>();
    if (!text) return text.error();
    return std::optional(SubnetEnv::parse(*text));
}

} // namespace twill
