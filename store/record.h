// store/record.h - FlowRecord: what one verdict (or a number of equal ones) looks like when it is kept.
//
//   logger/ --[FlowRecord]--> store/flow_store.h --> SQLite --> exporters/, queries
//
// One record per connection, reporter and interval; immutable once written. Field names are the keys of
// the JSON form and the columns of the SQLite views (see docs/records.md); lower-case values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "base/time.h"
#include "policy/labels.h"

namespace tierlog::store {

enum class Reporter : std::uint8_t { Source, Destination };  // "src", "dst"
enum class Verdict : std::uint8_t { Allow, Deny };
enum class PeerKind : std::uint8_t { Pod, Node, NetworkSet, Private, Public };

std::string_view name(Reporter reporter);  // "src", "dst"
std::string_view name(Verdict verdict);    // "allow", "deny"
std::string_view name(PeerKind kind);      // "pod", "node", "networkset", "private", "public"

// Whose address it was at the time of the verdict.
struct Peer {
  IpAddr ip;
  PeerKind kind = PeerKind::Private;
  std::string peer_namespace;  // empty = null
  std::string name;            // pod, node or network set; empty = null
  std::string workload;
  policy::Labels labels;

  bool operator==(const Peer&) const = default;
};

struct LoggedBy {
  std::string policy;  // display
  int rule_index = 0;
  RuleId rule{};
  std::string label;
  std::uint64_t suppressed = 0;

  bool operator==(const LoggedBy&) const = default;
};

struct TraceEntry {
  Direction direction{};
  std::string tier;
  std::string policy;             // display; empty = the end of the tier
  std::optional<int> rule_index;  // nullopt: none of its rules matched
  std::string result;             // no-match, log, pass, allow, deny

  bool operator==(const TraceEntry&) const = default;
};

struct StagedVerdict {
  std::string policy;
  Verdict action{};
  std::optional<int> rule_index;

  bool operator==(const StagedVerdict&) const = default;
};

// How a connection ended, as far as conntrack knows. None: it is no record of an end.
enum class EndReason : std::uint8_t {
  None,
  Finished,    // TCP: both sides said that they are done
  Reset,       // TCP: one side broke it off
  TimedOut,    // nothing came any more
  Unanswered,  // nothing ever came back
};
std::string_view name(EndReason reason);  // "", "finished", "reset", "timed-out", "unanswered"

// Addresses that were translated on the way: where the originator sent it (a Service), and as whom its
// destination saw it. Unset: not translated.
struct Translation {
  std::optional<IpAddr> destination;
  std::optional<IpAddr> source;
  std::uint16_t destination_port = 0;  // 0 where the protocol has none
  std::uint16_t source_port = 0;
  std::string service;  // "namespace/name" of the Service with that destination, empty = unknown

  bool operator==(const Translation&) const = default;
};

struct FlowRecord {
  std::string id;  // UUIDv7, text; unique for ever
  WallTime start{};
  WallTime end{};
  Reporter reporter{};
  Direction direction{};
  Verdict action{};
  Reason reason{};
  // The deciding rule. Names are those of the time of the verdict; empty = null.
  std::string tier;
  std::string policy;  // "tier/ns/name"
  std::string policy_kind;
  std::string policy_namespace;
  std::string policy_name;
  std::optional<int> rule_index;  // -1 = end of tier, nullopt = no rule
  RuleId rule{};
  std::uint32_t policy_revision = 0;  // 0 = null
  std::vector<LoggedBy> logged_by;
  std::vector<TraceEntry> trace;
  std::vector<StagedVerdict> staged;
  std::uint8_t proto = 0;
  std::optional<std::uint16_t> src_port;
  std::optional<std::uint16_t> dst_port;
  Peer src;
  Peer dst;
  std::string dst_service;  // empty = null
  std::optional<std::uint8_t> icmp_type;
  std::optional<std::uint8_t> icmp_code;
  std::optional<std::uint64_t> connections;  // nullopt for denied flows
  std::uint64_t verdict_packets = 0;
  // Skbs and their L3 bytes. `_out` = what the originator sent, `_in` = what it got back. nullopt = not
  // measured (the first record of an allowed connection).
  std::optional<std::uint64_t> packets_out;
  std::optional<std::uint64_t> packets_in;
  std::optional<std::uint64_t> bytes_out;
  std::optional<std::uint64_t> bytes_in;
  std::string tcp_flags;  // "s", "sa", …; empty = null
  std::string ct_state;   // "new"; empty = null
  EndReason end_reason = EndReason::None;
  std::optional<Translation> translation;

  bool operator==(const FlowRecord&) const = default;
};

// Where this program's records come from; part of every JSON record.
struct Origin {
  std::string cluster;
  std::string node;
};

}  // namespace tierlog::store
