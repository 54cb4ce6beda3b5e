// daemon/control_server.h - the daemon's Unix socket: one line of JSON in, one line out (docs/control.md).
//
// Never blocks: the owner's loop polls the descriptors and hands readiness in. A peer that is slow, too
// long or not allowed costs its own connection only. Owners have room that readers cannot take; where it
// is full, the connection goes that has waited longest for its peer.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <functional>
#include <list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "base/time.h"

namespace tierlog::daemon {

enum class Trust : std::uint8_t { Reader, Owner };  // group tierlog; root and the daemon's own user

class ControlServer {
 public:
  // The answer to one request; an error becomes {"ok":false,…}.
  using Handler = std::function<Result<nlohmann::json>(const nlohmann::json& request, Trust trust)>;

  // Replaces a stale socket file. Mode 0660, group tierlog where it exists; its folder is made.
  static Result<ControlServer> listen(const std::string& path, Handler handler);
  ControlServer(ControlServer&&) = default;
  ControlServer& operator=(ControlServer&&) = default;
  ~ControlServer();

  void add_descriptors(std::vector<pollfd>& into) const;
  void serve(const std::vector<pollfd>& ready, Nanoseconds now);

 private:
  struct Connection {
    Fd fd;
    Trust trust{};
    Nanoseconds since{};  // when it came, or was answered
    std::string request;
    std::string reply;  // what of it is not sent
  };
  ControlServer(Fd socket, std::string path, Handler handler);
  void accept_all(Nanoseconds now);
  void make_room(Trust trust);
  // Each is true when the connection can go.
  bool finished(Connection& connection, Nanoseconds now);
  static bool sent(Connection& connection);
  std::string answer(const Connection& connection);
  Result<nlohmann::json> handle(const nlohmann::json& request, Trust trust);

  Fd socket_;
  std::string path_;
  Handler handler_;
  std::list<Connection> connections_;
};

}  // namespace tierlog::daemon
