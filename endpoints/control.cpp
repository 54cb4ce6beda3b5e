#include "endpoints/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/handle.h"

namespace tierlog::endpoints {
namespace {

using Clock = std::chrono::steady_clock;

// Nothing the daemon says is longer; whoever sends more is no daemon.
constexpr std::size_t kLongestAnswer = std::size_t{256} << 20;

Error unavailable(const std::string& path, int number, std::string_view operation) {
  Error error = Error::from_errno(number, operation, path);
  error.code = ErrorCode::Unavailable;
  return error.in("tierlogd does not answer");
}

Result<Fd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::InvalidArgument, "socket path " + path + " is too long; expected at most " +
                                                std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno(errno, "open a socket for", path));
  // A Unix socket connects at once or waits while the listener's queue is full; SO_SNDTIMEO bounds that.
  const timeval patience{5, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(unavailable(path, errno, "connect"));
  }
  return socket;
}

Result<void> send_line(const Fd& socket, const std::string& path, const std::string& line) {
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t size = ::send(socket.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(unavailable(path, errno, "send"));
    sent += static_cast<std::size_t>(size);
  }
  return {};
}

// Waits for more, at most until `end`.
Result<void> wait_for_more(const Fd& socket, const std::string& path, Clock::time_point end) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd wanted{socket.get(), POLLIN, 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30)));
    if (ready > 0) return {};
    if (ready == 0) return fail(unavailable(path, ETIMEDOUT, "wait for an answer on"));
    if (errno != EINTR) return fail(unavailable(path, errno, "poll"));
  }
}

Result<std::string> read_line(const Fd& socket, const std::string& path, Clock::time_point end) {
  std::string line;
  std::array<char, 65536> buffer{};
  while (line.size() < kLongestAnswer) {
    TL_TRY(wait_for_more(socket, path, end));
    const ssize_t size = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(unavailable(path, errno, "receive"));
    if (size == 0) return fail(unavailable(path, ECONNRESET, "receive"));
    const std::string_view part(buffer.data(), static_cast<std::size_t>(size));
    const auto newline = part.find('\n');
    line.append(part.substr(0, newline));
    if (newline != std::string_view::npos) return line;
  }
  return fail(ErrorCode::Corrupt, "the answer on " + path + " has no end");
}

ErrorCode code_of(const std::string& name) {
  if (name == "invalid") return ErrorCode::InvalidArgument;
  if (name == "not-found") return ErrorCode::NotFound;
  if (name == "unavailable") return ErrorCode::Unavailable;
  return ErrorCode::Refused;
}

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

Result<nlohmann::json> call(const std::string& socket_path, const nlohmann::json& request,
                            std::chrono::milliseconds timeout) {
  const auto end = Clock::now() + timeout;
  nlohmann::json message = request;
  message["v"] = 1;
  TL_ASSIGN(const Fd socket, connect_to(socket_path));
  using Replace = nlohmann::json::error_handler_t;
  TL_TRY(send_line(socket, socket_path, message.dump(-1, ' ', false, Replace::replace) + "\n"));
  TL_ASSIGN(const std::string line, read_line(socket, socket_path, end));
  auto answer = nlohmann::json::parse(line, nullptr, false);
  const auto ok = answer.is_object() ? answer.find("ok") : answer.end();
  if (!answer.is_object() || ok == answer.end() || !ok->is_boolean()) {
    return fail(ErrorCode::Corrupt,
                "the answer on " + socket_path + " is not tierlogd's: " + line.substr(0, 200));
  }
  if (ok->get<bool>()) return answer;
  return fail(code_of(text_of(answer, "code")), text_of(answer, "error"));
}

}  // namespace tierlog::endpoints
