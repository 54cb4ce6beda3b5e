// store/query.h - what the commands ask of the flow index. Reads only, needs no daemon.
//
//   cli/, HTTP --Filter--> [FlowReader] --SQL with bound parameters--> flows.db
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/catalog.h"
#include "store/flow_store.h"
#include "store/record.h"

namespace tierlog::store {

// One --policy, --namespace, … option: values are ORed, options of the same field too (Calico's and
// hubble's habit), different fields are ANDed; `negate` = --not.
struct FieldFilter {
  enum class Field : std::uint8_t {
    Policy,
    Tier,
    Action,
    Rule,
    Revision,
    Namespace,
    FromNamespace,
    ToNamespace,
    Pod,
    From,
    To,
    Label,
    FromLabel,
    ToLabel,
    Workload,
    Service,
    Ip,
    Port,
    Protocol,
    Direction,
    Reporter,
    Logged,
    Unanswered,
    StagedAction,
    Reason,
    Node,
    Cluster,
    PolicyKind,
    FromWorkload,
    ToWorkload,
  } field{};
  std::vector<std::string> values;  // as typed
  bool negate = false;
};

struct FlowQuery {
  std::vector<FieldFilter> filters;
  std::optional<WallTime> since, until;  // by the record's end time
  std::size_t limit = 100;               // 0 = all
  bool oldest_first = false;             // in the order of writing
  // Only records after this sequence (--follow).
  std::int64_t after_sequence = 0;
  // Only records that the newest-first listing has behind this one: the next page.
  struct Place {
    std::int64_t end_ns = 0, sequence = 0;
  };
  std::optional<Place> behind;
};

// The only action that the filters leave, if they leave one.
std::optional<Verdict> only_action(const FlowQuery& query);

// Denied records of one flow summed: what `tierlog denied` lists.
struct FlowGroup {
  FlowRecord newest;  // names, addresses and rule of the newest record of the group
  WallTime first{}, last{};
  std::uint64_t records = 0;
  std::uint64_t packets = 0;  // sum of verdict_packets
  std::uint64_t bytes = 0;    // sum of bytes_out
  std::uint64_t connections = 0;
  std::int64_t sequence = 0;  // of `newest`
};

// The verdict part of a record, for those who go through very many. References are unresolved; equal ones
// mean equal values. Texts and amounts that are not here: record_at().
struct ScannedFlow {
  std::int64_t sequence = 0;
  std::int64_t start_ns = 0, end_ns = 0;
  Reporter reporter{};
  Direction direction{};
  Verdict action{};
  Reason reason{};
  std::int64_t rule = 0, src = 0, dst = 0;
  std::uint8_t proto = 0;
  std::int32_t src_port = -1, dst_port = -1;  // -1 = none
  std::int16_t icmp_type = -1, icmp_code = -1;
  std::uint64_t connections = 0, verdict_packets = 0, bytes = 0;  // bytes of both ways
  std::uint64_t packets_out = 0, packets_in = 0, bytes_out = 0, bytes_in = 0;  // 0 where they were not measured
  EndReason end_reason{};
};

// What a rule was called when it decided.
struct RuleNames {
  RuleId rule{};
  std::string tier, policy, policy_kind, policy_namespace;
};

struct GroupQuery;  // store/groups.h
struct GroupResult;

struct PolicyActivity {
  PolicyRow policy;
  std::string tier_order;     // as printed: "100", "-"
  std::uint64_t allowed = 0;  // connections
  std::uint64_t denied = 0;   // packets
  std::uint64_t passed = 0;   // packets, kernel counters of Pass rules
  std::uint64_t logged = 0;   // packets, kernel counters of Log rules
  std::uint64_t staged_denied = 0;
  std::optional<WallTime> last_hit;
};

struct RuleActivity {
  RuleRow rule;
  bool live = true;  // part of what is enforced now
  std::uint64_t kernel_packets = 0, kernel_bytes = 0;
  std::uint64_t recorded_packets = 0;  // sum of verdict_packets
  std::uint64_t unattributed = 0;      // declared, by all causes
  std::uint64_t suppressed = 0;        // log messages not sent
  std::optional<WallTime> last_hit;
};

class FlowReader {
 public:
  // Opens read-only; works beside a writing daemon, after kill -9 and after a clean stop.
  // Errors: NotFound (no such file), Corrupt (no flow index or a newer schema), Io.
  static Result<FlowReader> open(const std::string& path);
  FlowReader(FlowReader&&) noexcept;
  FlowReader& operator=(FlowReader&&) noexcept;
  ~FlowReader();

  // Errors: InvalidArgument for a value that cannot be understood ("port 99999; expected 0 to 65535").
  Result<std::vector<StoredRecord>> flows(const FlowQuery& query);
  // Of the newest record, 0 when there is none: where --follow begins. With `after_sequence` set, flows()
  // gives records in the order of their sequences, so that a limit leaves no gap.
  Result<std::int64_t> last_sequence();
  // Another one in each file that was begun anew; empty: no daemon of this version has had it yet.
  Result<std::string> identity();
  // The number of the last record, whether retention took it or not.
  Result<std::int64_t> last_written();
  // End of the record of that sequence, or of the last one before it that is kept.
  Result<std::optional<WallTime>> time_of(std::int64_t sequence);
  // Sums by (reporter, direction, source and destination address, port, protocol, rule), newest first.
  // `from_rows`: not from an index alone, for those who compare.
  Result<std::vector<FlowGroup>> grouped_flows(const FlowQuery& query, bool from_rows = false);
  // All records that match, in no order. `query.limit` is not used.
  Result<void> scan(const FlowQuery& query, const std::function<void(const ScannedFlow&)>& take);
  // What the references of a ScannedFlow stand for. Errors: Corrupt for one that is none.
  Result<Peer> peer(std::int64_t reference);
  Result<RuleNames> rule_names(std::int64_t reference);
  // Errors: NotFound when retention took it.
  Result<FlowRecord> record_at(std::int64_t sequence);
  // Sums by fields (store/groups.h). An allowed connection between two pods of this node is counted once,
  // by its destination's view, unless the query tells reporters or directions apart.
  Result<GroupResult> groups(const GroupQuery& query);
  Result<std::vector<PolicyActivity>> policies();  // in evaluation order
  Result<std::vector<TierRow>> tiers();
  // Rules of the policies that match `pattern` (empty = all), reserved ids last; live ones only unless `all`.
  Result<std::vector<RuleActivity>> rules(const std::string& pattern = {}, bool all = false);
  Result<std::vector<EndpointRow>> endpoints();
  Result<std::vector<LossCount>> losses();
  Result<std::optional<FlowRecord>> record(const std::string& id);
  // --- what was in force earlier (store/history.h)
  Result<std::vector<PolicySetRow>> policy_sets();  // oldest first
  // In the order in which they were read. Errors: NotFound (retention took it), Corrupt.
  Result<std::vector<policy::SourceText>> policy_texts(std::int64_t set);
  // All that were there at some time between the two, oldest first.
  Result<std::vector<ObjectVersion>> object_versions(WallTime from, WallTime until);
  Result<std::unordered_map<std::uint64_t, policy::RuleIdentity>> rule_keys();  // by key_hash

  std::string path() const;  // of the file
  Result<Origin> origin();
  Result<WallTime> since();  // of the current catalog
  // Displays of all policies that ever gave a verdict or are enforced, for "did you mean".
  Result<std::vector<std::string>> policy_names();
  // Displays that POLICY (name, ns/name, tier/ns/name, shell pattern or /RE2/) stands for.
  Result<std::vector<std::string>> match_policies(const std::string& pattern);

 private:
  struct Impl;
  explicit FlowReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::store
