#include "daemon/control_server.h"

#include <fcntl.h>
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
  if (::listen(socket.get(), 64) < 0) return fail(Error::from_errno(errno, "listen on", path));
  return ControlServer(std::move(socket), path, std::move(handler));
}

void ControlServer::add_descriptors(std::vector<pollfd>& into) const {
  into.push_back({socket_.get(), POLLIN, 0});
  for (const Connection& connection : connections_) into.push_back({connection.fd.get(), POLLIN, 0});
}

void ControlServer::serve(const std::vector<pollfd>& ready, Nanoseconds now) {
  const auto is_ready = [&](int fd) {
    return std::any_of(ready.begin(), ready.end(),
                       [fd](const pollfd& entry) { return entry.fd == fd && entry.revents != 0; });
  };
  connections_.remove_if([&](Connection& connection) {
    if (is_ready(connection.fd.get())) return finished(connection);
    return now - connection.since > kPatience;
  });
  if (is_ready(socket_.get())) accept_all(now);
}

void ControlServer::accept_all(Nanoseconds now) {
  while (true) {
    Fd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) return;
    const auto trust = trust_of(fd.get());
    if (!trust || connections_.size() >= kMostConnections) {
      const std::string text = refusal({ErrorCode::Refused,
                                        trust ? "too many connections"
                                              : "only root and members of group tierlog may ask the daemon",
                                        0})
                                   .dump() +
                               "\n";
      static_cast<void>(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL));
      continue;
    }
    connections_.push_back({std::move(fd), *trust, now, {}});
  }
}

bool ControlServer::finished(Connection& connection) {
  std::array<char, 16384> buffer{};
  while (true) {
    const ssize_t got = ::recv(connection.fd.get(), buffer.data(), buffer.size(), 0);
    if (got < 0) return errno != EAGAIN && errno != EINTR;
    if (got == 0) return true;
    connection.request.append(buffer.data(), static_cast<std::size_t>(got));
    if (connection.request.size() > kLongestRequest) return true;
    if (connection.request.find('\n') != std::string::npos) {
      answer(connection);
      return true;
    }
  }
}

json ControlServer::reply_to(const json& request, Trust trust) const {
  try {
    auto handled = handler_(request, trust);
    if (!handled) return refusal(handled.error());
    json reply = std::move(*handled);
    reply["v"] = 1;
    reply["ok"] = true;
    return reply;
  } catch (const json::exception&) {
    // A field of another type than its name says.
    return refusal({ErrorCode::InvalidArgument, "a field of the request has the wrong type; expected those of docs/control.md", 0});
  }
}

void ControlServer::answer(Connection& connection) {
  json reply;
  const json request =
      json::parse(connection.request.substr(0, connection.request.find('\n')), nullptr, false);
  if (!request.is_object() || !request.contains("op") || !request["op"].is_string()) {
    reply = refusal(
        {ErrorCode::InvalidArgument, "this is no request; expected {\"v\":1,\"op\":…} on one line", 0});
  } else if (const auto version = request.find("v"); version == request.end() || *version != 1) {
    reply = refusal({ErrorCode::InvalidArgument, "unknown version of the protocol; expected \"v\":1", 0});
  } else {
    reply = reply_to(request, connection.trust);
  }
  const std::string text = reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  timeval patience{1, 0};
  ::setsockopt(connection.fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  // Answers are small against the socket buffer; a peer that does not read for a second loses its own.
  const int flags = ::fcntl(connection.fd.get(), F_GETFL);
  ::fcntl(connection.fd.get(), F_SETFL, flags & ~O_NONBLOCK);
  std::size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t wrote = ::send(connection.fd.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (wrote <= 0) return;
    sent += static_cast<std::size_t>(wrote);
  }
}

}  // namespace tierlog::daemon
