// tests/http/client.h - a client that says exactly what a test wants, and nothing by itself.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/handle.h"

namespace tierlog::http::testing_client {

inline Fd connect_to(std::uint16_t port) {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) return Fd();
  return socket;
}

inline bool say(const Fd& socket, const std::string& text) {
  return ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

// Until the other side closes, or nothing comes for so long.
inline std::string hear(const Fd& socket, int wait_ms = 10'000) {
  std::string text;
  char buffer[65536];
  for (;;) {
    pollfd ready{socket.get(), POLLIN, 0};
    if (::poll(&ready, 1, wait_ms) <= 0) return text;
    const ssize_t count = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (count <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
  }
}

struct Answer {
  int status = 0;  // 0: none came
  std::string head, body;
};

inline Answer parse(const std::string& text) {
  const auto end = text.find("\r\n\r\n");
  if (end == std::string::npos || text.size() < 12) return {0, text, ""};
  return {std::atoi(text.substr(9, 3).c_str()), text.substr(0, end), text.substr(end + 4)};
}

// `headers`: whole lines, each with its \r\n.
inline Answer ask(std::uint16_t port, const std::string& target, const std::string& headers = {},
                  const std::string& method = "GET", const std::string& host = "localhost") {
  const Fd socket = connect_to(port);
  if (!socket) return {};
  say(socket,
      method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + headers + "Connection: close\r\n\r\n");
  return parse(hear(socket));
}

}  // namespace tierlog::http::testing_client
