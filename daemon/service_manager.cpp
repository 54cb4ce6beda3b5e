#include "daemon/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace tierlog::daemon {
namespace {

std::string take(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  ::unsetenv(name);
  return text;
}

std::optional<std::int64_t> number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value <= 0) return std::nullopt;
  return value;
}

}  // namespace

ServiceManager ServiceManager::from_environment() {
  ServiceManager manager;
  manager.address_ = take("NOTIFY_SOCKET");
  const auto interval = number(take("WATCHDOG_USEC"));
  const std::string pid = take("WATCHDOG_PID");
  if (manager.address_.empty() || manager.address_.size() >= sizeof(sockaddr_un::sun_path)) return manager;
  manager.socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (interval && (pid.empty() || pid == std::to_string(::getpid())))
    manager.every_ = std::chrono::microseconds(*interval) / 2;
  return manager;
}

// Whoever asked to be told may be gone; that is no reason to fail.
void ServiceManager::send(const std::string& message) const {
  if (!socket_) return;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());
  if (to.sun_path[0] == '@') to.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  static_cast<void>(::sendto(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&to), size));
}

void ServiceManager::starting(const std::string& status) {
  if (told_ == status) return;
  told_ = status;
  send("STATUS=" + status);
}

void ServiceManager::ready(const std::string& status) {
  if (ready_ && told_ == status) return;
  told_ = status;
  send((ready_ ? "STATUS=" : "READY=1\nSTATUS=") + status);
  ready_ = true;
}

void ServiceManager::stopping() {
  send("STOPPING=1\nSTATUS=stopping, the rules stay in the kernel");
}

void ServiceManager::alive(Nanoseconds now) {
  if (!every_ || now < next_) return;
  next_ = now + *every_;
  send("WATCHDOG=1");
}

}  // namespace tierlog::daemon
