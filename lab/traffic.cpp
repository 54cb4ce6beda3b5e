#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/handle.h"
#include "lab/lab.h"
#include "lab/socket_address.h"

namespace tierlog::lab {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

Attempt from_errno(int number) {
  switch (number) {
    case 0:
      return Attempt::Connected;
    case ECONNREFUSED:
    case ECONNRESET:
      return Attempt::Refused;
    case ETIMEDOUT:
      return Attempt::TimedOut;
    default:
      return Attempt::Unreachable;
  }
}

// True when the socket is ready before `end`.
bool wait_until(int socket, short events, Clock::time_point end) {
  pollfd wanted{socket, events, 0};
  for (;;) {
    const auto left = std::chrono::duration_cast<Milliseconds>(end - Clock::now()).count();
    const int ready = ::poll(&wanted, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

int pending_error(int socket) {
  int number = 0;
  socklen_t size = sizeof number;
  ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &number, &size);
  return number;
}

bool bind_from(int socket, const Sender& from, Family family) {
  if (!from.address && from.port == 0) return true;
  const IpAddr any{family, {}};
  const SocketAddress local(from.address.value_or(any), from.port);
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  return ::bind(socket, local.get(), local.size()) == 0;
}

// Errors that ICMP reports (unreachable, prohibited) reach the socket at once instead of being waited out.
void hear_errors(int socket, Family family) {
  const int on = 1;
  if (family == Family::V4) {
    ::setsockopt(socket, IPPROTO_IP, IP_RECVERR, &on, sizeof on);
  } else {
    ::setsockopt(socket, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
  }
}

std::uint32_t random_number() {
  std::uint32_t number = 0;
  static_cast<void>(::getrandom(&number, sizeof number, 0));
  return number;
}

std::uint16_t checksum(const void* data, std::size_t size) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    std::uint16_t word = 0;
    std::memcpy(&word, bytes + i, sizeof word);
    sum += word;
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

struct Echo {
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  std::uint16_t checksum = 0;
  std::uint16_t id = 0;
  std::uint16_t sequence = 0;
  std::uint32_t data = 0;
};

// A raw IPv4 socket delivers the IP header too.
bool is_reply(const std::uint8_t* packet, std::size_t size, Family family, const Echo& sent) {
  const std::size_t skipped = family == Family::V4 && size > 0 ? std::size_t{4} * (packet[0] & 0x0f) : 0;
  if (size < skipped + sizeof(Echo)) return false;
  Echo got;
  std::memcpy(&got, packet + skipped, sizeof got);
  const std::uint8_t reply = family == Family::V4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
  return got.type == reply && got.id == sent.id && got.data == sent.data;
}

}  // namespace

std::string_view name(Attempt attempt) {
  switch (attempt) {
    case Attempt::Connected:
      return "connected";
    case Attempt::Refused:
      return "refused";
    case Attempt::TimedOut:
      return "timed out";
    case Attempt::Unreachable:
      return "unreachable";
  }
  return "unknown";
}

Attempt try_tcp(const IpAddr& to, std::uint16_t port, Milliseconds timeout, const Sender& from) {
  const SocketAddress peer(to, port);
  const auto end = Clock::now() + timeout;
  const Fd socket(::socket(peer.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket || !bind_from(socket.get(), from, to.family)) return Attempt::Unreachable;
  hear_errors(socket.get(), to.family);
  if (::connect(socket.get(), peer.get(), peer.size()) == 0) return Attempt::Connected;
  if (errno != EINPROGRESS) return from_errno(errno);
  if (!wait_until(socket.get(), POLLOUT, end)) return Attempt::TimedOut;
  return from_errno(pending_error(socket.get()));
}

Attempt try_udp(const IpAddr& to, std::uint16_t port, Milliseconds timeout, const Sender& from) {
  const SocketAddress peer(to, port);
  const auto end = Clock::now() + timeout;
  const Fd socket(::socket(peer.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket || !bind_from(socket.get(), from, to.family)) return Attempt::Unreachable;
  hear_errors(socket.get(), to.family);
  if (::connect(socket.get(), peer.get(), peer.size()) != 0) return from_errno(errno);
  const std::uint32_t sent = random_number();
  if (::send(socket.get(), &sent, sizeof sent, 0) != sizeof sent) return from_errno(errno);
  while (wait_until(socket.get(), POLLIN, end)) {
    std::uint32_t got = 0;
    const ssize_t size = ::recv(socket.get(), &got, sizeof got, MSG_DONTWAIT);
    if (size < 0 && errno != EAGAIN) return from_errno(errno);
    if (size == sizeof got && got == sent) return Attempt::Connected;
  }
  return Attempt::TimedOut;
}

Attempt try_ping(const IpAddr& to, Milliseconds timeout, const Sender& from) {
  const SocketAddress peer(to, 0);
  const auto end = Clock::now() + timeout;
  const bool v4 = to.family == Family::V4;
  const Fd socket(::socket(peer.family(), SOCK_RAW | SOCK_CLOEXEC, v4 ? +IPPROTO_ICMP : +IPPROTO_ICMPV6));
  if (!socket || !bind_from(socket.get(), {from.address, 0, 0}, to.family)) return Attempt::Unreachable;
  hear_errors(socket.get(), to.family);
  if (::connect(socket.get(), peer.get(), peer.size()) != 0) return from_errno(errno);
  // A new id each time: the kernel follows pings of the same id as one connection.
  Echo request;
  request.type = v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
  request.code = from.icmp_code;
  request.id = static_cast<std::uint16_t>(random_number());
  request.data = random_number();
  if (v4) request.checksum = checksum(&request, sizeof request);
  if (::send(socket.get(), &request, sizeof request, 0) != sizeof request) return from_errno(errno);
  while (wait_until(socket.get(), POLLIN, end)) {
    std::array<std::uint8_t, 2048> packet{};
    const ssize_t size = ::recv(socket.get(), packet.data(), packet.size(), MSG_DONTWAIT);
    if (size < 0 && errno != EAGAIN) return from_errno(errno);
    if (size > 0 && is_reply(packet.data(), static_cast<std::size_t>(size), to.family, request)) {
      return Attempt::Connected;
    }
  }
  return Attempt::TimedOut;
}

}  // namespace tierlog::lab
