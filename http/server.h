// http/server.h - the daemon's HTTP side: listens, reads requests, asks a handler, sends what it answers.
//
//   Prometheus, curl, a web page --GET--> [Server: one thread for all sockets] --> workers --> Handler
//
// It knows nothing of flows or metrics, and reads only: GET and HEAD. One thread (libmicrohttpd, epoll) reads
// and writes all connections, so that slow clients cost nothing but their place; a few workers run the
// handler. Answers that may take long (Handler::Kind::Long) never occupy the last worker: the short ones
// always get through.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::http {

using Parameters = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string path;       // unescaped, without the query: "/api/v1/flows"
  Parameters parameters;  // of the query, unescaped, in their order
  std::string accept;     // header Accept, empty when there is none
};

struct Response {
  int status = 200;
  std::string type = "application/json";
  std::string body;
};

struct Route {
  enum class Cost : std::uint8_t { Short, Long };
  // `prefix` matches itself and everything below it ("/api/v1" and "/api/v1/…"). Called from several threads.
  std::string prefix;
  std::function<Response(const Request&)> answer;
  Cost cost = Cost::Short;
  bool open = false;  // needs no token: probes
};

struct Options {
  std::string listen = "127.0.0.1:9477";  // ADDRESS:PORT, [ADDRESS]:PORT; port 0: any that is free
  std::string certificate, key;           // PEM texts; both empty: no TLS
  std::string token;                      // empty: none is asked for
  unsigned connections = 256;             // at once; further ones wait to be accepted
  unsigned idle_seconds = 15;             // a connection on which nothing moves for so long is closed
};

// {"error": message}: what every refusal looks like.
Response refusal(int status, std::string_view message);

class Server {
 public:
  // Takes the address; nobody is answered yet. Errors: InvalidArgument (the address), Io or Refused (in use).
  static Result<std::unique_ptr<Server>> listen(const Options& options);
  // Starts the threads, with the privileges of the caller. Errors: InvalidArgument (certificate and key), Io.
  Result<void> start(std::vector<Route> routes);
  ~Server();  // requests under way are answered or dropped

  std::uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:9477"
  bool is_loopback() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::http
