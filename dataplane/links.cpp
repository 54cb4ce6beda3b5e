#include "dataplane/links.h"

#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

namespace tierlog::dataplane {
namespace {

constexpr std::size_t kMessageBytes = 64 * 1024;

Result<Fd> open_socket(std::uint32_t groups, int flags) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE));
  if (!socket) return fail(Error::from_errno(errno, "open", "netlink socket (routing)"));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return fail(Error::from_errno(errno, "bind", "netlink socket (routing)"));
  return socket;
}

int take_bridge(const nlattr* attribute, void* into) {
  auto* link = static_cast<Link*>(into);
  if (mnl_attr_get_type(attribute) == IFLA_BR_NF_CALL_IPTABLES)
    link->filters_v4 = mnl_attr_get_u8(attribute) != 0;
  if (mnl_attr_get_type(attribute) == IFLA_BR_NF_CALL_IP6TABLES)
    link->filters_v6 = mnl_attr_get_u8(attribute) != 0;
  return MNL_CB_OK;
}

int take_kind(const nlattr* attribute, void* into) {
  auto* link = static_cast<Link*>(into);
  if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
    link->is_bridge = std::strcmp(mnl_attr_get_str(attribute), "bridge") == 0;
  // The kernel writes the kind before the data.
  if (mnl_attr_get_type(attribute) == IFLA_INFO_DATA && link->is_bridge)
    mnl_attr_parse_nested(attribute, take_bridge, into);
  return MNL_CB_OK;
}

int take_link(const nlattr* attribute, void* into) {
  auto* link = static_cast<Link*>(into);
  switch (mnl_attr_get_type(attribute)) {
    case IFLA_IFNAME:
      link->name = mnl_attr_get_str(attribute);
      break;
    case IFLA_MASTER:
      link->master = static_cast<int>(mnl_attr_get_u32(attribute));
      break;
    case IFLA_LINKINFO:
      mnl_attr_parse_nested(attribute, take_kind, into);
      break;
    default:
      break;
  }
  return MNL_CB_OK;
}

}  // namespace

Result<std::unique_ptr<Links>> Links::open() {
  TL_ASSIGN(auto events, open_socket(RTMGRP_LINK, SOCK_NONBLOCK));
  TL_ASSIGN(auto requests, open_socket(0, 0));
  return std::unique_ptr<Links>(new Links(std::move(events), std::move(requests)));
}

bool Links::drain() {
  std::array<char, 16 * 1024> buffer{};
  bool any = false;
  while (true) {
    const ssize_t got = ::recv(events_.get(), buffer.data(), buffer.size(), 0);
    // Too many changes for the buffer are a change as well.
    if (got < 0 && errno != EINTR && errno != ENOBUFS) return any;
    any = true;
  }
}

Result<void> Links::exchange(nlmsghdr* request, const std::string& about,
                             const std::function<void(const nlmsghdr*)>& each) {
  request->nlmsg_seq = ++sequence_;
  if (::send(requests_.get(), request, request->nlmsg_len, 0) < 0)
    return fail(Error::from_errno(errno, "ask for", about));
  std::vector<char> buffer(kMessageBytes);
  while (true) {
    const ssize_t got = ::recv(requests_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "read", about));
    int length = static_cast<int>(got);
    for (auto* answer = reinterpret_cast<nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(answer, length);
         answer = mnl_nlmsg_next(answer, &length)) {
      if (answer->nlmsg_seq != sequence_) continue;
      if (answer->nlmsg_type == NLMSG_DONE) return {};
      if (answer->nlmsg_type == NLMSG_ERROR) {
        const int number = -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(answer))->error;
        if (number == 0) return {};
        Error error = Error::from_errno(number, about);
        error.code = ErrorCode::Refused;
        return fail(std::move(error));
      }
      each(answer);
    }
  }
}

Result<std::vector<Link>> Links::list() {
  std::array<char, 256> buffer{};
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_GETLINK;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg));
  std::vector<Link> links;
  TL_TRY(exchange(request, "list interfaces", [&](const nlmsghdr* answer) {
    if (answer->nlmsg_type != RTM_NEWLINK) return;
    Link link;
    link.index = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(answer))->ifi_index;
    mnl_attr_parse(answer, sizeof(ifinfomsg), take_link, &link);
    links.push_back(std::move(link));
  }));
  return links;
}

Result<void> Links::filter_bridge(const Link& bridge) {
  std::array<char, 512> buffer{};
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = RTM_NEWLINK;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  auto* header = static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg)));
  header->ifi_index = bridge.index;
  nlattr* info = mnl_attr_nest_start(request, IFLA_LINKINFO);
  mnl_attr_put_strz(request, IFLA_INFO_KIND, "bridge");
  nlattr* data = mnl_attr_nest_start(request, IFLA_INFO_DATA);
  mnl_attr_put_u8(request, IFLA_BR_NF_CALL_IPTABLES, 1);
  mnl_attr_put_u8(request, IFLA_BR_NF_CALL_IP6TABLES, 1);
  mnl_attr_nest_end(request, data);
  mnl_attr_nest_end(request, info);
  return exchange(request, "set bridge netfilter of " + bridge.name, [](const nlmsghdr*) {});
}

bool Links::has_bridge_netfilter() {
  return ::access("/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK) == 0;
}

}  // namespace tierlog::dataplane
