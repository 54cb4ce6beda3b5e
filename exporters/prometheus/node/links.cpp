#include "exporters/prometheus/node/links.h"

#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <set>

#include "base/handle.h"

namespace tierlog::prometheus {
namespace {

using Socket = Owned<mnl_socket, mnl_socket_close>;

constexpr std::size_t kBuffer = 64 * 1024;

struct Field {
  const char* name;
  __u64 rtnl_link_stats64::*value;
};
using S = rtnl_link_stats64;
constexpr Field kFields[] = {{"rx_packets", &S::rx_packets},
                             {"tx_packets", &S::tx_packets},
                             {"rx_bytes", &S::rx_bytes},
                             {"tx_bytes", &S::tx_bytes},
                             {"rx_errors", &S::rx_errors},
                             {"tx_errors", &S::tx_errors},
                             {"rx_dropped", &S::rx_dropped},
                             {"tx_dropped", &S::tx_dropped},
                             {"multicast", &S::multicast},
                             {"collisions", &S::collisions},
                             {"rx_length_errors", &S::rx_length_errors},
                             {"rx_over_errors", &S::rx_over_errors},
                             {"rx_crc_errors", &S::rx_crc_errors},
                             {"rx_frame_errors", &S::rx_frame_errors},
                             {"rx_fifo_errors", &S::rx_fifo_errors},
                             {"rx_missed_errors", &S::rx_missed_errors},
                             {"tx_aborted_errors", &S::tx_aborted_errors},
                             {"tx_carrier_errors", &S::tx_carrier_errors},
                             {"tx_fifo_errors", &S::tx_fifo_errors},
                             {"tx_heartbeat_errors", &S::tx_heartbeat_errors},
                             {"tx_window_errors", &S::tx_window_errors},
                             {"rx_compressed", &S::rx_compressed},
                             {"tx_compressed", &S::tx_compressed},
                             {"rx_nohandler", &S::rx_nohandler}};

struct Found {
  std::vector<Link> links;
  std::set<int> routes;  // indexes
};

using Attributes = std::vector<const nlattr*>;

int collect(const nlattr* attribute, void* list) {
  static_cast<Attributes*>(list)->push_back(attribute);
  return MNL_CB_OK;
}

int on_link(const nlmsghdr* message, void* data) {
  if (message->nlmsg_type != RTM_NEWLINK) return MNL_CB_OK;
  const auto* header = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  Link link;
  link.index = header->ifi_index;
  link.loopback = (header->ifi_flags & IFF_LOOPBACK) != 0;
  Attributes found;
  if (mnl_attr_parse(message, sizeof(ifinfomsg), collect, &found) < 0) return MNL_CB_ERROR;
  S stats{};
  for (const nlattr* attribute : found) {
    if (mnl_attr_get_type(attribute) == IFLA_IFNAME)
      link.name = mnl_attr_get_str(attribute);
    else if (mnl_attr_get_type(attribute) == IFLA_STATS64)
      std::memcpy(&stats, mnl_attr_get_payload(attribute),
                  std::min<std::size_t>(sizeof stats, mnl_attr_get_payload_len(attribute)));
  }
  for (const Field& field : kFields) link.statistics.emplace_back(field.name, stats.*field.value);
  link.rx_packets = stats.rx_packets;
  link.rx_bytes = stats.rx_bytes;
  link.tx_packets = stats.tx_packets;
  link.tx_bytes = stats.tx_bytes;
  link.rx_dropped = stats.rx_dropped;
  link.tx_dropped = stats.tx_dropped;
  static_cast<Found*>(data)->links.push_back(std::move(link));
  return MNL_CB_OK;
}

int on_route(const nlmsghdr* message, void* data) {
  if (message->nlmsg_type != RTM_NEWROUTE) return MNL_CB_OK;
  const auto* route = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  if (route->rtm_dst_len != 0 || route->rtm_table != RT_TABLE_MAIN || route->rtm_type != RTN_UNICAST)
    return MNL_CB_OK;
  auto& routes = static_cast<Found*>(data)->routes;
  Attributes found;
  if (mnl_attr_parse(message, sizeof(rtmsg), collect, &found) < 0) return MNL_CB_ERROR;
  for (const nlattr* attribute : found) {
    if (mnl_attr_get_type(attribute) == RTA_OIF) routes.insert(static_cast<int>(mnl_attr_get_u32(attribute)));
    if (mnl_attr_get_type(attribute) != RTA_MULTIPATH) continue;
    const auto* at = static_cast<const char*>(mnl_attr_get_payload(attribute));
    std::size_t left = mnl_attr_get_payload_len(attribute);
    while (left >= sizeof(rtnexthop)) {
      rtnexthop hop{};
      std::memcpy(&hop, at, sizeof hop);
      if (hop.rtnh_len < sizeof hop || hop.rtnh_len > left) break;
      routes.insert(hop.rtnh_ifindex);
      const std::size_t step = std::min<std::size_t>(left, RTNH_ALIGN(hop.rtnh_len));
      at += step;
      left -= step;
    }
  }
  return MNL_CB_OK;
}

Result<void> dump(mnl_socket* netlink, std::uint16_t type, int family, std::size_t header_size, mnl_cb_t take,
                  Found& found) {
  std::vector<char> buffer(kBuffer);
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = type;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  // The family is the first byte of both headers.
  *static_cast<std::uint8_t*>(mnl_nlmsg_put_extra_header(request, header_size)) =
      static_cast<std::uint8_t>(family);
  const auto failed = [&] { return fail(Error::from_errno(errno, "list", "interfaces and routes")); };
  if (mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0) return failed();
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(netlink, buffer.data(), buffer.size());
    if (size < 0) return failed();
    const int more = mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0,
                                mnl_socket_get_portid(netlink), take, &found);
    if (more == MNL_CB_STOP) return {};
    if (more == MNL_CB_ERROR) return failed();
  }
}

bool ask_driver(int socket, const std::string& interface, void* data) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  request.ifr_data = static_cast<char*>(data);
  return ::ioctl(socket, SIOCETHTOOL, &request) == 0;
}

}  // namespace

Result<std::vector<Link>> read_links() {
  const Socket netlink(mnl_socket_open(NETLINK_ROUTE));
  if (!netlink || mnl_socket_bind(netlink.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return fail(Error::from_errno(errno, "open", "rtnetlink"));
  Found found;
  TL_TRY(dump(netlink.get(), RTM_GETLINK, AF_UNSPEC, sizeof(ifinfomsg), on_link, found));
  for (const int family : {AF_INET, AF_INET6})
    TL_TRY(dump(netlink.get(), RTM_GETROUTE, family, sizeof(rtmsg), on_route, found));
  for (Link& link : found.links) link.default_route = found.routes.contains(link.index);
  return std::move(found.links);
}

std::vector<std::pair<std::string, std::uint64_t>> driver_statistics(const std::string& interface) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return {};
  // The structures end in as many words as the driver has names: room for them behind each.
  std::vector<std::uint32_t> info(sizeof(ethtool_sset_info) / 4 + 1);
  auto* asked = reinterpret_cast<ethtool_sset_info*>(info.data());
  asked->cmd = ETHTOOL_GSSET_INFO;
  asked->sset_mask = 1ULL << ETH_SS_STATS;
  if (!ask_driver(socket.get(), interface, asked) || asked->sset_mask == 0) return {};
  std::uint32_t count = 0;
  std::memcpy(&count, asked->data, sizeof count);
  constexpr std::uint32_t kMost = 1024;
  count = std::min(count, kMost);
  if (count == 0) return {};
  std::vector<std::uint64_t> name_room((sizeof(ethtool_gstrings) + std::size_t{count} * ETH_GSTRING_LEN) / 8 +
                                       1);
  auto* names = reinterpret_cast<ethtool_gstrings*>(name_room.data());
  names->cmd = ETHTOOL_GSTRINGS;
  names->string_set = ETH_SS_STATS;
  names->len = count;
  std::vector<std::uint64_t> value_room(sizeof(ethtool_stats) / 8 + 1 + count);
  auto* values = reinterpret_cast<ethtool_stats*>(value_room.data());
  values->cmd = ETHTOOL_GSTATS;
  values->n_stats = count;
  if (!ask_driver(socket.get(), interface, names) || !ask_driver(socket.get(), interface, values)) return {};
  std::vector<std::pair<std::string, std::uint64_t>> found;
  for (std::uint32_t i = 0; i < std::min({count, names->len, values->n_stats}); ++i) {
    const char* name = reinterpret_cast<const char*>(names->data) + std::size_t{i} * ETH_GSTRING_LEN;
    std::string text(name, ::strnlen(name, ETH_GSTRING_LEN));
    while (text.starts_with(' ')) text.erase(0, 1);
    std::uint64_t value = 0;
    std::memcpy(&value, reinterpret_cast<const char*>(values->data) + std::size_t{i} * 8, 8);
    if (!text.empty()) found.emplace_back(std::move(text), value);
  }
  return found;
}

}  // namespace tierlog::prometheus
