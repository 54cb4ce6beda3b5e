// dataplane/nftables/label_watch.h - finds other programs' rules that write connection labels, where our
// rule ids are, and hears when such rules come or go.
//
//   kernel --notifications--> [LabelWatch] --who writes--> Daemon: log, status
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {

// Chains of other tables that write connection labels: "table nat chain x".
Result<std::vector<std::string>> read_foreign_label_writers(NetfilterSocket& socket);

class LabelWatch {
 public:
  // `own_port`: netlink port of the socket whose changes are no news. Errors: Refused without CAP_NET_ADMIN.
  static Result<std::unique_ptr<LabelWatch>> open(std::uint32_t own_port);

  int fd() const { return socket_.get(); }  // borrowed, to poll
  // Reads all that waits. True when others write labels, or not, as they did not before.
  Result<bool> on_readable();
  // As of open() or the last on_readable().
  const std::vector<std::string>& writers() const { return writers_; }

 private:
  LabelWatch(Fd socket, NetfilterSocket dumps, std::uint32_t own_port)
      : socket_(std::move(socket)), dumps_(std::move(dumps)), own_port_(own_port) {}
  bool news();

  Fd socket_;
  NetfilterSocket dumps_;
  std::uint32_t own_port_;
  std::vector<std::string> writers_;
};

}  // namespace tierlog::dataplane::nftables
