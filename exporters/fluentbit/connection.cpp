#include "exporters/fluentbit/connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "exporters/fluentbit/tls_session.h"

namespace tierlog::exporters::fluentbit {
namespace {

using AddressList = Owned<addrinfo, ::freeaddrinfo>;
using std::chrono::milliseconds;

// How long a stop may go unnoticed.
constexpr milliseconds kSlice{100};
// Sealed bytes in memory at a time.
constexpr std::size_t kTlsPiece = 64 * 1024;

tl::unexpected<Failure> unavailable(FailureCause cause, int number, std::string_view operation,
                                    std::string_view object = {}) {
  return fail(cause, Error::from_errno(number, operation, object));
}

tl::unexpected<Failure> closed(std::string_view what) {
  return fail(FailureCause::Closed, std::string(what) + ": the receiver closed the connection");
}

Outcome<AddressList> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) return fail(FailureCause::Connect, "look up " + host + ": " + ::gai_strerror(code));
  return AddressList(found);
}

void set(int socket, int level, int option, int value) {
  static_cast<void>(::setsockopt(socket, level, option, &value, sizeof(value)));
}

}  // namespace

std::string url_of(const ForwardOptions& options) {
  const std::string scheme = options.tls.on ? "tls" : options.socket.empty() ? "tcp" : "unix";
  if (!options.socket.empty()) return scheme + "://" + options.socket;
  const bool is_v6 = options.host.find(':') != std::string::npos;
  return scheme + "://" + (is_v6 ? "[" + options.host + "]" : options.host) + ":" + std::to_string(options.port);
}

Connection::Connection(Fd socket, const std::atomic<bool>* stop) : socket_(std::move(socket)), stop_(stop) {}
Connection::Connection(Connection&&) noexcept = default;
Connection& Connection::operator=(Connection&&) noexcept = default;
Connection::~Connection() = default;

// Waits until `events` (or an error) is there on the socket.
Outcome<void> Connection::wait_for(short events, Deadline deadline, std::string_view what, FailureCause cause) const {
  while (true) {
    if (stop_ != nullptr && *stop_) return fail(cause, std::string(what) + ": the export is being stopped");
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto slice = std::clamp<std::int64_t>(left.count(), 0, stop_ == nullptr ? INT32_MAX : kSlice.count());
    pollfd entry{socket_.get(), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(slice));
    if (ready > 0) return {};
    if (ready == 0 && left.count() <= slice) return fail(cause, std::string(what) + ": no answer in time");
    if (ready < 0 && errno != EINTR) return unavailable(cause, errno, "poll");
  }
}

Outcome<Connection> Connection::open_unix(const std::string& path, const std::atomic<bool>* stop) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return fail(FailureCause::Connect, "connect " + path + ": the path is longer than a socket's may be");
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return unavailable(FailureCause::Connect, errno, "socket");
  // Either at once or not: a full queue is EAGAIN.
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return unavailable(FailureCause::Connect, errno, "connect", path);
  return Connection(std::move(socket), stop);
}

Outcome<Connection> Connection::open_tcp(const ForwardOptions& options, Deadline deadline,
                                         const std::atomic<bool>* stop) {
  TL_ASSIGN(const AddressList addresses, resolve(options.host, options.port));
  Failure last{FailureCause::Connect, {ErrorCode::Unavailable, "connect: no address", 0}};
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Fd socket(::socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket) return unavailable(FailureCause::Connect, errno, "socket");
    // A chunk is written as one piece and then waited for; Nagle's delay would only be added to each.
    set(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    // A receiver that vanished while nothing was sent is noticed.
    set(socket.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket.get(), IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(socket.get(), IPPROTO_TCP, TCP_KEEPINTVL, 15);
    const int code = ::connect(socket.get(), address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    Connection connection(std::move(socket), stop);
    if (code == 0) return connection;
    int error = code;
    if (code == EINPROGRESS) {
      const auto ready = connection.wait_for(POLLOUT, deadline, "connect", FailureCause::Connect);
      if (!ready) {
        last = ready.error();
        continue;
      }
      socklen_t size = sizeof(error);
      if (::getsockopt(connection.socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
      if (error == 0) return connection;
    }
    last = unavailable(FailureCause::Connect, error, "connect").value();
  }
  return tl::unexpected<Failure>(std::move(last));
}

Outcome<Connection> Connection::open(const ForwardOptions& options, const std::atomic<bool>* stop) {
  const Deadline deadline = std::chrono::steady_clock::now() + options.timeout;
  auto connection =
      options.socket.empty() ? open_tcp(options, deadline, stop) : open_unix(options.socket, stop);
  if (connection && options.tls.on) TL_TRY(connection->start_tls(options, deadline));
  return connection;
}

Outcome<void> Connection::start_tls(const ForwardOptions& options, Deadline deadline) {
  auto session = TlsSession::open(options.tls, options.socket.empty() ? options.host : "localhost");
  if (!session) return fail(FailureCause::Tls, session.error());
  std::array<char, 16'384> buffer{};
  while (true) {
    const auto done = (*session)->shake();
    // An alert of ours says why, to the other side.
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto sent = send_raw((*session)->take_outgoing(), std::max(left, milliseconds(1)));
    if (!done) return fail(FailureCause::Tls, done.error());
    if (!sent) return fail(FailureCause::Tls, sent.error().error.in("TLS"));
    if (*done) break;
    const auto got = receive_raw(buffer, deadline, "TLS");
    if (!got) return fail(FailureCause::Tls, got.error().error);
    (*session)->feed({buffer.data(), *got});
  }
  tls_ = std::move(*session);
  return {};
}

Outcome<void> Connection::send_raw(std::string_view bytes, milliseconds timeout) {
  Deadline deadline = std::chrono::steady_clock::now() + timeout;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
      deadline = std::chrono::steady_clock::now() + timeout;
    } else if (errno == EAGAIN) {
      TL_TRY(wait_for(POLLOUT, deadline, "send", FailureCause::NoAnswer));
    } else if (errno != EINTR) {
      return unavailable(FailureCause::Send, errno, "send");
    }
  }
  return {};
}

Outcome<void> Connection::send_all(std::string_view bytes, milliseconds timeout) {
  if (tls_ == nullptr) return send_raw(bytes, timeout);
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kTlsPiece);
    bytes.remove_prefix(piece.size());
    if (const auto sealed = tls_->write(piece); !sealed) return fail(FailureCause::Tls, sealed.error());
    TL_TRY(send_raw(tls_->take_outgoing(), timeout));
  }
  return {};
}

Outcome<std::size_t> Connection::receive_raw(std::span<char> into, Deadline deadline, std::string_view what) {
  while (true) {
    TL_TRY(wait_for(POLLIN, deadline, what, FailureCause::NoAnswer));
    const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), 0);
    // A receiver with Nagle's delay sends the next acknowledgement when TCP's own of this one has come. A Unix socket
    // has no such option, and no such delay.
    if (got > 0) set(socket_.get(), IPPROTO_TCP, TCP_QUICKACK, 1);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) return closed(what);
    if (errno != EINTR && errno != EAGAIN) return unavailable(FailureCause::Closed, errno, "recv");
  }
}

Outcome<std::size_t> Connection::receive(std::span<char> into, Deadline deadline, std::string_view what) {
  if (tls_ == nullptr) return receive_raw(into, deadline, what);
  std::array<char, 16'384> sealed{};
  while (true) {
    const auto plain = tls_->read(into);
    if (!plain) return fail(FailureCause::Tls, plain.error());
    if (*plain && **plain > 0) return **plain;
    if (*plain) return closed(what);
    TL_ASSIGN(const std::size_t got, receive_raw(sealed, deadline, what));
    tls_->feed({sealed.data(), got});
  }
}

bool Connection::is_quiet() {
  pollfd entry{socket_.get(), POLLIN | POLLRDHUP, 0};
  if (::poll(&entry, 1, 0) == 0) return true;
  if (tls_ == nullptr) return false;
  // TLS itself has things to say: tickets, new keys.
  std::array<char, 16'384> sealed{};
  const ssize_t got = ::recv(socket_.get(), sealed.data(), sealed.size(), MSG_DONTWAIT);
  if (got <= 0) return false;
  tls_->feed({sealed.data(), static_cast<std::size_t>(got)});
  std::array<char, 16> plain{};
  const auto read = tls_->read(plain);
  return read && !*read;
}

}  // namespace tierlog::exporters::fluentbit
