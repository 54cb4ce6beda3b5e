// What systemd hears, from a socket in its place.
#include "daemon/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace tierlog::daemon {
namespace {

// Listens on an abstract address of its own.
class Listener {
 public:
  Listener() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name_.data() + 1, name_.size() - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  }
  const std::string& name() const { return name_; }
  std::string heard() const {
    std::array<char, 512> text{};
    const ssize_t size = ::recv(socket_.get(), text.data(), text.size(), 0);
    return size < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(size));
  }

 private:
  const std::string name_ = "@tierlog-notify-" + std::to_string(::getpid());
  Fd socket_;
};

TEST(ServiceManager, ReadyIsToldOnceAndTheLineWhenItChanges) {
  const Listener systemd;
  ::setenv("NOTIFY_SOCKET", systemd.name().c_str(), 1);
  ServiceManager manager = ServiceManager::from_environment();
  EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr) << "not for children";
  manager.starting("no good policy set");
  manager.starting("no good policy set");
  manager.ready("3 policies");
  manager.ready("3 policies");
  manager.ready("4 policies");
  manager.alive(std::chrono::hours(1));
  manager.stopping();
  EXPECT_EQ(systemd.heard(), "STATUS=no good policy set");
  EXPECT_EQ(systemd.heard(), "READY=1\nSTATUS=3 policies");
  EXPECT_EQ(systemd.heard(), "STATUS=4 policies");
  EXPECT_EQ(systemd.heard(), "STOPPING=1\nSTATUS=stopping, the rules stay in the kernel");
  EXPECT_EQ(systemd.heard(), "");
}

TEST(ServiceManager, TheWatchdogHearsTheLoopTwicePerInterval) {
  const Listener systemd;
  ::setenv("NOTIFY_SOCKET", systemd.name().c_str(), 1);
  ::setenv("WATCHDOG_USEC", "10000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  ServiceManager manager = ServiceManager::from_environment();
  using std::chrono::seconds;
  const auto told = [&](Nanoseconds now) {
    manager.alive(now);
    return systemd.heard();
  };
  EXPECT_EQ(told(seconds(100)), "WATCHDOG=1");
  EXPECT_EQ(told(seconds(104)), "");
  EXPECT_EQ(told(seconds(105)), "WATCHDOG=1");
}

TEST(ServiceManager, SomebodyElsesWatchdogHearsNothing) {
  const Listener systemd;
  ::setenv("NOTIFY_SOCKET", systemd.name().c_str(), 1);
  ::setenv("WATCHDOG_USEC", "10000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  ServiceManager manager = ServiceManager::from_environment();
  manager.alive(std::chrono::hours(1));
  EXPECT_EQ(systemd.heard(), "");
}

TEST(ServiceManager, WithoutOneNothingHappens) {
  ::unsetenv("NOTIFY_SOCKET");
  ServiceManager manager = ServiceManager::from_environment();
  manager.ready("x");
  ::setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
  ServiceManager gone = ServiceManager::from_environment();
  gone.ready("x");
}

}  // namespace
}  // namespace tierlog::daemon
