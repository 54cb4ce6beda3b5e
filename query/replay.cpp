#include "query/replay.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "query/moment.h"

namespace tierlog::query {
namespace {

using store::FlowRecord;
using store::Peer;
using store::PeerKind;
using store::ScannedFlow;

// Whether policies decide such a verdict at all, or what the phrase is when they do not.
const char* left_out(Reason reason) {
  switch (reason) {
    case Reason::Policy:
    case Reason::EndOfTier:
    case Reason::NoPolicy:
    case Reason::Profile:
    case Reason::Host:
    case Reason::Self:
    case Reason::NotReady:
    case Reason::Audit:
      return nullptr;
    case Reason::Cut:
    case Reason::MidStream:
    case Reason::Preexisting:
      return "belong to connections that began earlier";
    default:
      return "were not decided by policies (spoofed, invalid, …)";
  }
}

// Names a flow within an epoch. References are the store's: equal ones mean equal peers and rules.
struct FlowKey {
  std::size_t epoch = 0;
  std::int64_t rule = 0, src = 0, dst = 0;
  std::int32_t src_port = -1, dst_port = -1;
  std::uint32_t small = 0;  // protocol, ICMP type and code, reporter, action

  bool operator==(const FlowKey&) const = default;
};

struct FlowKeyHash {
  std::size_t operator()(const FlowKey& key) const noexcept {
    std::uint64_t hash = key.epoch;
    for (const std::uint64_t part :
         {static_cast<std::uint64_t>(key.rule), static_cast<std::uint64_t>(key.src),
          static_cast<std::uint64_t>(key.dst),
          static_cast<std::uint64_t>(key.src_port + 1) << 32 | static_cast<std::uint32_t>(key.dst_port + 1),
          static_cast<std::uint64_t>(key.small)}) {
      hash = (hash ^ part) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    return static_cast<std::size_t>(hash);
  }
};

struct FlowSum {
  std::int64_t newest = 0, newest_ns = 0;
  std::uint64_t records = 0, connections = 0, packets = 0, bytes = 0;
};

FlowKey key_of(const ScannedFlow& flow, std::size_t epoch, bool source_ports) {
  const auto byte = [](int value) { return static_cast<std::uint32_t>(value) & 0xff; };
  return {epoch,
          flow.rule,
          flow.src,
          flow.dst,
          source_ports ? flow.src_port : -1,
          flow.dst_port,
          byte(flow.proto) << 24 | byte(flow.icmp_type) << 16 | byte(flow.icmp_code) << 8 |
              static_cast<std::uint32_t>(flow.reporter) << 1 | static_cast<std::uint32_t>(flow.action)};
}

bool looks_at_source_ports(const policy::PolicySet& policies) {
  for (const policy::Policy& policy : policies.policies)
    for (const auto* rules : {&policy.ingress, &policy.egress})
      for (const policy::PolicyRule& rule : *rules)
        for (const policy::MatchSpec& match : rule.any_of)
          if (!match.source.ports.empty() || !match.source.not_ports.empty()) return true;
  return false;
}

Decision recorded(const FlowRecord& record) {
  return {record.action == store::Verdict::Allow,
          record.policy,
          record.policy_kind,
          record.rule_index,
          record.direction,
          record.reason};
}

Decision decided(const policy::Program& program, const policy::Evaluation& evaluation) {
  Decision decision;
  decision.allows = evaluation.action == policy::Action::Allow;
  const policy::DirectionVerdict* verdict = evaluation.deciding();
  if (verdict == nullptr) return decision;
  decision.direction = verdict->direction;
  const policy::RuleRef ref = program.by_id.at(verdict->rule);
  const auto name_policy = [&](std::uint32_t index) {
    decision.policy = program.policies[index].display;
    decision.policy_kind = policy::name(program.policies[index].key.kind);
  };
  if (ref.kind == policy::RuleRef::Kind::Rule) {
    name_policy(program.rules[ref.index].policy);
    decision.rule_index = program.rules[ref.index].index;
    decision.reason = Reason::Policy;
  } else if (ref.kind == policy::RuleRef::Kind::EndOfTier) {
    name_policy(program.ends[ref.index].policies.back());
    decision.rule_index = -1;
    decision.reason = Reason::EndOfTier;
  } else {
    decision.reason = find_reserved(verdict->rule)->reason;
  }
  return decision;
}

std::string net_of(const IpAddr& address) {
  Cidr net = Cidr::host(address);
  return Cidr::parse(address.to_string() + (address.family == Family::V4 ? "/24" : "/64"))
      .value_or(net)
      .to_string();
}

std::string group_name(const Peer& peer) {
  switch (peer.kind) {
    case PeerKind::Pod:
      return peer.peer_namespace + "/" + (peer.workload.empty() ? peer.name : peer.workload);
    case PeerKind::Node:
      return "node " + peer.name;
    case PeerKind::NetworkSet:
      return "set " + (peer.peer_namespace.empty() ? peer.name : peer.peer_namespace + "/" + peer.name);
    case PeerKind::Private:
    case PeerKind::Public:
      break;
  }
  return "outside " + net_of(peer.ip);
}

std::string port_text(const FlowRecord& record) {
  const std::string proto = protocol::name(record.proto);
  if (record.dst_port) return std::to_string(*record.dst_port) + "/" + proto;
  if (!record.icmp_type) return proto;
  return proto + " " + std::to_string(*record.icmp_type) + "/" + std::to_string(record.icmp_code.value_or(0));
}

using GroupKey = std::tuple<Change::Kind, std::string, std::string, std::string, Decision, Decision>;

// Several workloads of one namespace that change in the same way are one line: "tenant-01/*".
class Groups {
 public:
  void add(Change::Kind kind, const RecordedFlow& flow, const Decision& was, const Decision& now) {
    const FlowRecord& record = flow.newest;
    Change& change =
        groups_[{kind, group_name(record.src), group_name(record.dst), port_text(record), was, now}];
    outside_[group_name(record.src)].insert(record.src.ip);
    outside_[group_name(record.dst)].insert(record.dst.ip);
    if (change.records == 0 || record.end > change.last) {
      change.last = record.end;
      change.record = record.id;
    }
    change.records += flow.records;
    ++change.flows;
    change.connections += flow.connections;
    change.packets += flow.packets;
    change.bytes += flow.bytes;
  }

  std::vector<Change> take() {
    join<2>();
    join<1>();
    std::vector<Change> changes;
    for (auto& [key, change] : groups_) {
      change.kind = std::get<0>(key);
      change.from = shown(std::get<1>(key));
      change.to = shown(std::get<2>(key));
      change.port = std::get<3>(key);
      change.was = std::get<4>(key);
      change.now = std::get<5>(key);
      changes.push_back(std::move(change));
    }
    std::stable_sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
      return std::tuple(a.kind, -static_cast<double>(std::max(a.connections, a.flows)),
                        -static_cast<double>(a.packets)) <
             std::tuple(b.kind, -static_cast<double>(std::max(b.connections, b.flows)),
                        -static_cast<double>(b.packets));
    });
    return changes;
  }

 private:
  // A single outside address by itself, several by their network.
  std::string shown(const std::string& name) const {
    const auto found = outside_.find(name);
    if (!name.starts_with("outside ") || found == outside_.end() || found->second.size() != 1) return name;
    return "outside " + found->second.begin()->to_string();
  }

  static std::string namespace_of(const std::string& name) {
    const auto slash = name.find('/');
    const bool is_pod = slash != std::string::npos && name.find(' ') == std::string::npos;
    return is_pod ? name.substr(0, slash) + "/*" : name;
  }

  template <std::size_t Side>
  void join() {
    std::map<GroupKey, std::vector<GroupKey>> together;
    for (const auto& [key, change] : groups_) {
      GroupKey wide = key;
      std::get<Side>(wide) = namespace_of(std::get<Side>(key));
      together[wide].push_back(key);
    }
    for (const auto& [wide, keys] : together) {
      if (keys.size() < 2) continue;
      Change sum;
      for (const GroupKey& key : keys) {
        const Change part = std::move(groups_.extract(key).mapped());
        if (sum.records == 0 || part.last > sum.last) {
          sum.last = part.last;
          sum.record = part.record;
        }
        sum.records += part.records;
        sum.flows += part.flows;
        sum.connections += part.connections;
        sum.packets += part.packets;
        sum.bytes += part.bytes;
      }
      groups_[wide] = std::move(sum);
    }
  }

  std::map<GroupKey, Change> groups_;
  std::map<std::string, std::set<IpAddr>> outside_;
};

std::optional<Change::Kind> compared(const Decision& was, const Decision& now) {
  if (was.allows && !now.allows) return Change::Kind::NowDenied;
  if (!was.allows && now.allows) return Change::Kind::NowAllowed;
  if (was.policy == now.policy && was.policy_kind == now.policy_kind) return std::nullopt;
  return Change::Kind::OtherPolicy;
}

}  // namespace

policy::Packet packet_of(const FlowRecord& record) {
  return {record.src.ip,
          record.dst.ip,
          record.proto,
          record.src_port.value_or(0),
          record.dst_port.value_or(0),
          record.icmp_type.value_or(0),
          record.icmp_code.value_or(0)};
}

bool is_known_as(const policy::Program& program, const Peer& peer) {
  const policy::Endpoint* endpoint = program.known(peer.ip);
  if (peer.kind != PeerKind::Pod) return endpoint == nullptr;
  return endpoint != nullptr && endpoint->endpoint_namespace == peer.peer_namespace &&
         endpoint->name == peer.name;
}

bool told_by_destination(const policy::Program& program, const FlowRecord& record) {
  return record.reporter == store::Reporter::Source && record.action == store::Verdict::Allow &&
         program.enforced(record.dst.ip) != nullptr;
}

std::string to_text(const Decision& decision) {
  std::string text = decision.allows ? "allow" : "deny";
  if (decision.policy.empty())
    return text + (decision.reason == Reason::NoPolicy || decision.reason == Reason::Profile
                       ? " (no policy)"
                       : " (" + std::string(tierlog::name(decision.reason)) + ")");
  text += " by " + decision.policy;
  if (decision.rule_index && *decision.rule_index < 0) return text + " end-of-tier";
  if (decision.rule_index)
    text += " " + std::string(tierlog::name(decision.direction)) + "[" +
            std::to_string(*decision.rule_index) + "]";
  return text;
}

std::string_view name(Change::Kind kind) {
  switch (kind) {
    case Change::Kind::NowDenied:
      return "now-denied";
    case Change::Kind::NowAllowed:
      return "now-allowed";
    case Change::Kind::OtherPolicy:
      break;
  }
  return "other-policy";
}

bool Replay::changes_a_verdict() const {
  return std::any_of(changes.begin(), changes.end(),
                     [](const Change& change) { return change.kind != Change::Kind::OtherPolicy; });
}

Result<FlowHistory> FlowHistory::open(store::FlowReader& reader, const store::FlowQuery& query) {
  // A record may have begun before the time range that its end is in; nothing lives for ever unreported.
  const WallTime from = query.since ? *query.since - std::chrono::hours(1) : from_ns(0);
  TL_ASSIGN(const auto versions, reader.object_versions(from, query.until.value_or(SystemClock().wall())));
  TL_ASSIGN(auto epochs, cut_epochs(versions));
  return FlowHistory(reader, query, std::move(epochs));
}

Result<void> FlowHistory::each(bool source_ports, Coverage& coverage,
                               const std::function<Result<void>(const RecordedFlow&)>& take) {
  std::unordered_map<FlowKey, FlowSum, FlowKeyHash> flows;
  TL_TRY(reader_.scan(query_, [&](const ScannedFlow& flow) {
    ++coverage.records;
    const char* why = left_out(flow.reason);
    const auto epoch = epoch_at(epochs_, from_ns(flow.start_ns));
    if (why == nullptr && !epoch) why = "are older than the kept history of pods";
    if (why != nullptr) {
      ++coverage.left_out[why];
      return;
    }
    FlowSum& sum = flows[key_of(flow, *epoch, source_ports)];
    if (flow.end_ns >= sum.newest_ns) {
      sum.newest_ns = flow.end_ns;
      sum.newest = flow.sequence;
    }
    ++sum.records;
    sum.connections += flow.connections;
    sum.packets += flow.verdict_packets;
    sum.bytes += flow.bytes;
  }));
  std::vector<std::pair<std::size_t, const FlowSum*>> ordered;
  for (const auto& [key, sum] : flows) ordered.emplace_back(key.epoch, &sum);
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::tuple(a.first, a.second->newest) < std::tuple(b.first, b.second->newest);
  });
  for (const auto& [epoch, sum] : ordered) {
    auto record = reader_.record_at(sum->newest);
    if (!record && record.error().code == ErrorCode::NotFound) {  // retention was faster
      coverage.left_out["were removed meanwhile"] += sum->records;
      continue;
    }
    if (!record) return fail(record.error());
    TL_TRY(take({std::move(*record), sum->records, sum->connections, sum->packets, sum->bytes, epoch}));
  }
  return {};
}

Result<Replay> replay(store::FlowReader& reader, const policy::PolicySet& policies,
                      const store::FlowQuery& query, const std::function<void(std::uint64_t)>& progress) {
  TL_ASSIGN(FlowHistory history, FlowHistory::open(reader, query));
  TL_ASSIGN(const auto sets, reader.policy_sets());
  TL_ASSIGN(KnownRuleIds ids, KnownRuleIds::of(reader));
  Replay result;
  result.policies = policies.policies.size();
  Groups groups;
  std::optional<policy::Program> program;  // of the epoch that flows come from
  std::size_t epoch = 0;
  const auto judge = [&](const RecordedFlow& flow) -> Result<void> {
    if (!program || epoch != flow.epoch) {
      epoch = flow.epoch;
      TL_ASSIGN(program, policy::compile(policies, history.epochs()[epoch].cluster, ids,
                                         {.scope = policy::CompileOptions::Scope::Local}));
      for (const store::PolicySetRow& set : sets)
        if (set.since <= flow.newest.end)
          program->host_addresses = {set.host_addresses.begin(), set.host_addresses.end()};
    }
    const FlowRecord& record = flow.newest;
    if (!is_known_as(*program, record.src) || !is_known_as(*program, record.dst)) {
      result.coverage.left_out["name pods that the kept history does not have at their address"] +=
          flow.records;
      return {};
    }
    result.coverage.replayed += flow.records;
    if (told_by_destination(*program, record)) return {};
    if (++result.coverage.flows % 1024 == 0 && progress) progress(result.coverage.flows);
    const Decision now = decided(*program, policy::evaluate(*program, packet_of(record)));
    const Decision was = recorded(record);
    if (const auto kind = compared(was, now)) groups.add(*kind, flow, was, now);
    return {};
  };
  TL_TRY(history.each(looks_at_source_ports(policies), result.coverage, judge));
  result.changes = groups.take();
  return result;
}

}  // namespace tierlog::query
