// tests/exporters/ack_server.h - a Forward receiver on loopback that behaves as the test says.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/handle.h"
#include "base/net_types.h"

namespace tierlog::exporters::fluentbit::testing {

struct Received {
  std::string message;  // as it came
  std::string chunk;    // its option
};

// What the receiver does with one message: bytes to answer, then whether it closes the connection.
struct Answer {
  std::string bytes = {};
  bool close = false;
  bool in_single_bytes = false;
};

std::string ack_of(const std::string& chunk);  // {"ack": chunk}

class AckServer {
 public:
  using Behaviour = std::function<Answer(const Received&)>;

  // `close_after`: closes each connection after that many received bytes, whatever they are.
  explicit AckServer(Behaviour behaviour, Family family = Family::V4,
                     std::optional<std::size_t> close_after = std::nullopt);
  ~AckServer();

  std::uint16_t port() const { return port_; }
  int connections() const { return connections_; }
  std::vector<Received> received() const;
  // Waits until `count` connections are closed on this side.
  void wait_until_closed(int count) const;

 private:
  void serve();
  void talk(int socket);
  bool answer(int socket, const Received& message);

  Behaviour behaviour_;
  std::optional<std::size_t> close_after_;
  std::uint16_t port_ = 0;  // before the listener, whose making sets it
  Fd listener_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connections_ = 0;
  std::atomic<int> closed_ = 0;
  mutable std::mutex mutex_;
  std::vector<Received> received_;
  std::thread thread_;
};

// A loopback listener; `backlog` as listen(2) takes it.
Fd listen_on_loopback(Family family, int backlog, std::uint16_t& port);

}  // namespace tierlog::exporters::fluentbit::testing
