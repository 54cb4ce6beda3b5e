// exporters/fluentbit/tls_session.h - TLS between bytes and bytes; knows no socket.
//
//   Connection --plain--> [TlsSession] --sealed, take_outgoing()--> socket
//   socket --feed()--> [TlsSession] --read()--> Connection
//
// At least TLS 1.2. OpenSSL works on memory, so that deadlines and SIGPIPE stay the connection's matter.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "exporters/options.h"

namespace tierlog::exporters::fluentbit {

class TlsSession {
 public:
  // Reads the files anew: a renewed certificate is used from the next connection on. `host`: what the
  // receiver's certificate must say unless options.server_name is set. Errors: a sentence that names the file.
  static Result<std::unique_ptr<TlsSession>> open(const TlsOptions& options, const std::string& host);
  ~TlsSession();

  // True: the handshake is done. False: send take_outgoing(), feed what comes, call again.
  // Errors: why the receiver is not trusted, or what it said.
  Result<bool> shake();
  Result<void> write(std::string_view plain);
  std::string take_outgoing();
  void feed(std::string_view sealed);
  // Bytes read; nullopt: feed more. 0: the peer said that it is done.
  Result<std::optional<std::size_t>> read(std::span<char> into);

 private:
  struct Impl;
  explicit TlsSession(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::exporters::fluentbit
