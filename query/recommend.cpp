#include "query/recommend.h"

#include <algorithm>

#include "base/diagnostics.h"

namespace tierlog::query {
namespace {

using store::FlowRecord;
using store::Peer;
using store::PeerKind;

using WorkloadKey = std::pair<std::string, std::string>;  // namespace, workload

// Labels that change with every roll-out or name one pod.
bool is_volatile(const std::string& key) {
  static const std::set<std::string> kVolatile = {"pod-template-hash",
                                                  "controller-revision-hash",
                                                  "pod-template-generation",
                                                  "statefulset.kubernetes.io/pod-name",
                                                  "apps.kubernetes.io/pod-index",
                                                  "controller-uid",
                                                  "batch.kubernetes.io/controller-uid",
                                                  "batch.kubernetes.io/job-name",
                                                  "job-name"};
  return kVolatile.contains(key);
}

policy::Labels stable(const policy::Labels& labels) {
  policy::Labels kept;
  for (const auto& [key, value] : labels)
    if (!is_volatile(key)) kept.emplace(key, value);
  return kept;
}

// The labels that all pods of each workload have had, over all that were ever there.
class Workloads {
 public:
  void learn(const std::string& ns, const std::string& workload, const policy::Labels& labels) {
    const auto [entry, is_new] = labels_.try_emplace({ns, workload}, stable(labels));
    if (is_new) return;
    std::erase_if(entry->second, [&](const auto& label) {
      const auto found = labels.find(label.first);
      return found == labels.end() || found->second != label.second;
    });
  }

  PodSelector selector_of(const std::string& ns, const std::string& workload) const {
    PodSelector selector;
    selector.labels = labels_.at({ns, workload});
    for (const auto& [key, labels] : labels_) {
      if (key.first != ns || key.second == workload || !includes(labels, selector.labels)) continue;
      for (const auto& [name, value] : labels)
        if (!selector.labels.contains(name)) {
          selector.absent.insert(name);
          break;
        }
    }
    return selector;
  }

  // Other workloads of the namespace that the selector cannot leave out.
  std::vector<std::string> twins_of(const std::string& ns, const std::string& workload) const {
    const PodSelector selector = selector_of(ns, workload);
    std::vector<std::string> twins;
    for (const auto& [key, labels] : labels_) {
      const bool absent =
          std::any_of(selector.absent.begin(), selector.absent.end(),
                      [&, &of = labels](const std::string& name) { return of.contains(name); });
      if (key.first == ns && key.second != workload && includes(labels, selector.labels) && !absent)
        twins.push_back(key.second);
    }
    return twins;
  }

  std::vector<std::string> namespaces() const {
    std::set<std::string> names;
    for (const auto& [key, labels] : labels_) names.insert(key.first);
    return {names.begin(), names.end()};
  }
  std::vector<std::string> of(const std::string& ns) const {
    std::vector<std::string> names;
    for (const auto& [key, labels] : labels_)
      if (key.first == ns) names.push_back(key.second);
    return names;
  }

 private:
  static bool includes(const policy::Labels& all, const policy::Labels& some) {
    return std::all_of(some.begin(), some.end(), [&](const auto& label) {
      const auto found = all.find(label.first);
      return found != all.end() && found->second == label.second;
    });
  }

  std::map<WorkloadKey, policy::Labels> labels_;
};

std::string workload_of(const Peer& peer) {
  return peer.workload.empty() ? peer.name : peer.workload;
}

void allow(AllowedRules& rules, const AllowedPeer& peer, const FlowRecord& record) {
  AllowedProtocol& allowed = rules[peer][record.proto];
  if (record.dst_port) allowed.ports.insert(*record.dst_port);
  if (record.icmp_type) allowed.icmp.emplace(*record.icmp_type, record.icmp_code.value_or(0));
}

// Outside addresses with the same ports are one rule.
AllowedRules joined(const AllowedRules& rules) {
  AllowedRules result;
  std::map<IpAddr, std::map<std::uint8_t, AllowedProtocol>> by_address;
  for (const auto& [peer, protocols] : rules) {
    if (peer.pods) {
      result[peer] = protocols;
      continue;
    }
    by_address[*peer.addresses.begin()] = protocols;
  }
  std::map<std::map<std::uint8_t, AllowedProtocol>, std::set<IpAddr>> same;
  for (const auto& [address, protocols] : by_address) same[protocols].insert(address);
  for (const auto& [protocols, addresses] : same) {
    AllowedPeer peer;
    peer.addresses = addresses;
    result[peer] = protocols;
  }
  return result;
}

class Collector {
 public:
  Collector(const Workloads& workloads, std::string ns) : workloads_(workloads), namespace_(std::move(ns)) {}

  void add(const FlowRecord& record) {
    const AllowedPeer source = peer_of(record.src), destination = peer_of(record.dst);
    if (is_ours(record.src)) allow(of(record.src).egress, destination, record);
    if (is_ours(record.dst)) allow(of(record.dst).ingress, source, record);
  }

  std::vector<WorkloadTraffic> take() {
    std::vector<WorkloadTraffic> all;
    for (auto& [name, traffic] : traffic_) {
      traffic.ingress = joined(traffic.ingress);
      traffic.egress = joined(traffic.egress);
      all.push_back(std::move(traffic));
    }
    return all;
  }

 private:
  bool is_ours(const Peer& peer) const {
    return peer.kind == PeerKind::Pod && peer.peer_namespace == namespace_;
  }

  WorkloadTraffic& of(const Peer& peer) {
    const std::string workload = workload_of(peer);
    WorkloadTraffic& traffic = traffic_[workload];
    if (traffic.workload.empty()) {
      traffic.workload = workload;
      traffic.selector = workloads_.selector_of(namespace_, workload);
    }
    return traffic;
  }

  AllowedPeer peer_of(const Peer& peer) const {
    AllowedPeer allowed;
    if (peer.kind != PeerKind::Pod) {
      allowed.addresses = {peer.ip};
      return allowed;
    }
    allowed.pods = true;
    allowed.peer_namespace = peer.peer_namespace;
    allowed.workload = workload_of(peer);
    allowed.selector = workloads_.selector_of(peer.peer_namespace, allowed.workload);
    return allowed;
  }

  const Workloads& workloads_;
  std::string namespace_;
  std::map<std::string, WorkloadTraffic> traffic_;
};

Error unknown_namespace(const Workloads& workloads, const std::string& name) {
  const std::string close = nearest(name, workloads.namespaces());
  return {ErrorCode::NotFound,
          "no pod of a namespace \"" + name + "\" is known in this time" +
              (close.empty() ? "" : "; did you mean " + close + "?") +
              " (`tierlog endpoints` lists all pods)",
          0};
}

}  // namespace

Result<Recommendation> recommend(store::FlowReader& reader, const std::string& name_of_namespace,
                                 PolicyForm form, const store::FlowQuery& query) {
  TL_ASSIGN(FlowHistory history, FlowHistory::open(reader, query));
  Workloads workloads;
  std::vector<policy::Program> programs;  // one an epoch, without policies: who is who
  policy::MemoryRuleIds ids;
  for (const Epoch& epoch : history.epochs()) {
    for (const policy::Endpoint& pod : epoch.cluster->endpoints)
      if (!pod.host_network)
        workloads.learn(pod.endpoint_namespace, pod.workload.empty() ? pod.name : pod.workload, pod.labels);
    TL_ASSIGN(auto program,
              policy::compile({}, epoch.cluster, ids, {.scope = policy::CompileOptions::Scope::Local}));
    programs.push_back(std::move(program));
  }
  const std::vector<std::string> ours = workloads.of(name_of_namespace);
  if (ours.empty()) return fail(unknown_namespace(workloads, name_of_namespace));
  Recommendation result;
  Collector collector(workloads, name_of_namespace);
  TL_TRY(history.each(false, result.coverage, [&](const RecordedFlow& flow) -> Result<void> {
    const FlowRecord& record = flow.newest;
    const policy::Program& program = programs[flow.epoch];
    if (!is_known_as(program, record.src) || !is_known_as(program, record.dst)) {
      result.coverage.left_out["name pods that the kept history does not have at their address"] +=
          flow.records;
      return {};
    }
    result.coverage.replayed += flow.records;
    const bool always = record.reason == Reason::Host || record.reason == Reason::Self;
    if (record.action != store::Verdict::Allow || always || told_by_destination(program, record)) return {};
    ++result.coverage.flows;
    collector.add(record);
    return {};
  }));
  const std::vector<WorkloadTraffic> traffic = collector.take();
  result.policies = traffic.size();
  for (const std::string& workload : ours) {
    const bool seen = std::any_of(traffic.begin(), traffic.end(),
                                  [&](const WorkloadTraffic& one) { return one.workload == workload; });
    if (!seen)
      result.notes.push_back(name_of_namespace + "/" + workload +
                             " had no allowed connection in this time: no policy is made for it");
    const auto twins = workloads.twins_of(name_of_namespace, workload);
    if (seen && !twins.empty())
      result.notes.push_back("the labels of " + name_of_namespace + "/" + workload + " fit " + twins.front() +
                             " too: its policy is about both");
  }
  result.yaml = to_yaml(name_of_namespace, traffic, form, result.notes);
  return result;
}

}  // namespace tierlog::query
