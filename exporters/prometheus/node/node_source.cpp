#include "exporters/prometheus/node/node_source.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace tierlog::prometheus {
namespace {

// Beyond that the pods' interfaces have no series of their own; each has a few dozen.
constexpr std::size_t kMostInterfaces = 64;
// The flow index has the kernel's rule counters at most this late.
constexpr std::chrono::seconds kRuleCountersLate{4};
constexpr const char* kNetfilter = "NETFILTER_DROP";

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::set<std::string> pod_interfaces(const Index& index) {
  std::set<std::string> names;
  for (const store::EndpointRow& endpoint : index.endpoints)
    if (endpoint.enforced && !endpoint.interface.empty()) names.insert(endpoint.interface);
  return names;
}

bool denies(const store::RuleActivity& rule) {
  return rule.rule.action == "Deny" && rule.rule.reason != "audit";
}

std::uint64_t grown(std::uint64_t before, std::uint64_t now) {
  return now >= before ? now - before : now;  // it began anew
}

void statistics(Exposition& out, Metric metric, const Statistics& list) {
  out.family(metric);
  for (const auto& [name, value] : list) out.sample({name}, value);
}

std::vector<int> uplinks_of(const std::vector<Link>& links) {
  std::vector<int> found;
  for (const Link& link : links)
    if (link.default_route) found.push_back(link.index);
  return found;
}

void interface_statistics(Exposition& out, Metric metric, const std::vector<Link>& links) {
  out.family(metric);
  for (const Link& link : links)
    for (const auto& [name, value] : link.statistics) out.sample({link.name, name}, value);
}

}  // namespace

NodeMetrics::NodeMetrics(std::unique_ptr<KernelEvents> events, std::size_t remotes, const Clock& clock)
    : events_(std::move(events)), remotes_(remotes), clock_(clock) {}

// By differences: the sum of several pods ("other") must not get smaller when one of them goes.
void NodeMetrics::add_sockets(const std::vector<std::pair<IpAddr, PodKey>>& rows) {
  std::map<IpAddr, TcpOfAddress> seen;
  std::map<PodKey, TcpOfAddress> sums;
  for (const auto& [address, key] : rows) {
    const TcpOfAddress now = events_->of(address), before = addresses_[address];
    seen[address] = now;
    TcpOfAddress& sum = sums.try_emplace(key, pods_[key]).first->second;
    sum.retransmissions += grown(before.retransmissions, now.retransmissions);
    sum.rtt_us += grown(before.rtt_us, now.rtt_us);
    sum.rtt_samples += grown(before.rtt_samples, now.rtt_samples);
  }
  addresses_ = std::move(seen);
  pods_ = std::move(sums);
}

void NodeMetrics::pod_families(Exposition& out, const Context& context) {
  if (!events_) return;
  std::vector<IpAddr> addresses;
  std::vector<std::pair<IpAddr, PodKey>> rows;
  for (const store::EndpointRow& endpoint : context.index.endpoints) {
    if (!endpoint.enforced) continue;
    PodKey key{endpoint.endpoint_namespace, endpoint.workload, endpoint.name};
    // The same pods have series here as in the sums of records; others share one.
    const bool own = context.sums.pods.contains(key) || context.sums.pods.empty() ||
                     !context.sums.pods.contains({kOther, kOther, kOther});
    if (!own) key = {kOther, kOther, kOther};
    for (const std::string& text : endpoint.addresses)
      if (const auto address = IpAddr::parse(text)) {
        addresses.push_back(*address);
        rows.emplace_back(*address, key);
      }
  }
  events_->watch(addresses);
  add_sockets(rows);
  out.family(Metric::PodRetransmissions);
  for (const auto& [key, sum] : pods_)
    out.sample({key.pod_namespace, key.workload, key.pod}, SinceStart{sum.retransmissions});
  out.family(Metric::PodRtt);
  constexpr double kMicroseconds = 1e-6;
  for (const auto& [key, sum] : pods_)
    out.sample({key.pod_namespace, key.workload, key.pod}, SinceStart{sum.rtt_us, kMicroseconds});
  out.family(Metric::PodRttSamples);
  for (const auto& [key, sum] : pods_)
    out.sample({key.pod_namespace, key.workload, key.pod}, SinceStart{sum.rtt_samples});
}

// What netfilter dropped and no rule of ours did. Ours are known later than all: compared with what the
// tracepoint had told by then, the rest is never too large, and complete some seconds after the last drop.
std::pair<std::uint64_t, std::uint64_t> NodeMetrics::others_of_netfilter(std::uint64_t packets,
                                                                         std::uint64_t bytes,
                                                                         const Context& context) {
  std::pair<std::uint64_t, std::uint64_t> ours{};
  for (const store::RuleActivity& rule : context.index.rules) {
    if (!denies(rule)) continue;
    ours.first += rule.kernel_packets;
    ours.second += rule.kernel_bytes;
  }
  // Both counts begin together: what was dropped before is in neither.
  if (!std::exchange(began_, true)) {
    ours_before_ = ours;
    all_before_ = {packets, bytes};
  }
  packets -= all_before_.first;
  bytes -= all_before_.second;
  const Nanoseconds now = clock_.boottime();
  netfilter_.push_back({now, packets, bytes});
  while (netfilter_.size() > 1 && netfilter_[1].when + kRuleCountersLate <= now) netfilter_.pop_front();
  const Netfilter& then = netfilter_.front();
  if (then.when + kRuleCountersLate > now) return others_;
  const auto rest = [](std::uint64_t all, std::uint64_t mine) { return all - std::min(all, mine); };
  others_.first = std::max(others_.first, rest(then.packets, ours.first - ours_before_.first));
  others_.second = std::max(others_.second, rest(then.bytes, ours.second - ours_before_.second));
  return others_;
}

std::vector<NodeMetrics::Reason> NodeMetrics::reasons(const Context& context, const Protocols& protocols,
                                                      const std::vector<Link>& links) {
  std::map<std::pair<std::string, std::string>, Reason> sums;
  const auto add = [&](const std::string& reason, const std::string& direction, std::uint64_t packets,
                       std::uint64_t bytes, bool since_start = false) {
    Reason& sum = sums[{reason, direction}];
    sum.name = reason;
    sum.direction = direction;
    sum.packets += packets;
    sum.bytes += bytes;
    sum.since_start = since_start;
  };
  for (const char* direction : {"ingress", "egress"}) add("policy", direction, 0, 0);
  for (const store::RuleActivity& rule : context.index.rules) {
    if (!denies(rule)) continue;
    const bool policy = rule.rule.reason == "policy" || rule.rule.reason == "end-of-tier";
    if (!policy && rule.kernel_packets == 0) continue;
    add(policy ? "policy" : rule.rule.reason, std::string(name(rule.rule.direction)), rule.kernel_packets,
        rule.kernel_bytes);
  }
  if (events_ && events_->has_drops()) {
    std::uint64_t packets = 0, bytes = 0;
    for (const Drop& drop : events_->drops()) {
      if (drop.reason == kNetfilter) {
        packets += drop.packets;
        bytes += drop.bytes;
      } else {
        add(drop.reason, drop.egress ? "egress" : "ingress", drop.packets, drop.bytes, true);
      }
    }
    const auto others = others_of_netfilter(packets, bytes, context);
    add(kNetfilter, "unknown", others.first, others.second, true);
  } else {
    for (const auto& [name, value] : drops_of(protocols)) add(name, "unknown", value, 0);
    for (const Link& link : links) {
      add("InterfaceDrop", "ingress", link.rx_dropped, 0);
      add("InterfaceDrop", "egress", link.tx_dropped, 0);
    }
  }
  std::vector<Reason> list;
  for (auto& [key, sum] : sums) list.push_back(std::move(sum));
  return list;
}

// The node's interfaces, those that go out first, the pods' last; with what their drivers count.
std::vector<Link> NodeMetrics::read(const Context& context) {
  auto found = read_links();
  if (!found) return {};
  const std::set<std::string> pods = pod_interfaces(context.index);
  const bool routed =
      std::any_of(found->begin(), found->end(), [](const Link& one) { return one.default_route; });
  // Without a default route everything that is no pod's and not loopback goes out.
  if (!routed)
    for (Link& one : *found) one.default_route = !one.loopback && !pods.contains(one.name);
  const auto rank = [&](const Link& one) { return one.default_route ? 0 : pods.contains(one.name) ? 2 : 1; };
  std::stable_sort(found->begin(), found->end(),
                   [&](const Link& a, const Link& b) { return rank(a) < rank(b); });
  if (found->size() > kMostInterfaces) found->resize(kMostInterfaces);
  for (Link& one : *found) {
    if (one.loopback || pods.contains(one.name)) continue;
    for (const auto& [name, value] : driver_statistics(one.name)) {
      const bool there = std::any_of(one.statistics.begin(), one.statistics.end(),
                                     [&, &known = name](const auto& other) { return other.first == known; });
      if (!there) one.statistics.emplace_back(name, value);
    }
  }
  return std::move(*found);
}

void NodeMetrics::sockets(Exposition& out, Metric state, Metric remote, const SocketCounts& counts,
                          bool kappie) const {
  out.family(state);
  for (std::size_t i = 0; i < kTcpStates.size(); ++i)
    out.sample({kappie ? std::string(kTcpStates[i]) : lower(kTcpStates[i])}, counts.tcp[i]);
  std::vector<std::pair<std::uint64_t, std::pair<IpAddr, std::uint16_t>>> largest;
  for (const auto& [who, count] : counts.remotes) largest.emplace_back(count, who);
  const auto larger = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const std::size_t shown = std::min(remotes_, largest.size());
  std::partial_sort(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(shown), largest.end(),
                    larger);
  out.family(remote);
  std::uint64_t rest = 0;
  for (std::size_t i = shown; i < largest.size(); ++i) rest += largest[i].first;
  for (std::size_t i = 0; i < shown; ++i)
    out.sample({largest[i].second.first.to_string(), std::to_string(largest[i].second.second)},
               largest[i].first);
  out.sample({kOther, kOther}, rest);
}

// What the kernel counted for those that are uplinks now, at first. An uplink that goes keeps its share and
// one that comes later brings what it counts from then on: the sum never gets smaller.
NodeMetrics::Forwarded NodeMetrics::add_uplinks(const std::vector<Link>& links) {
  std::map<int, Forwarded> now;
  for (const Link& link : links)
    if (link.default_route)
      now[link.index] = {link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes};
  for (const auto& [index, counts] : now) {
    const auto before = uplinks_.find(index);
    if (before == uplinks_.end() && forwarding_) continue;
    for (std::size_t i = 0; i < counts.size(); ++i)
      forwarded_[i] += grown(before == uplinks_.end() ? 0 : before->second[i], counts[i]);
  }
  forwarding_ = forwarding_ || !now.empty();
  uplinks_ = std::move(now);
  return forwarded_;
}

void NodeMetrics::node_families(Exposition& out, const Context& context) {
  const std::vector<Link> links = read(context);
  if (events_) events_->set_uplinks(uplinks_of(links));
  const Forwarded forwarded = add_uplinks(links);
  const Protocols protocols = read_protocols();
  const std::vector<Reason> dropped = reasons(context, protocols, links);
  const auto counted = count_sockets();
  const SocketCounts counts = counted ? *counted : SocketCounts{};
  const auto forward = [&](Metric metric, std::size_t what) {
    out.family(metric);
    out.sample({"ingress"}, forwarded[what]);
    out.sample({"egress"}, forwarded[2 + what]);
  };
  const auto drops = [&](Metric metric, std::uint64_t Reason::*what) {
    out.family(metric);
    for (const Reason& one : dropped)
      out.sample({one.name, one.direction},
                 one.since_start ? Value(SinceStart{one.*what, 1, true}) : Value(one.*what));
  };
  const auto flags = [&](Metric metric, bool kappie) {
    if (!events_) return;
    out.family(metric);
    const auto values = events_->flags();
    for (std::size_t i = 0; i < values.size(); ++i)
      out.sample({kappie ? std::string(kTcpFlags[i]) : lower(kTcpFlags[i])}, SinceStart{values[i]});
  };
  using M = Metric;
  forward(M::KappieForwardCount, 0);
  forward(M::KappieForwardBytes, 1);
  drops(M::KappieDropCount, &Reason::packets);
  drops(M::KappieDropBytes, &Reason::bytes);
  if (counted) sockets(out, M::KappieTcpState, M::KappieTcpRemote, counts, true);
  statistics(out, M::KappieTcpStats, protocols.tcp);
  flags(M::KappieTcpFlags, true);
  statistics(out, M::KappieIpStats, protocols.ip);
  statistics(out, M::KappieUdpStats, protocols.udp);
  if (counted) out.single(M::KappieUdpSockets, counts.udp);
  interface_statistics(out, M::KappieInterfaceStats, links);
  forward(M::NodeForwardPackets, 0);
  forward(M::NodeForwardBytes, 1);
  drops(M::NodeDropPackets, &Reason::packets);
  drops(M::NodeDropBytes, &Reason::bytes);
  if (counted) sockets(out, M::NodeTcpSockets, M::NodeTcpRemote, counts, false);
  statistics(out, M::NodeTcpStats, protocols.tcp);
  flags(M::NodeTcpFlags, false);
  statistics(out, M::NodeIpStats, protocols.ip);
  statistics(out, M::NodeUdpStats, protocols.udp);
  if (counted) out.single(M::NodeUdpSockets, counts.udp);
  interface_statistics(out, M::NodeInterfaceStats, links);
  out.family(M::NodeDropSource);
  out.sample({events_ && events_->has_drops() ? "kfree_skb" : "proc"}, std::uint64_t{1});
}

}  // namespace tierlog::prometheus
