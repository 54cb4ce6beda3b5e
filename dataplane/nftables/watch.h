// dataplane/nftables/watch.h - hears when another program changes nftables.
//
//   kernel --notifications--> [TableWatch] --somebody else's--> Daemon: verify and repair at once
//
// For kernels before 6.9, where nothing but looking protects our tables: each transaction ends with a
// message that names the socket it came from.
#pragma once

#include <cstdint>
#include <memory>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::dataplane::nftables {

class TableWatch {
 public:
  // `own_port`: netlink port of the socket whose changes are no news. Errors: Refused without CAP_NET_ADMIN.
  static Result<std::unique_ptr<TableWatch>> open(std::uint32_t own_port);

  int fd() const { return socket_.get(); }
  // Reads all that waits: true when somebody else changed something, or when too much happened to tell.
  bool foreign_change();

 private:
  TableWatch(Fd socket, std::uint32_t own_port) : socket_(std::move(socket)), own_port_(own_port) {}

  Fd socket_;
  std::uint32_t own_port_;
};

}  // namespace tierlog::dataplane::nftables
