// dataplane/connection_source.h - who knows the living connections and their bytes: conntrack, or the flow
// map of the eBPF programs.
//
//   kernel --[ConnectionSource: conntrack.h | ebpf/connections.h]--> Connection --> daemon/recorder.h
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "dataplane/connection.h"

namespace tierlog::dataplane {

// What was lost on the way to us, cumulative.
struct ConntrackLoss {
  std::uint64_t overruns = 0;     // ENOBUFS: an unknown number of ends was not told
  std::uint64_t undecodable = 0;  // messages that made no sense
  std::uint64_t table_full = 0;   // packets or connections the table had no room for, see count_full
};

class ConnectionSource {
 public:
  virtual ~ConnectionSource() = default;
  // Appends the connections that ended, without blocking, at most about `limit`. False: no more now.
  virtual Result<bool> drain(std::vector<Connection>& ended, std::size_t limit) = 0;
  // All of them. One that begins or ends meanwhile may be missing or come twice.
  virtual Result<void> dump(const std::function<void(const Connection&)>& each) = 0;
  // The one whose answers look like this, where destinations are translated between the two. None: there is no
  // such connection, or this source sees nothing translated.
  virtual Result<std::optional<Connection>> find_by_reply(const ConnectionTuple& reply) = 0;
  virtual const ConntrackLoss& loss() const = 0;
  // Asks the kernel what its table had no room for.
  virtual Result<void> count_full() = 0;
  virtual int fd() const = 0;  // borrowed, to wait on; -1: ends are there when somebody looks
};

}  // namespace tierlog::dataplane
