#include "tests/e2e/datagrams.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "base/handle.h"
#include "lab/socket_address.h"

namespace tierlog::testing {
using namespace std::chrono_literals;
namespace {

Fd receiver(Family family, std::uint16_t port) {
  Fd socket(::socket(family == Family::V4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  const int bytes = 64 << 20, on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  if (family == Family::V6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  const lab::SocketAddress any(IpAddr{family, {}}, port);
  if (::bind(socket.get(), any.get(), any.size()) != 0) return {};
  return socket;
}

void count(int socket, std::atomic<std::uint64_t>& into) {
  constexpr std::size_t kBatch = 64;
  static std::array<std::array<char, 16>, kBatch> buffers;
  std::array<iovec, kBatch> parts{};
  std::array<mmsghdr, kBatch> messages{};
  for (std::size_t i = 0; i < kBatch; ++i) {
    parts[i] = {buffers[i].data(), buffers[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  while (true) {
    const int got = ::recvmmsg(socket, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (got <= 0) return;
    into += static_cast<std::uint64_t>(got);
  }
}

}  // namespace

int receive_datagrams(Datagrams& traffic) {
  std::vector<std::pair<Fd, std::atomic<std::uint64_t>*>> sockets;
  for (const Family family : {Family::V4, Family::V6}) {
    sockets.emplace_back(receiver(family, kAllowed), &traffic.allowed_received);
    sockets.emplace_back(receiver(family, kDenied), &traffic.denied_received);
  }
  for (const auto& [socket, into] : sockets)
    if (!socket) return 1;
  traffic.ready = true;
  while (true) {
    for (const auto& [socket, into] : sockets) count(socket.get(), *into);
    std::this_thread::sleep_for(1ms);
  }
}

int send_datagrams(Datagrams& traffic, const std::vector<IpAddr>& to) {
  std::vector<std::array<Fd, 2>> sockets;
  for (const IpAddr& address : to) {
    std::array<Fd, 2> pair;
    for (const std::size_t denied : {std::size_t{0}, std::size_t{1}}) {
      pair[denied] = Fd(::socket(address.family == Family::V4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
      const lab::SocketAddress peer(address, denied == 0 ? kAllowed : kDenied);
      if (::connect(pair[denied].get(), peer.get(), peer.size()) != 0) return 1;
    }
    sockets.push_back(std::move(pair));
  }
  while (!traffic.stop) {
    traffic.paused = traffic.pause.load();
    if (traffic.paused) {
      std::this_thread::sleep_for(1ms);
      continue;
    }
    for (int burst = 0; burst < 8; ++burst)
      for (const auto& pair : sockets) {
        if (::send(pair[0].get(), "a", 1, 0) == 1) ++traffic.allowed_sent;
        if (::send(pair[1].get(), "d", 1, 0) == 1) ++traffic.denied_sent;
      }
    if (!traffic.fast) std::this_thread::sleep_for(400us);
  }
  return 0;
}

int flood(const std::atomic<bool>& stop, const IpAddr& to, const std::vector<std::uint16_t>& ports,
          std::atomic<std::uint64_t>& sent) {
  constexpr std::size_t kBatch = 64;
  std::vector<Fd> sockets;
  for (const std::uint16_t port : ports) {
    sockets.emplace_back(::socket(to.family == Family::V4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
    const lab::SocketAddress peer(to, port);
    if (::connect(sockets.back().get(), peer.get(), peer.size()) != 0) return 1;
  }
  char byte = 'f';
  iovec part{&byte, 1};
  std::array<mmsghdr, kBatch> messages{};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
  }
  while (!stop)
    for (const Fd& socket : sockets) {
      const int done = ::sendmmsg(socket.get(), messages.data(), kBatch, 0);
      if (done > 0) sent += static_cast<std::uint64_t>(done);
    }
  return 0;
}

int send_one(const IpAddr& to, std::uint16_t port) {
  const Fd socket(::socket(to.family == Family::V4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
  const lab::SocketAddress peer(to, port);
  return ::sendto(socket.get(), "p", 1, 0, peer.get(), peer.size()) == 1 ? 0 : 1;
}

}  // namespace tierlog::testing
