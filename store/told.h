// store/told.h - what the records have told so far of what the kernel still counts.
//
//   logger/ --[ToldChanges, with the records of the same transaction]--> store/flow_store.h --[Told]-->
//   logger/
//
// A restarted daemon goes on from here: what is in a record is never told again, what the kernel counted
// since then is a difference like any other.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "base/time.h"

namespace tierlog::store {

struct Amounts {
  std::uint64_t packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0;

  bool operator==(const Amounts&) const = default;
};

// One reporter's view of a connection; rule None: this side gave no verdict.
struct ToldSide {
  RuleId rule{};
  Amounts amounts;

  bool operator==(const ToldSide&) const = default;
};

// An open connection, from its real client to its real server.
struct ToldConnection {
  std::int64_t handle = 0;  // names it among the open ones
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::uint8_t icmp_type = 0;
  std::uint8_t icmp_code = 0;
  std::uint16_t icmp_id = 0;
  std::uint32_t conntrack_id = 0;  // 0: not known yet
  WallTime started{};
  WallTime told_until{};  // end of its last record
  ToldSide egress, ingress;

  bool operator==(const ToldConnection&) const = default;
};

// The kernel's entry of a denied flow; rule to port name it there.
struct ToldDenied {
  std::int64_t handle = 0;  // names it here: rows are written in its order, so what is new stands together
  RuleId rule{};
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = 0;
  std::uint16_t port_or_icmp = 0;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  WallTime last_packet{};
  bool alone = false;  // as dataplane/events.h has it

  bool operator==(const ToldDenied&) const = default;
};

struct Told {
  std::vector<ToldConnection> connections;
  std::vector<ToldDenied> denied;
  WallTime until{};  // end of the newest record; the epoch: there is none
};

struct ToldChanges {
  std::vector<ToldConnection> connections;  // as they stand now
  std::vector<std::int64_t> ended;          // handles
  std::vector<ToldDenied> denied;
  std::vector<std::int64_t> forgotten;  // handles: the kernel has no such entry any more

  bool empty() const { return connections.empty() && ended.empty() && denied.empty() && forgotten.empty(); }
};

}  // namespace tierlog::store
