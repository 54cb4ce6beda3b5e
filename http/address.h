// http/address.h - "127.0.0.1:9477" as people write it -> a listening socket.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/handle.h"
#include "base/net_types.h"
#include "base/result.h"

namespace tierlog::http {

struct Address {
  IpAddr ip{};
  std::uint16_t port = 0;
  bool operator==(const Address&) const = default;
};

// ADDRESS:PORT or [ADDRESS]:PORT; "localhost" stands for 127.0.0.1. Errors: InvalidArgument with what was
// expected.
Result<Address> parse_address(std::string_view text);
bool is_loopback(const IpAddr& ip);
std::string to_string(const Address& address);
// Bound and listening, not blocking. Errors: Io ("listen on 127.0.0.1:9477: EADDRINUSE: …").
Result<Fd> listen_on(const Address& address);
// Of a listening socket.
std::uint16_t port_of(int socket);
// The Host of a request is no name that some page's owner could have pointed here: an address, or localhost.
bool is_own_host(std::string_view host);

}  // namespace tierlog::http
