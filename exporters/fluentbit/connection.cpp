#include "exporters/fluentbit/connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace tierlog::exporters::fluentbit {
namespace {

using AddressList = Owned<addrinfo, ::freeaddrinfo>;

tl::unexpected<Error> unavailable(int number, std::string_view operation) {
  Error error = Error::from_errno(number, operation);
  error.code = ErrorCode::Unavailable;
  return fail(std::move(error));
}

// Waits until `events` (or an error) is there on `socket`.
Result<void> wait_for(int socket, short events, Deadline deadline, std::string_view what) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd entry{socket, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready > 0) return {};
    if (ready == 0) return fail(ErrorCode::Unavailable, std::string(what) + ": no answer in time");
    if (errno != EINTR) return unavailable(errno, "poll");
  }
}

Result<AddressList> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) return fail(ErrorCode::Unavailable, "look up " + host + ": " + ::gai_strerror(code));
  return AddressList(found);
}

Result<Fd> connect_to(const addrinfo& address, Deadline deadline) {
  Fd socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return unavailable(errno, "socket");
  const int on = 1;
  // A chunk is written as one piece and then waited for; Nagle's delay would only be added to each.
  static_cast<void>(::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return socket;
  if (errno != EINPROGRESS) return unavailable(errno, "connect");
  TL_TRY(wait_for(socket.get(), POLLOUT, deadline, "connect"));
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) return unavailable(error, "connect");
  return socket;
}

}  // namespace

Result<Connection> Connection::open(const std::string& host, std::uint16_t port, Deadline deadline) {
  TL_ASSIGN(const AddressList addresses, resolve(host, port));
  Error last{ErrorCode::Unavailable, "connect: no address", 0};
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Result<Fd> socket = connect_to(*address, deadline);
    if (socket) return Connection(std::move(*socket));
    last = socket.error();
  }
  return fail(std::move(last));
}

Result<void> Connection::send_all(std::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      TL_TRY(wait_for(socket_.get(), POLLOUT, deadline, "send"));
    } else if (errno != EINTR) {
      return unavailable(errno, "send");
    }
  }
  return {};
}

Result<std::size_t> Connection::receive(std::span<char> into, Deadline deadline) {
  while (true) {
    TL_TRY(wait_for(socket_.get(), POLLIN, deadline, "wait for the ack"));
    const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), 0);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) return fail(ErrorCode::Unavailable, "wait for the ack: the receiver closed the connection");
    if (errno != EINTR && errno != EAGAIN) return unavailable(errno, "recv");
  }
}

bool Connection::is_quiet() const {
  pollfd entry{socket_.get(), POLLIN | POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) == 0;
}

}  // namespace tierlog::exporters::fluentbit
