#include "dataplane/nftables/watch.h"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace tierlog::dataplane::nftables {

Result<std::unique_ptr<TableWatch>> TableWatch::open(std::uint32_t own_port) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return fail(Error::from_errno(errno, "open", "netlink socket (nftables changes)"));
  // One replacement of ours tells thousands of objects; what does not fit looks like somebody else's change.
  constexpr int kReceiveBytes = 16 << 20;
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes, sizeof kReceiveBytes) < 0)
    return fail(Error::from_errno(errno, "enlarge the buffer of", "netlink socket (nftables changes)"));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  const int group = NFNLGRP_NFTABLES;
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      ::setsockopt(socket.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
    return fail(Error::from_errno(errno, "listen to", "nftables changes"));
  return std::unique_ptr<TableWatch>(new TableWatch(std::move(socket), own_port));
}

bool TableWatch::foreign_change() {
  constexpr int kNewGeneration = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
  std::array<char, 64 * 1024> buffer{};
  bool foreign = false;
  while (true) {
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == ENOBUFS) {
      foreign = true;
      continue;
    }
    if (got <= 0) return foreign;
    int length = static_cast<int>(got);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(message, length);
         message = mnl_nlmsg_next(message, &length))
      foreign = foreign || (message->nlmsg_type == kNewGeneration && message->nlmsg_pid != own_port_);
  }
}

}  // namespace tierlog::dataplane::nftables
