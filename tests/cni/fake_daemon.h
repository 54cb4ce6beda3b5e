// A socket that answers like tierlogd, in this process.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace tierlog::testing {

class FakeDaemon {
 public:
  FakeDaemon(const std::string& path, std::string answer) : answer_(std::move(answer)) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 8);
    server_ = std::thread([this] { serve(); });
  }
  ~FakeDaemon() {
    ::shutdown(listener_, SHUT_RDWR);
    server_.join();
    ::close(listener_);
  }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  std::vector<nlohmann::json> requests() const {
    const std::lock_guard held(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (int peer = 0; (peer = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0; ::close(peer)) {
      std::string line;
      std::array<char, 4096> buffer{};
      for (ssize_t size = 0;
           line.find('\n') == std::string::npos && (size = ::read(peer, buffer.data(), buffer.size())) > 0;) {
        line.append(buffer.data(), static_cast<std::size_t>(size));
      }
      {
        const std::lock_guard held(mutex_);
        requests_.push_back(nlohmann::json::parse(line, nullptr, false));
      }
      // In two pieces, as a stream may be cut anywhere.
      const std::size_t half = answer_.size() / 2;
      ::send(peer, answer_.data(), half, MSG_NOSIGNAL);
      ::send(peer, answer_.data() + half, answer_.size() - half, MSG_NOSIGNAL);
    }
  }

  std::string answer_;
  int listener_ = -1;
  mutable std::mutex mutex_;
  std::vector<nlohmann::json> requests_;
  std::thread server_;
};

}  // namespace tierlog::testing
