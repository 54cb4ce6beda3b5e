// logger/flow_logger.h - verdict events and denied counts -> flow records, attributed and explained.
//
//   dataplane/events.h --> [FlowLogger] --> store/record.h
//                             | RuleNames: id -> rule, policy, tier, revision
//                             | AddressBook: address -> pod at that time
//                             ` policy/evaluate.h: trace, who logged, the other end's verdict
//
// Pure: reads no clock, no socket, no file. Denied flows: a record with the first packet at once, then
// the difference at every reading of the kernel's counts. Allowed connections: a record with the first
// packet at once, then logger/connections.h. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "dataplane/events.h"
#include "logger/address_book.h"
#include "logger/connections.h"
#include "logger/record_ids.h"
#include "logger/rule_names.h"
#include "policy/evaluate.h"
#include "policy/program.h"
#include "store/catalog.h"
#include "store/record.h"
#include "store/told.h"

namespace tierlog::logger {

// What the logger itself could not do right, cumulative.
struct LoggerCounts {
  std::uint64_t mismatches = 0;      // the evaluator names another rule than the kernel
  std::uint64_t unknown_rules = 0;   // packets of ids that no Program of this daemon had
  std::uint64_t logged_packets = 0;  // Log events seen
  std::uint64_t stateless = 0;       // messages of allowed packets without a connection
};

using PacketsOfRules = std::unordered_map<RuleId, std::uint64_t>;

class FlowLogger {
 public:
  // `denied_lifetime`: how long the kernel keeps an entry after its last packet.
  explicit FlowLogger(Nanoseconds denied_lifetime = std::chrono::seconds(60));
  FlowLogger(const FlowLogger&) = delete;
  FlowLogger& operator=(const FlowLogger&) = delete;

  // Rules of earlier Programs, of which packets and connections may still come.
  void learn(std::span<const store::RuleRow> rules) { rules_.learn(rules); }
  const store::RuleRow* rule(RuleId id) const { return rules_.find(id); }  // nullptr: never heard of
  // Verdicts are what would have been: records say so in their reason.
  void set_audit(bool audits) { audits_ = audits; }
  // From now on events are explained by this Program (and, when late, by the ones before it).
  void set_program(std::shared_ptr<const policy::Program> program,
                   const std::vector<policy::NetworkSet>& policy_sets, WallTime since);
  void on_events(std::span<const dataplane::VerdictEvent> events);
  // One reading of all denied flows. `last`: nothing will be read after this (shutdown, flush): flows
  // whose first packet's message has not come are recorded without its details.
  enum class Reading : std::uint8_t { Regular, Last };
  void on_denied_counts(std::span<const dataplane::DeniedCount> counts, WallTime at, Reading reading);
  // At start: goes on from what the records of an earlier daemon told. Of an entry that none told, as much
  // is news as `room` has for its rule: packets that the rule counted and nothing accounts for.
  void set_denied_baseline(std::span<const dataplane::DeniedCount> counts, WallTime at,
                           std::span<const store::ToldDenied> told = {}, PacketsOfRules room = {});

  // Allowed connections after their first packets, see logger/connections.h.
  Connections& connections() { return connections_; }
  const Connections& connections() const { return connections_; }

  // The kernel's entries are gone with their table.
  void forget_counted_flows() { denied_.clear(); }

  // Verdicts that these counts have and no record yet, by rule: the next reading makes them records.
  PacketsOfRules waiting_by_rule(std::span<const dataplane::DeniedCount> counts);
  std::uint64_t waiting(std::span<const dataplane::DeniedCount> counts);

  std::vector<store::FlowRecord> take_records();
  // What these records change about what has been told: to be written with them or not at all.
  store::ToldChanges take_changes();
  bool has_records() const { return !records_.empty() || connections_.has_records(); }
  const LoggerCounts& counts() const { return counts_; }

 private:
  struct FlowKey {
    RuleId rule;
    IpAddr source, destination;
    std::uint8_t protocol;
    std::uint16_t port_or_icmp;
    bool operator==(const FlowKey&) const = default;
  };
  struct FlowKeyHash {
    std::size_t operator()(const FlowKey& key) const noexcept;
  };
  // What the kernel counts flow by flow: denied ones, and allowed ones without a connection.
  struct DeniedFlow {
    store::FlowRecord record;                       // the fields that all its records share
    std::optional<store::FlowRecord> egress_allow;  // local pair denied at ingress: the source's view
    std::uint64_t recorded_packets = 0, recorded_bytes = 0;  // of the kernel's current entry
    WallTime last{};
    WallTime last_packet{};         // of the kernel's current entry, as far as we know
    dataplane::VerdictEvent first;  // what describes it; described anew when the world has changed
    std::uint64_t world = 0;
    bool described = false;  // the first packet's message came
    bool seen = false;       // in the latest reading
    bool silent = false;     // nobody here judged it
    bool stored = false;     // the flow index has a row of it
    bool dirty = false;      // and it is not up to date
  };
  static FlowKey key_of(const dataplane::VerdictEvent& event);

  void on_allowed(const dataplane::VerdictEvent& event);
  void on_counted_flow(const dataplane::VerdictEvent& event);
  DeniedFlow describe(const dataplane::VerdictEvent& event);
  DeniedFlow describe_stateless(const dataplane::VerdictEvent& event);
  void describe_anew(DeniedFlow& flow, WallTime at);
  void emit(DeniedFlow& flow, std::uint64_t packets, std::uint64_t bytes, WallTime start, WallTime end);
  void changed(const FlowKey& key, DeniedFlow& flow);
  void forget_expired(WallTime at);
  void push(store::FlowRecord record);
  std::optional<store::FlowRecord> describe_connection(RuleId rule, const dataplane::ConnectionTuple& view,
                                                       WallTime at);
  store::FlowRecord base_record(const dataplane::VerdictEvent& event, const store::RuleRow& rule);
  // The record's trace leads up to its verdict: of an ingress verdict the source's egress comes first.
  void explain(store::FlowRecord& record, const policy::Program& program,
               const policy::Evaluation& evaluation, Direction direction) const;
  static void add_trace(store::FlowRecord& record, const policy::Program& program,
                        const policy::DirectionVerdict& verdict);
  // The Program that explains this verdict and its evaluation; nullptr when none agrees with the kernel.
  const policy::Program* evaluate(const dataplane::VerdictEvent& event, Direction direction,
                                  policy::Evaluation& into) const;

  std::deque<std::shared_ptr<const policy::Program>> programs_;  // newest first
  Nanoseconds denied_lifetime_;
  bool audits_ = false;
  std::uint64_t world_ = 0;  // counts the changes of rules and names
  RuleNames rules_;
  AddressBook addresses_;
  RecordIds ids_;
  std::unordered_map<FlowKey, DeniedFlow, FlowKeyHash> denied_;
  std::vector<FlowKey> dirty_;
  std::vector<store::ToldDenied> forgotten_;
  std::vector<store::FlowRecord> records_;
  LoggerCounts counts_;
  Connections connections_;
};

}  // namespace tierlog::logger
