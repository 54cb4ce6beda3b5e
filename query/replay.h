// query/replay.h - the recorded flows, judged again by other policies: what `tierlog diff` tells.
//
//   flows.db --scan--> distinct flows per epoch --evaluate (policy/evaluate.h)--> Change groups + Coverage
//
// The old verdict is the recorded one, the new one the evaluator's, with the pods, labels, sets and
// namespaces of the record's time. A connection is judged as a whole: egress, then ingress where its
// destination is a pod of the node.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "policy/evaluate.h"
#include "policy/model.h"
#include "query/epochs.h"
#include "store/query.h"

namespace tierlog::query {

// Who gave a verdict, as people read it.
struct Decision {
  bool allows = true;
  std::string policy;  // display; empty = none
  std::string policy_kind;
  std::optional<int> rule_index;  // -1 = end of tier
  Direction direction{};
  Reason reason{};

  bool operator==(const Decision&) const = default;
  auto operator<=>(const Decision&) const = default;
};

// "allow by default/monitoring/allow-scrape ingress[0]", "deny by … end-of-tier", "allow (no policy)".
std::string to_text(const Decision& decision);

struct Change {
  enum class Kind : std::uint8_t { NowDenied, NowAllowed, OtherPolicy } kind{};
  std::string from, to, port;  // "tenant-01/web", "tenant-01/*", "outside 198.51.100.0/24"; "5432/tcp"
  Decision was, now;
  std::uint64_t records = 0, flows = 0, connections = 0, packets = 0, bytes = 0;
  WallTime last{};
  std::string record;  // id of the newest record
};
std::string_view name(Change::Kind kind);  // "now-denied", "now-allowed", "other-policy"

// How much of the recorded traffic was judged again, in records.
struct Coverage {
  std::uint64_t records = 0, replayed = 0;
  std::uint64_t flows = 0;                        // distinct ones that were judged
  std::map<std::string, std::uint64_t> left_out;  // by cause, a phrase for people
};

struct Replay {
  std::vector<Change> changes;  // worst first
  Coverage coverage;
  std::size_t policies = 0;

  bool changes_a_verdict() const;
};

// A distinct flow of an epoch with what its records add up to.
struct RecordedFlow {
  store::FlowRecord newest;
  std::uint64_t records = 0, connections = 0, packets = 0, bytes = 0;
  std::size_t epoch = 0;
};

// Goes through all records that match and gives each distinct flow once. `source_ports`: flows that differ
// in them are distinct. Shared by diff and recommend. Records that no policy decided or of a time before
// the history are counted in `coverage` and not given.
class FlowHistory {
 public:
  static Result<FlowHistory> open(store::FlowReader& reader, const store::FlowQuery& query);

  const std::vector<Epoch>& epochs() const { return epochs_; }
  Result<void> each(bool source_ports, Coverage& coverage,
                    const std::function<Result<void>(const RecordedFlow&)>& take);

 private:
  FlowHistory(store::FlowReader& reader, const store::FlowQuery& query, std::vector<Epoch> epochs)
      : reader_(reader), query_(query), epochs_(std::move(epochs)) {}
  store::FlowReader& reader_;
  const store::FlowQuery& query_;
  std::vector<Epoch> epochs_;
};

policy::Packet packet_of(const store::FlowRecord& record);
// Whether the pod's end of the record is what the cluster of its time says it was.
bool is_known_as(const policy::Program& program, const store::Peer& peer);
// The source's view of an allowed connection whose destination tells of it too.
bool told_by_destination(const policy::Program& program, const store::FlowRecord& record);

// `progress`: called now and then with the number of flows judged. Errors: those of the store.
Result<Replay> replay(store::FlowReader& reader, const policy::PolicySet& policies,
                      const store::FlowQuery& query, const std::function<void(std::uint64_t)>& progress = {});

}  // namespace tierlog::query
