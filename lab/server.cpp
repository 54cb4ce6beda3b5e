#include "lab/server.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <map>
#include <string>

#include "base/handle.h"
#include "lab/socket_address.h"

namespace tierlog::lab {
namespace {

class EchoServer {
 public:
  Result<void> listen(const std::vector<std::uint16_t>& ports);
  [[noreturn]] void serve();

 private:
  enum class Role : std::uint8_t { Listener, Connection, Datagrams };
  struct Socket {
    Fd fd;
    Role role;
  };

  Result<void> open_port(Family family, std::uint16_t port, int type);
  bool watch(Fd fd, Role role);
  void accept_from(int listener);
  void echo_stream(int connection);
  static void echo_datagram(int socket);

  Fd epoll_;
  std::map<int, Socket> sockets_;
};

// A datagram's answer has to come from the address that was asked: the outside host has all of them.
void want_destination(int socket, Family family) {
  const int on = 1;
  if (family == Family::V4) {
    ::setsockopt(socket, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  } else {
    ::setsockopt(socket, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
  }
}

bool EchoServer::watch(Fd fd, Role role) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return false;
  const int number = fd.get();
  sockets_.insert_or_assign(number, Socket{std::move(fd), role});
  return true;
}

Result<void> EchoServer::open_port(Family family, std::uint16_t port, int type) {
  const IpAddr any{family, {}};
  const SocketAddress address(any, port);
  const std::string what = (type == SOCK_STREAM ? "tcp port " : "udp port ") + std::to_string(port);
  Fd socket(::socket(address.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno(errno, "open", what));
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == Family::V6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(socket.get(), address.get(), address.size()) != 0) {
    return fail(Error::from_errno(errno, "bind", what));
  }
  if (type == SOCK_DGRAM) {
    want_destination(socket.get(), family);
  } else if (::listen(socket.get(), SOMAXCONN) != 0) {
    return fail(Error::from_errno(errno, "listen on", what));
  }
  if (!watch(std::move(socket), type == SOCK_STREAM ? Role::Listener : Role::Datagrams)) {
    return fail(Error::from_errno(errno, "watch", what));
  }
  return {};
}

Result<void> EchoServer::listen(const std::vector<std::uint16_t>& ports) {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return fail(Error::from_errno(errno, "epoll_create"));
  for (const std::uint16_t port : ports) {
    for (const Family family : {Family::V4, Family::V6}) {
      TL_TRY(open_port(family, port, SOCK_STREAM));
      TL_TRY(open_port(family, port, SOCK_DGRAM));
    }
  }
  return {};
}

void EchoServer::accept_from(int listener) {
  Fd connection(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (connection) {
    watch(std::move(connection), Role::Connection);
  } else if (errno == EMFILE || errno == ENFILE) {
    ::usleep(10'000);  // the listener stays readable; until somebody leaves there is nothing to do
  }
}

void EchoServer::echo_stream(int connection) {
  std::array<char, 16384> buffer{};
  const ssize_t size = ::read(connection, buffer.data(), buffer.size());
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0 || ::send(connection, buffer.data(), static_cast<std::size_t>(size), MSG_NOSIGNAL) < 0) {
    sockets_.erase(connection);
  }
}

void EchoServer::echo_datagram(int socket) {
  std::array<char, 65536> buffer{};
  alignas(cmsghdr) std::array<char, 256> control{};
  sockaddr_storage peer{};
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_name = &peer;
  message.msg_namelen = sizeof peer;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket, &message, 0);
  if (size < 0) return;
  part.iov_len = static_cast<std::size_t>(size);
  // The packet information that came in says, sent back, which address to answer from. The interface is
  // left to the routes.
  for (cmsghdr* info = CMSG_FIRSTHDR(&message); info != nullptr; info = CMSG_NXTHDR(&message, info)) {
    if (info->cmsg_level == IPPROTO_IP && info->cmsg_type == IP_PKTINFO) {
      auto* v4 = reinterpret_cast<in_pktinfo*>(CMSG_DATA(info));
      v4->ipi_ifindex = 0;
      v4->ipi_spec_dst = v4->ipi_addr;
    } else if (info->cmsg_level == IPPROTO_IPV6 && info->cmsg_type == IPV6_PKTINFO) {
      reinterpret_cast<in6_pktinfo*>(CMSG_DATA(info))->ipi6_ifindex = 0;
    }
  }
  message.msg_flags = 0;
  ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

void EchoServer::serve() {
  std::array<epoll_event, 64> events{};
  for (;;) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const auto found = sockets_.find(events[static_cast<std::size_t>(i)].data.fd);
      if (found == sockets_.end()) continue;
      switch (found->second.role) {
        case Role::Listener:
          accept_from(found->first);
          break;
        case Role::Connection:
          echo_stream(found->first);
          break;
        case Role::Datagrams:
          echo_datagram(found->first);
          break;
      }
    }
  }
}

void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Result<ProcessId> start_server(const Place& place, const std::vector<std::uint16_t>& ports) {
  return start_detached(place, [&](Reporter& reporter) {
    ::prctl(PR_SET_NAME, "lab-echo");
    raise_file_limit();
    EchoServer server;
    const auto listening = server.listen(ports);
    if (!listening) {
      reporter.error(listening.error());
      return 1;
    }
    reporter.close();
    server.serve();
  });
}

}  // namespace tierlog::lab
