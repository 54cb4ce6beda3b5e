// dataplane/nftables/socket.h - one netlink socket to netfilter: transactions and dumps.
//
// The table is owned by the socket that made it, so the back end keeps one for life; readers of foreign
// state may open others.
#pragma once

#include <libmnl/libmnl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "dataplane/nftables/constants.h"

namespace tierlog::dataplane::nftables {

// Messages of one transaction, each with what it is about, so that a refusal names the object.
class Batch {
 public:
  // `describe` says what the message does: "add chain r2a (platform/tenant-01/p[2] 2a)".
  // `fill` puts attributes after the headers. Flags on top of NLM_F_REQUEST.
  void add(std::uint16_t type, std::uint16_t flags, std::string describe,
           const std::function<void(nlmsghdr*)>& fill);
  // Room for so many messages more, of the size that most have.
  void reserve(std::size_t messages);
  // Which table the messages from here on are about: at first `inet tierlog`.
  void set_table(std::uint8_t family, const char* table = kTable) {
    family_ = family;
    table_ = table;
  }
  std::uint8_t family() const { return family_; }
  const char* table() const { return table_; }
  bool empty() const { return offsets_.empty(); }
  std::size_t messages() const { return offsets_.size(); }
  std::size_t bytes() const { return bytes_.size(); }

 private:
  friend class NetfilterSocket;
  std::vector<char> bytes_;
  std::vector<std::size_t> offsets_;
  std::vector<std::string> descriptions_;
  std::uint8_t family_ = NFPROTO_INET;
  const char* table_ = kTable;
};

class NetfilterSocket {
 public:
  // Large buffers are asked for (a whole batch is one send). Errors: Refused without CAP_NET_ADMIN.
  static Result<NetfilterSocket> open();

  std::uint32_t port() const { return mnl_socket_get_portid(socket_.get()); }
  // All or nothing. The error names the first refused message: "add rule …: ENOENT: …".
  Result<void> commit(Batch& batch);
  // Of all batches so far.
  std::uint64_t sent_bytes() const { return sent_bytes_; }
  // Calls `each` for every answer to a dump request about that family. `type` is a message of nf_tables.
  Result<void> dump(std::uint16_t type, std::uint8_t family, const std::function<void(nlmsghdr*)>& fill,
                    const std::function<void(const nlmsghdr*)>& each);

 private:
  using Socket = Owned<mnl_socket, mnl_socket_close>;
  explicit NetfilterSocket(Socket socket) : socket_(std::move(socket)) {}
  Result<void> read_answers(const Batch& batch, std::uint32_t first_sequence);

  Socket socket_;
  std::vector<char> answers_;  // read into; made once, because fresh pages cost more than a small commit
  std::uint32_t sequence_ = 1;
  std::uint64_t sent_bytes_ = 0;
};

}  // namespace tierlog::dataplane::nftables
