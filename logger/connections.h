// logger/connections.h - allowed connections over time: bytes both ways, by interval and at the end.
//
//   first packet (NFLOG)  --begin-->                  [Connections] --> later records: differences
//   conntrack dump        --on_dump--> by interval         |
//   conntrack DESTROY     --on_ended-> at the end          ` store/told.h: what was told so far, for a
//   restart
//
// A first packet, a dump's entry and an end are one connection when they agree in the forward view: from the
// real client to the real server. A log message knows no more, and a DESTROY has no label. The
// sum over all records of a connection is what conntrack counted, exactly. Pure. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dataplane/connection.h"
#include "logger/explainer.h"
#include "store/flow_entry.h"
#include "store/told.h"

namespace tierlog::logger {

using PacketsOfRules = std::unordered_map<RuleId, std::uint64_t>;

// Cumulative, of this process.
struct ConnectionCounts {
  std::uint64_t unattributed_packets = 0;  // of ended connections of enforced addresses that nobody knew
  std::uint64_t ends_unseen = 0;           // connections that were gone without their end being told
};

class Connections {
 public:
  struct Questions {
    // What all records of this rule's verdict on a connection share; null: unknown rule.
    std::function<Description(RuleId, const dataplane::ConnectionTuple&, WallTime)> describe;
    std::function<bool(const IpAddr&)> is_enforced;
    // "namespace/name" of the Service at this address, protocol and port; empty: none.
    std::function<std::string(const IpAddr&, std::uint8_t, std::uint16_t)> service_at;
  };
  explicit Connections(Questions questions) : questions_(std::move(questions)) {}

  // The first packet of a connection was recorded, with its length, for this record's direction.
  void begin(const dataplane::ConnectionTuple& view, const store::FlowEntry& first);
  // Connections ended. Give the ends that were read together with first packets before these, then settle:
  // an end may overtake its beginning.
  void on_ended(std::span<const dataplane::Connection> ended, WallTime at);
  void settle(WallTime at);

  // Start: what is there is known by its label, or was there before all rules. What of it was told stands in
  // `restore`. What has no label and was not told counts from now on; what has one is told from its beginning
  // by tell_unheard().
  enum class Dump : std::uint8_t { Start, Interval };
  void restore(std::vector<store::ToldConnection> told);
  void on_dump(std::span<const dataplane::Connection> entries, WallTime at, Dump dump);
  // After a dump at the start, when all messages of its time have come: what is still without a beginning began
  // while nobody looked, and gets its first record. `room`: verdicts that the kernel counted and nothing tells.
  // Returns the verdicts that these records tell.
  PacketsOfRules tell_unheard(PacketsOfRules room, WallTime at);

  // Records made since the last call; they have no ids yet.
  std::vector<store::FlowEntry> take_entries() { return std::exchange(entries_, {}); }
  bool has_records() const { return !entries_.empty(); }
  // What changed in what was told, up to the records taken.
  void take_changes(store::ToldChanges& into);

  const ConnectionCounts& counts() const { return counts_; }
  std::size_t open() const { return open_.size(); }

 private:
  struct Side {
    Description description;  // null: this side gave no verdict
    store::Amounts told;
    bool unheard = false;  // neither its first packet's message nor a record tells of it
  };
  struct Open {
    std::int64_t handle = 0;
    Side egress, ingress;
    std::shared_ptr<const store::Translation> translation;
    bool translation_known = false;  // both tuples were seen
    std::uint32_t conntrack_id = 0;  // 0: no dump has shown it yet
    WallTime started{};
    WallTime told_until{};
    std::uint32_t missed_dumps = 0;
    bool seen = false;    // in the latest dump
    bool stored = false;  // the flow index has a row of it
    bool dirty = false;   // and it is not up to date
    bool silent = false;  // no record was made of it
  };
  struct Hash {
    std::size_t operator()(const dataplane::ConnectionTuple& tuple) const noexcept;
  };
  using Map = std::unordered_multimap<dataplane::ConnectionTuple, Open, Hash>;
  struct PendingEnd {
    dataplane::Connection connection;
    WallTime since{};
  };

  Map::iterator find_beginning(const dataplane::ConnectionTuple& key, Direction direction, WallTime at);
  Map::iterator find_entry(const dataplane::ConnectionTuple& key, std::uint32_t conntrack_id);
  bool close(const dataplane::Connection& connection, WallTime at);
  void tell(const dataplane::ConnectionTuple& key, Open& open, const dataplane::Connection& counted,
            WallTime at, store::FlowState state);
  void learn_translation(Open& open, const dataplane::Connection& connection) const;
  void adopt(const dataplane::Connection& entry, WallTime at, Dump dump);
  bool resume(const dataplane::Connection& entry, WallTime at);
  bool describe_sides(const dataplane::Connection& entry, Open& open, Dump dump, WallTime at);
  void meet_unknown(const dataplane::Connection& entry, WallTime at);
  static void begins_unheard(Open& open);
  Map::iterator insert(const dataplane::ConnectionTuple& key, Open open);
  Map::iterator forget(Map::iterator entry);
  void forget_missing();
  void changed(const dataplane::ConnectionTuple& key, Open& open);
  void forget_dirty_ended();

  Questions questions_;
  Map open_;
  std::vector<PendingEnd> pending_;
  std::unordered_multimap<dataplane::ConnectionTuple, store::ToldConnection, Hash> restored_;
  std::unordered_set<std::uint32_t> unknown_, unknown_now_;  // labelled entries without a beginning
  std::vector<dataplane::Connection> unheard_;               // those of the start
  PacketsOfRules room_;                                      // while they are told
  std::vector<store::FlowEntry> entries_;
  std::vector<std::pair<dataplane::ConnectionTuple, std::int64_t>> dirty_;  // those that ended may be in it
  std::vector<std::int64_t> ended_;
  std::int64_t next_handle_ = 1;
  ConnectionCounts counts_;
};

}  // namespace tierlog::logger
