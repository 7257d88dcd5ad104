// SPDX-License-Identifier: Apache-2.0
// The private namespace of bpf_fixture.hpp, and what is needed to be allowed one.
#include <bpf/btf.h>
#include <fcntl.h>
#include <net/if.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>

#include "tests/support/bpf_fixture.hpp"

namespace twill::test {
namespace {

struct FreeSocket {
    void operator()(nl_sock* sock) const { nl_socket_free(sock); }
};
struct PutLink {
    void operator()(rtnl_link* link) const { rtnl_link_put(link); }
};
struct PutRoute {
    void operator()(rtnl_route* route) const { rtnl_route_put(route); }
};
struct PutNeigh {
    void operator()(rtnl_neigh* neigh) const { rtnl_neigh_put(neigh); }
};
struct PutAddr {
    void operator()(nl_addr* addr) const { nl_addr_put(addr); }
};

using Socket = std::unique_ptr<nl_sock, FreeSocket>;
using Address = std::unique_ptr<nl_addr, PutAddr>;

Result<Socket> connected()
{
    Socket sock(nl_socket_alloc());
    if (!sock) return Error{ENOMEM, "netlink socket"};
    if (const int rc = nl_connect(sock.get(), NETLINK_ROUTE); rc < 0) return Error{EIO, nl_geterror(rc)};
    return sock;
}

Address address(const Ip& ip)
{
    return Address(nl_addr_build(ip.is_v4() ? AF_INET : AF_INET6, ip.network(), ip.network_size()));
}

/// net.<family>.conf.<interface>.<name> of the private namespace.
Result<> set(const char* family, const std::string& interface, const char* name, int value)
{
    const std::string path = std::string("/proc/sys/net/") + family + "/conf/" + interface + "/" + name;
    std::ofstream file(path);
    file << value << std::flush;
    if (file) return Ok{};
    const int code = errno;
    return Error{code, "write " + path};
}

/// Both ends.
Result<> set_up(const std::string& name)
{
    TWILL_TRY_AS(sock, connected());
    for (const std::string& end : {name, name + "p"}) {
        const std::unique_ptr<rtnl_link, PutLink> which(rtnl_link_alloc());
        const std::unique_ptr<rtnl_link, PutLink> change(rtnl_link_alloc());
        if (!which || !change) return Error{ENOMEM, "interface " + end};
        rtnl_link_set_ifindex(which.get(), static_cast<int>(if_nametoindex(end.c_str())));
        rtnl_link_set_flags(change.get(), IFF_UP);
        const int rc = rtnl_link_change(sock.get(), which.get(), change.get(), 0);
        if (rc < 0) return Error{EIO, "set " + end + " up: " + nl_geterror(rc)};
    }
    return Ok{};
}

Result<> make_veth(const std::string& name, const Mac& mac)
{
    TWILL_TRY_AS(sock, connected());
    const std::unique_ptr<rtnl_link, PutLink> link(rtnl_link_veth_alloc());
    const Address addr(nl_addr_build(AF_LLC, mac.bytes.data(), mac.bytes.size()));
    if (!link || !addr) return Error{ENOMEM, "veth " + name};
    rtnl_link_set_name(link.get(), name.c_str());
    rtnl_link_set_addr(link.get(), addr.get());
    rtnl_link* peer = rtnl_link_veth_get_peer(link.get());
    rtnl_link_set_name(peer, (name + "p").c_str());
    rtnl_link_put(peer);
    const int rc = rtnl_link_add(sock.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL);
    if (rc < 0) return Error{EIO, "add veth " + name + ": " + nl_geterror(rc)};
    return Ok{};
}

} // namespace

std::string missing_for_bpf()
{
    if (geteuid() != 0) return "root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)";
    LIBBPF_OPTS(bpf_map_create_opts, opts);
    const int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "tw_probe", 4, 4, 1, &opts);
    if (fd < 0) return std::string("the right to make BPF maps: ") + std::strerror(-fd);
    close(fd);
    return "";
}

bool kernel_has(const char* function, const char* module)
{
    btf* base = btf__load_vmlinux_btf();
    if (libbpf_get_error(base) != 0) return false;
    bool found = btf__find_by_name_kind(base, function, BTF_KIND_FUNC) > 0;
    if (btf* split = btf__load_module_btf(module, base); libbpf_get_error(split) == 0) {
        found = found || btf__find_by_name_kind(split, function, BTF_KIND_FUNC) > 0;
        btf__free(split);
    }
    btf__free(base);
    return found;
}

bool kernel_has_helper(int helper)
{
    return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, static_cast<bpf_func_id>(helper), nullptr) == 1;
}

bool kernel_encapsulates()
{
    // An unknown flag is refused first, with EINVAL; then a length of 4096, with EFAULT.
    const bpf_insn program[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .src_reg = 0, .off = 0, .imm = 0x1000},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .src_reg = 0, .off = 0, .imm = BPF_ADJ_ROOM_MAC},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4, .src_reg = 0, .off = 0, .imm = BPF_F_ADJ_ROOM_ENCAP_L2_ETH},
        {.code = BPF_JMP | BPF_CALL, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = BPF_FUNC_skb_adjust_room},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    };
    const int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tw_probe", "GPL", program, std::size(program), nullptr);
    if (fd < 0) return true;
    std::array<unsigned char, 64> frame{};
    frame[12] = 0x08;
    frame[14] = 0x45;
    LIBBPF_OPTS(bpf_test_run_opts, opts);
    opts.data_in = frame.data();
    opts.data_size_in = frame.size();
    const int rc = bpf_prog_test_run_opts(fd, &opts);
    close(fd);
    return rc != 0 || static_cast<int>(opts.retval) != -EINVAL;
}

Result<std::uint32_t> private_interface(const std::string& name, const Mac& mac)
{
    static bool moved = false;
    static std::map<std::string, std::uint32_t> known;
    if (!moved && unshare(CLONE_NEWNET) != 0) {
        const int code = errno;
        return Error{code, "unshare network namespace"};
    }
    moved = true;
    if (const auto it = known.find(name); it != known.end()) return it->second;
    TWILL_TRY(make_veth(name, mac));
    const unsigned index = if_nametoindex(name.c_str());
    if (index == 0) return Error{ENODEV, "interface " + name};
    known[name] = index;
    return index;
}

Result<> private_route(const std::string& interface, const Cidr& on_link)
{
    TWILL_TRY(set_up(interface));
    TWILL_TRY(set(on_link.family() == Family::v4 ? "ipv4" : "ipv6", interface, "forwarding", 1));
    TWILL_TRY_AS(sock, connected());
    const Address dst = address(on_link.address());
    const std::unique_ptr<rtnl_route, PutRoute> route(rtnl_route_alloc());
    rtnl_nexthop* hop = rtnl_route_nh_alloc();
    if (!dst || !route || hop == nullptr) return Error{ENOMEM, "route on " + interface};
    nl_addr_set_prefixlen(dst.get(), static_cast<int>(on_link.bits()));
    rtnl_route_nh_set_ifindex(hop, static_cast<int>(if_nametoindex(interface.c_str())));
    rtnl_route_set_dst(route.get(), dst.get());
    rtnl_route_set_scope(route.get(), RT_SCOPE_LINK);
    rtnl_route_add_nexthop(route.get(), hop); // owns it now
    const int rc = rtnl_route_add(sock.get(), route.get(), NLM_F_CREATE | NLM_F_REPLACE);
    if (rc < 0) return Error{EIO, "route on " + interface + ": " + nl_geterror(rc)};
    return Ok{};
}

Result<> private_neighbour(const std::string& interface, const Ip& neighbour, const Mac& mac)
{
    TWILL_TRY_AS(sock, connected());
    const Address dst = address(neighbour);
    const Address lladdr(nl_addr_build(AF_LLC, mac.bytes.data(), mac.bytes.size()));
    const std::unique_ptr<rtnl_neigh, PutNeigh> entry(rtnl_neigh_alloc());
    if (!dst || !lladdr || !entry) return Error{ENOMEM, "neighbour on " + interface};
    rtnl_neigh_set_ifindex(entry.get(), static_cast<int>(if_nametoindex(interface.c_str())));
    rtnl_neigh_set_dst(entry.get(), dst.get());
    rtnl_neigh_set_lladdr(entry.get(), lladdr.get());
    rtnl_neigh_set_state(entry.get(), NUD_PERMANENT);
    const int rc = rtnl_neigh_add(sock.get(), entry.get(), NLM_F_CREATE | NLM_F_REPLACE);
    if (rc < 0) return Error{EIO, "neighbour on " + interface + ": " + nl_geterror(rc)};
    return Ok{};
}

Result<> private_quiet_up(const std::string& interface)
{
    for (const std::string& end : {interface, interface + "p"}) TWILL_TRY(set("ipv6", end, "disable_ipv6", 1));
    return set_up(interface);
}

} // namespace twill::test
