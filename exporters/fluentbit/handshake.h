// exporters/fluentbit/handshake.h - HELO, PING, PONG: who both sides are, before any chunk; pure, no socket.
//
//   receiver --HELO {nonce, auth salt}--> make_ping() --PING--> receiver --PONG--> check_pong()
//
// Source: Fluentd's Forward Protocol Specification v1, "Authentication". A key is never sent: both sides show
// that they know it, by SHA-512 over it and what the other side made up. Whoever knows the key must also be
// somebody else: an answer in our own name is our own digest sent back.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace tierlog::exporters::fluentbit {

struct Secrets {
  std::string hostname;  // ours
  std::string shared_key;
  std::string user, password;  // empty: none
};

// SHA-512 of all parts, one after the other, as lower-case hex digits.
std::string sha512_hex(std::initializer_list<std::string_view> parts);

enum class Reading { NeedMore, Done, Wrong };

struct Helo {
  std::string nonce;
  std::string auth_salt;  // empty: no user is asked for
  bool keepalive = true;
};
// `used`: how many bytes of `bytes` the message is.
Reading read_helo(std::string_view bytes, Helo& helo, std::size_t& used);

// Six texts; some receivers read it in one piece only. Errors: InvalidArgument (longer than receivers take; a
// user is asked for and none is set).
Result<std::string> make_ping(const Secrets& secrets, const Helo& helo, const std::string& salt);
std::string make_salt();  // 32 hex digits

struct Pong {
  bool accepted = false;
  std::string reason, hostname, digest;
};
Reading read_pong(std::string_view bytes, Pong& pong, std::size_t& used);
// Errors: why the receiver did not accept us, or why it is not believed.
Result<void> check_pong(const Pong& pong, const Secrets& secrets, const Helo& helo, const std::string& salt);

}  // namespace tierlog::exporters::fluentbit
