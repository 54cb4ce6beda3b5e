// logger/flow_logger.h - verdict events and denied counts -> flow records, attributed and explained.
//
//   dataplane/events.h --> [FlowLogger] --> store/record.h
//                             | Explainer: rule, pods, trace; once for all packets alike
//                             ` Pending: records wait for the store in bounded room
//
// Pure: reads no clock, no socket, no file. Denied flows: a record with the first packet at once, then
// the difference at every reading of the kernel's counts. Allowed connections: a record with the first
// packet at once, then logger/connections.h. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "dataplane/events.h"
#include "logger/connections.h"
#include "logger/explainer.h"
#include "base/flat_map.h"
#include "logger/flow_key.h"
#include "logger/pending.h"
#include "logger/record_ids.h"
#include "logger/sampled_flows.h"
#include "logger/services.h"
#include "store/catalog.h"
#include "store/flow_entry.h"
#include "store/told.h"

namespace tierlog::logger {

// What the logger itself could not do right, cumulative.
struct LoggerCounts {
  std::uint64_t mismatches = 0;      // the evaluator names another rule than the kernel
  std::uint64_t unknown_rules = 0;   // packets of ids that no Program of this daemon had
  std::uint64_t logged_packets = 0;  // Log events seen
  std::uint64_t stateless = 0;       // messages of allowed packets without a connection
};

class FlowLogger {
 public:
  // `denied_lifetime`: how long the kernel keeps an entry after its last packet.
  // `most_pending`: records that may wait for the store.
  explicit FlowLogger(Nanoseconds denied_lifetime = std::chrono::seconds(60), std::size_t most_pending = 100'000);
  FlowLogger(const FlowLogger&) = delete;
  FlowLogger& operator=(const FlowLogger&) = delete;

  // Rules of earlier Programs, of which packets and connections may still come.
  void learn(std::span<const store::RuleRow> rules) { explainer_.learn(rules); }
  const store::RuleRow* rule(RuleId id) const { return explainer_.rule(id); }  // nullptr: never heard of
  // How many matches of a Log rule its limits kept from being told, cumulative. What no record has said yet is
  // said by the next one that the rule logged. `said`: by records of before.
  void on_suppressed(RuleId rule, std::uint64_t suppressed);
  void resume_suppressed(RuleId rule, std::uint64_t said) { said_suppressed_[rule] = said; }
  // Names of interfaces by their index, for the packets' ways; without it, as far as addresses tell.
  void set_interfaces(std::function<std::string(std::uint32_t)> name_of) { explainer_.set_interfaces(std::move(name_of)); }
  // Verdicts are what would have been: records say so in their reason.
  void set_audit(bool audits) { explainer_.set_audit(audits); }
  // From now on events are explained by this Program (and, when late, by the ones before it).
  void set_program(std::shared_ptr<const policy::Program> program,
                   const std::vector<policy::NetworkSet>& policy_sets, WallTime since);
  // What addresses of Services are called from now on.
  void set_services(std::vector<ServiceAddress> services) { services_.set(std::move(services)); }
  void on_events(std::span<const dataplane::VerdictEvent> events);
  // One reading of all denied flows. `last`: nothing will be read after this (shutdown, flush): flows
  // whose first packet's message has not come are recorded without its details.
  enum class Reading : std::uint8_t { Regular, Last };
  void on_denied_counts(std::span<const dataplane::DeniedCount> counts, WallTime at, Reading reading);
  // At start: goes on from what the records of an earlier daemon told, up to `watched_until`. Of an entry that
  // none told, as much is news as `room` has for its rule: packets that the rule counted and nothing accounts
  // for. News get their record at once, by what held when the flow was last denied; returns the verdicts they tell.
  PacketsOfRules set_denied_baseline(std::span<const dataplane::DeniedCount> counts, WallTime at,
                                     std::span<const store::ToldDenied> told = {}, PacketsOfRules room = {},
                                     WallTime watched_until = {});

  // Allowed connections after their first packets, see logger/connections.h.
  Connections& connections() { return connections_; }
  const Connections& connections() const { return connections_; }

  // The kernel's entries are gone with their table.
  void forget_counted_flows() { denied_.clear(); }

  // Verdicts that these counts have and no record yet, by rule: the next reading makes them records.
  PacketsOfRules waiting_by_rule(std::span<const dataplane::DeniedCount> counts);
  std::uint64_t waiting(std::span<const dataplane::DeniedCount> counts);

  // Records made since the last call, whole; take_entries: as the store takes them.
  std::vector<store::FlowRecord> take_records();
  std::vector<store::FlowEntry> take_entries();
  // What these records change about what has been told: to be written with them or not at all.
  store::ToldChanges take_changes();
  bool has_records() const { return !pending_.empty() || connections_.has_records(); }
  const Pending& pending() const { return pending_; }
  // Events that the evaluator decides otherwise than the kernel did.
  std::vector<Disagreement> take_disagreements() { return explainer_.take_disagreements(); }
  const LoggerCounts& counts() const { return counts_; }

 private:
  // What a flow's first packet tells beside the flow's key. Small: there is one for each flow.
  struct FirstPacket {
    dataplane::EventKind kind{};
    std::uint8_t tcp_flags = 0;
    std::uint16_t source_port = 0;
    std::uint32_t in_interface = 0, out_interface = 0;
    std::unique_ptr<const dataplane::Addressed> addressed;
  };
  // What the kernel counts flow by flow: denied ones, and allowed ones without a connection.
  struct DeniedFlow {
    std::int64_t handle = 0;  // in store/told.h; 0: nothing was told yet
    Explained what;
    std::uint64_t recorded_packets = 0, recorded_bytes = 0;  // of the kernel's current entry
    WallTime last{};
    WallTime last_packet{};         // of the kernel's current entry, as far as we know
    FirstPacket first;              // describes it, with its key; described anew when the world has changed
    std::uint64_t world = 0;
    bool described = false;  // the first packet's message came
    std::uint64_t seen = 0;  // the latest reading it was in
    bool stored = false;     // the flow index has a row of it
    bool dirty = false;      // and it is not up to date
  };

  void on_event(const dataplane::VerdictEvent& event);
  void on_allowed(const dataplane::VerdictEvent& event);
  void on_denied_in_connection(const dataplane::VerdictEvent& event);
  void on_counted_flow(const dataplane::VerdictEvent& event);
  // Counts what is odd about it.
  Explained explain(const dataplane::VerdictEvent& event);
  DeniedFlow describe(const dataplane::VerdictEvent& event);
  void describe_by(DeniedFlow& flow, const dataplane::VerdictEvent& event);
  void describe_anew(const FlowKey& key, DeniedFlow& flow, WallTime at);
  static dataplane::VerdictEvent first_event(const FlowKey& key, const FirstPacket& first, WallTime at);
  void emit(const FlowKey& key, DeniedFlow& flow, std::uint64_t packets, std::uint64_t bytes, WallTime start,
            WallTime end);
  void emit_sampled(const SampledFlow& flow);
  void emit_denied(const Explained& what, store::FlowEntry entry);
  void changed(const FlowKey& key, DeniedFlow& flow);
  void forget_expired(WallTime at);
  void push(store::FlowEntry entry);
  void say_suppressed(store::FlowEntry& entry);
  void take_from_connections();
  Description describe_connection(RuleId rule, const dataplane::ConnectionTuple& view, WallTime at);
  std::shared_ptr<const store::Translation> translation_of(const dataplane::VerdictEvent& event) const;

  Nanoseconds denied_lifetime_;
  Explainer explainer_;
  ServiceNames services_;
  RecordIds ids_;
  PacketsOfRules suppressed_, said_suppressed_;  // of Log rules
  SampledFlows sampled_;
  std::vector<dataplane::VerdictEvent> overflow_;  // of one call
  FlatMap<FlowKey, DeniedFlow, FlowKeyHash> denied_;
  std::uint64_t reading_ = 0;  // number of the latest
  WallTime forgotten_at_{};
  std::vector<FlowKey> dirty_;
  std::vector<std::int64_t> forgotten_;
  std::int64_t next_handle_ = 1;
  Pending pending_;
  LoggerCounts counts_;
  Connections connections_;
};

}  // namespace tierlog::logger
