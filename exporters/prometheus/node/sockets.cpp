#include "exporters/prometheus/node/sockets.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/handle.h"

namespace tierlog::prometheus {
namespace {

using Socket = Owned<mnl_socket, mnl_socket_close>;

constexpr int kListen = 10, kClose = 7;
constexpr std::size_t kBuffer = 64 * 1024;

IpAddr address_of(std::uint8_t family, const __be32* words) {
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), words, 16);
  static constexpr std::array<std::uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (family == AF_INET) return IpAddr::v4(ntohl(words[0]));
  if (std::memcmp(bytes.data(), kMapped.data(), kMapped.size()) == 0) return IpAddr::v4(ntohl(words[3]));
  return IpAddr::v6(bytes);
}

struct Reading {
  SocketCounts* counts;
  int protocol;
};

int on_socket(const nlmsghdr* message, void* data) {
  const auto& reading = *static_cast<Reading*>(data);
  if (mnl_nlmsg_get_payload_len(message) < sizeof(inet_diag_msg)) return MNL_CB_OK;
  const auto* socket = static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(message));
  if (reading.protocol == IPPROTO_UDP) {
    ++reading.counts->udp;
    return MNL_CB_OK;
  }
  const unsigned state = socket->idiag_state;
  if (state >= 1 && state <= kTcpStates.size()) ++reading.counts->tcp[state - 1];
  if (state == kListen || state == kClose || socket->id.idiag_dport == 0) return MNL_CB_OK;
  ++reading.counts
        ->remotes[{address_of(socket->idiag_family, socket->id.idiag_dst), ntohs(socket->id.idiag_dport)}];
  return MNL_CB_OK;
}

Result<void> dump(mnl_socket* netlink, int family, int protocol, SocketCounts& counts) {
  std::vector<char> buffer(kBuffer);
  nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  auto* asked = static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(request, sizeof(inet_diag_req_v2)));
  asked->sdiag_family = static_cast<std::uint8_t>(family);
  asked->sdiag_protocol = static_cast<std::uint8_t>(protocol);
  asked->idiag_states = (1U << 12) - 1;  // what ss -a asks for
  const auto failed = [&] { return fail(Error::from_errno(errno, "list", "sockets")); };
  if (mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0) return failed();
  Reading reading{&counts, protocol};
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(netlink, buffer.data(), buffer.size());
    if (size < 0) return failed();
    const int more = mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0,
                                mnl_socket_get_portid(netlink), on_socket, &reading);
    if (more == MNL_CB_STOP) return {};
    if (more == MNL_CB_ERROR && errno != ENOENT) return failed();  // ENOENT: this kernel has no such family
    if (more == MNL_CB_ERROR) return {};
  }
}

}  // namespace

Result<SocketCounts> count_sockets() {
  const Socket netlink(mnl_socket_open(NETLINK_SOCK_DIAG));
  if (!netlink || mnl_socket_bind(netlink.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return fail(Error::from_errno(errno, "open", "sock_diag"));
  SocketCounts counts;
  for (const int family : {AF_INET, AF_INET6})
    for (const int protocol : {IPPROTO_TCP, IPPROTO_UDP})
      TL_TRY(dump(netlink.get(), family, protocol, counts));
  return counts;
}

}  // namespace tierlog::prometheus
