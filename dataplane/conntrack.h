// dataplane/conntrack.h - the kernel's connection table: what ended, what is there, whose labels it has.
//
//   kernel --DESTROY events--> [Conntrack] --Connection--> logger/connections.h (bytes of connections)
//          <--labels, removal--            --dump-->       daemon/ (living connections after a change)
//
// Of one network namespace: the one of the thread that opens it. Only ends are subscribed to: the beginnings
// come by NFLOG, and a NEW event would cost the packet path. Nobody needs to be woken per event; the owner
// drains on a timer. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "dataplane/connection.h"
#include "dataplane/connection_source.h"
#include "dataplane/conntrack_settings.h"

struct nlmsghdr;

namespace tierlog::dataplane {

struct ConntrackOptions {
  int receive_bytes = 64 << 20;  // of the socket's buffer: what may end between two drains
};

enum class LabelResult : std::uint8_t {
  Written,
  NoSpace,  // the entry is older than the first rule that uses labels: it never can have one (ENOSPC)
  Gone,     // there is no such entry
};

class Conntrack final : public ConnectionSource {
 public:
  // Sets the switches (conntrack_settings.h); `changed()` tells which stood otherwise and which cannot be
  // set, which is no error here: rules are enforced without them. Errors: Refused without CAP_NET_ADMIN.
  static Result<std::unique_ptr<Conntrack>> open(const ConntrackOptions& options = {});

  const std::vector<SettingChange>& changed() const { return changed_; }
  // Looks at the switches again and sets back those that somebody changed: these are returned.
  std::vector<SettingChange> verify() { return set_conntrack_switches(); }

  // Appends the connections that ended, without blocking, at most about `limit`. False: no more now.
  Result<bool> drain(std::vector<Connection>& ended, std::size_t limit) override;
  const ConntrackLoss& loss() const override { return loss_; }
  // Asks the kernel how many packets it dropped because its table was full: since this object was opened.
  // They never came to any rule.
  Result<void> count_full() override;
  int fd() const override { return events_.get(); }  // borrowed, to wait on

  // All entries, IPv4 and IPv6. A dump that the kernel says was disturbed is begun anew, so `each` is called
  // after the last one; while the table is resized an entry may still be missing or come twice.
  Result<void> dump(const std::function<void(const Connection&)>& each) override;

  // The entry whose answers look like this: what an answer's source address was before it was translated.
  Result<std::optional<Connection>> find_by_reply(const ConnectionTuple& reply) override;
  // Replaces words 0, 1 and 3 of the label of the entry that has this original tuple now. The kernel does
  // not compare ids here: where the tuple came again since the dump, the new entry gets the labels.
  Result<LabelResult> set_labels(const Connection& connection, const ConnectionLabels& labels);
  // Deletes this very entry (by its id); false when it is gone already. Mind that the next packet of either
  // side makes a new entry, in its own direction.
  Result<bool> remove(const Connection& connection);

 private:
  Conntrack(Fd events, Fd requests);
  Result<void> send(const std::function<void(nlmsghdr*)>& fill, std::uint16_t type, std::uint16_t flags,
                    std::uint8_t family);
  Result<int> request(const std::function<void(nlmsghdr*)>& fill, std::uint16_t type, std::uint8_t family);
  Result<std::uint64_t> dropped_ever();
  Result<bool> dump_once(std::vector<Connection>& into);
  void take(std::span<const std::uint8_t> datagram, std::vector<Connection>& ended);

  Fd events_, requests_;
  std::vector<std::uint8_t> buffer_;
  std::uint32_t sequence_ = 0;
  std::vector<SettingChange> changed_;
  ConntrackLoss loss_;
  std::uint64_t dropped_before_ = 0;
};

}  // namespace tierlog::dataplane
