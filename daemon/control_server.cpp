#include "daemon/control_server.h"

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

namespace tierlog::daemon {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestRequest = 1 << 20;
constexpr std::size_t kMostConnections = 64;
constexpr std::size_t kMostReaders = 48;
// For a request to be whole, and for its answer to be taken.
constexpr auto kPatience = std::chrono::seconds(5);

std::optional<gid_t> tierlog_group() {
  const group* entry = ::getgrnam("tierlog");
  return entry == nullptr ? std::nullopt : std::optional<gid_t>(entry->gr_gid);
}

// Who may ask at all: root, the daemon's own user, members of group tierlog.
std::optional<Trust> trust_of(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return std::nullopt;
  if (peer.uid == 0 || peer.uid == ::geteuid()) return Trust::Owner;
  const auto wanted = tierlog_group();
  if (!wanted) return std::nullopt;
  if (peer.gid == *wanted) return Trust::Reader;
  std::array<gid_t, 256> groups{};
  size = sizeof groups;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) < 0) return std::nullopt;
  const auto end = groups.begin() + static_cast<std::ptrdiff_t>(size / sizeof(gid_t));
  return std::find(groups.begin(), end, *wanted) == end ? std::nullopt : std::optional(Trust::Reader);
}

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
      return "invalid";
    case ErrorCode::NotFound:
      return "not-found";
    case ErrorCode::Unavailable:
      return "unavailable";
    default:
      return "refused";
  }
}

json refusal(const Error& error) {
  return {{"v", 1}, {"ok", false}, {"code", code_name(error.code)}, {"error", error.message}};
}

std::string line_of(const json& reply) {
  return reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

// A peer that does not take one line loses it.
void tell(const Fd& fd, const json& reply) {
  const std::string text = line_of(reply);
  static_cast<void>(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

}  // namespace

ControlServer::ControlServer(Fd socket, std::string path, Handler handler)
    : socket_(std::move(socket)), path_(std::move(path)), handler_(std::move(handler)) {}

ControlServer::~ControlServer() {
  if (socket_) ::unlink(path_.c_str());
}

Result<ControlServer> ControlServer::listen(const std::string& path, Handler handler) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::InvalidArgument, "socket " + path + ": the path is longer than " +
                                                std::to_string(sizeof address.sun_path - 1) + " bytes");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  ::unlink(path.c_str());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno(errno, "open", path));
  const mode_t old_mask = ::umask(0117);
  const int bound = ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound < 0) return fail(Error::from_errno(bind_errno, "bind", path));
  if (const auto wanted = tierlog_group())
    static_cast<void>(::chown(path.c_str(), static_cast<uid_t>(-1), *wanted));
  if (::listen(socket.get(), SOMAXCONN) < 0) return fail(Error::from_errno(errno, "listen on", path));
  return ControlServer(std::move(socket), path, std::move(handler));
}

void ControlServer::add_descriptors(std::vector<pollfd>& into) const {
  into.push_back({socket_.get(), POLLIN, 0});
  for (const Connection& connection : connections_)
    into.push_back(
        {connection.fd.get(), static_cast<short>(connection.reply.empty() ? POLLIN : POLLOUT), 0});
}

void ControlServer::serve(const std::vector<pollfd>& ready, Nanoseconds now) {
  const auto is_ready = [&](int fd) {
    return std::any_of(ready.begin(), ready.end(),
                       [fd](const pollfd& entry) { return entry.fd == fd && entry.revents != 0; });
  };
  connections_.remove_if([&](Connection& connection) {
    if (is_ready(connection.fd.get()) && finished(connection, now)) return true;
    return now - connection.since > kPatience;
  });
  if (is_ready(socket_.get())) accept_all(now);
}

void ControlServer::accept_all(Nanoseconds now) {
  while (true) {
    Fd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    const auto trust = trust_of(fd.get());
    if (!trust) {
      tell(fd, refusal({ErrorCode::Refused, "only root and members of group tierlog may ask the daemon", 0}));
      continue;
    }
    Connection connection{std::move(fd), *trust, now, {}, {}};
    // Who has asked already needs room only for the end of a long answer.
    if (finished(connection, now)) continue;
    make_room(*trust);
    connections_.push_back(std::move(connection));
  }
}

// The oldest goes, and of readers first.
void ControlServer::make_room(Trust trust) {
  const auto is_reader = [](const Connection& connection) { return connection.trust == Trust::Reader; };
  const auto readers = static_cast<std::size_t>(std::ranges::count_if(connections_, is_reader));
  const bool full = connections_.size() >= kMostConnections;
  if (!full && (trust == Trust::Owner || readers < kMostReaders)) return;
  auto oldest = std::ranges::find_if(connections_, is_reader);
  if (oldest == connections_.end()) oldest = connections_.begin();
  if (oldest->reply.empty())
    tell(oldest->fd, refusal({ErrorCode::Unavailable,
                              "too many connections, and the request of this one is not whole", 0}));
  connections_.erase(oldest);
}

bool ControlServer::finished(Connection& connection, Nanoseconds now) {
  if (!connection.reply.empty()) return sent(connection);
  std::array<char, 16384> buffer{};
  while (true) {
    const ssize_t got = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0) return errno != EAGAIN && errno != EINTR;
    if (got == 0) return true;
    connection.request.append(buffer.data(), static_cast<std::size_t>(got));
    if (connection.request.size() > kLongestRequest) return true;
    if (connection.request.find('\n') == std::string::npos) continue;
    connection.reply = answer(connection);
    connection.since = now;
    return sent(connection);
  }
}

bool ControlServer::sent(Connection& connection) {
  std::size_t size = 0;
  while (size < connection.reply.size()) {
    const ssize_t wrote = ::send(connection.fd.get(), connection.reply.data() + size,
                                 connection.reply.size() - size, MSG_NOSIGNAL);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno != EAGAIN) return true;
    if (wrote <= 0) break;
    size += static_cast<std::size_t>(wrote);
  }
  connection.reply.erase(0, size);
  return connection.reply.empty();
}

std::string ControlServer::answer(const Connection& connection) {
  json reply;
  const json request =
      json::parse(connection.request.substr(0, connection.request.find('\n')), nullptr, false);
  if (!request.is_object() || !request.contains("op") || !request["op"].is_string()) {
    reply = refusal(
        {ErrorCode::InvalidArgument, "this is no request; expected {\"v\":1,\"op\":…} on one line", 0});
  } else if (const auto version = request.find("v"); version == request.end() || *version != 1) {
    reply = refusal({ErrorCode::InvalidArgument, "unknown version of the protocol; expected \"v\":1", 0});
  } else if (auto handled = handle(request, connection.trust)) {
    reply = std::move(*handled);
    reply["v"] = 1;
    reply["ok"] = true;
  } else {
    reply = refusal(handled.error());
  }
  return line_of(reply);
}

// The JSON library throws where a value has another type than is asked for.
Result<json> ControlServer::handle(const json& request, Trust trust) {
  try {
    return handler_(request, trust);
  } catch (const json::exception& error) {
    return fail(ErrorCode::InvalidArgument, std::string("a value of the request has the wrong type: ") + error.what());
  }
}

}  // namespace tierlog::daemon
