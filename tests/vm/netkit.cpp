// SPDX-License-Identifier: Apache-2.0
// tw-netkit NAME l2|l3: makes a netkit pair, for iproute2 before 6.7, which does not know the kind. The kernel names
// the other end. Exit 77: this kernel has no netkit.
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

constexpr unsigned short kNetkitMode = 5; // IFLA_NETKIT_MODE (6.7)
constexpr std::uint32_t kL2 = 0, kL3 = 1;

struct Request {
    nlmsghdr header{};
    ifinfomsg link{};
    char attributes[256]{};

    rtattr* put(unsigned short type, const void* data, std::size_t size)
    {
        auto* attribute = reinterpret_cast<rtattr*>(reinterpret_cast<char*>(this) + NLMSG_ALIGN(header.nlmsg_len));
        attribute->rta_type = type;
        attribute->rta_len = static_cast<unsigned short>(RTA_LENGTH(size));
        if (size != 0) std::memcpy(RTA_DATA(attribute), data, size);
        header.nlmsg_len = NLMSG_ALIGN(header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
        return attribute;
    }
    void close(rtattr* nest)
    {
        nest->rta_len = static_cast<unsigned short>(reinterpret_cast<char*>(this) + header.nlmsg_len -
                                                    reinterpret_cast<char*>(nest));
    }
};

/// 0 or an errno.
int make(std::string_view name, std::uint32_t mode)
{
    Request request;
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(ifinfomsg));
    request.header.nlmsg_type = RTM_NEWLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    (void)request.put(IFLA_IFNAME, name.data(), name.size());
    rtattr* info = request.put(IFLA_LINKINFO, nullptr, 0);
    (void)request.put(IFLA_INFO_KIND, "netkit", 6);
    rtattr* data = request.put(IFLA_INFO_DATA, nullptr, 0);
    (void)request.put(kNetkitMode, &mode, sizeof(mode));
    request.close(data);
    request.close(info);

    const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return errno;
    struct {
        nlmsghdr header;
        nlmsgerr error;
        char rest[512];
    } answer{};
    int code = 0;
    if (::send(fd, &request, request.header.nlmsg_len, 0) < 0 || ::recv(fd, &answer, sizeof(answer), 0) < 0)
        code = errno;
    ::close(fd);
    return code != 0 ? code : -answer.error.error;
}

} // namespace

int main(int argc, char** argv)
{
    const std::string_view mode = argc == 3 ? argv[2] : "";
    if (mode != "l2" && mode != "l3") {
        std::fprintf(stderr, "usage: tw-netkit NAME l2|l3\n");
        return 2;
    }
    const int code = make(argv[1], mode == "l2" ? kL2 : kL3);
    if (code == 0) return 0;
    std::fprintf(stderr, "tw-netkit: %s\n", std::strerror(code));
    return code == EOPNOTSUPP ? 77 : 1;
}
