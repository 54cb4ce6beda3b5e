#include "logger/address_book.h"

#include <algorithm>
#include <array>

namespace tierlog::logger {
namespace {

// Events are seconds late at most; what is older than this can no longer be asked for.
constexpr auto kForgetAfter = std::chrono::minutes(10);

bool is_private(const IpAddr& address) {
  static const std::array nets{
      *Cidr::parse("10.0.0.0/8"),    *Cidr::parse("172.16.0.0/12"),  *Cidr::parse("192.168.0.0/16"),
      *Cidr::parse("100.64.0.0/10"), *Cidr::parse("169.254.0.0/16"), *Cidr::parse("127.0.0.0/8"),
      *Cidr::parse("fc00::/7"),      *Cidr::parse("fe80::/10"),      *Cidr::parse("::1/128")};
  return std::any_of(nets.begin(), nets.end(), [&](const Cidr& net) { return net.contains(address); });
}

std::shared_ptr<const store::Peer> pod_peer(const policy::Endpoint& endpoint, const IpAddr& address) {
  return std::make_shared<store::Peer>(store::Peer{.ip = address,
                                                   .kind = store::PeerKind::Pod,
                                                   .peer_namespace = endpoint.endpoint_namespace,
                                                   .name = endpoint.name,
                                                   .workload = endpoint.workload,
                                                   .labels = endpoint.labels});
}

std::shared_ptr<const store::Peer> node_peer(const policy::NodeObject& node, const IpAddr& address) {
  return std::make_shared<store::Peer>(store::Peer{.ip = address,
                                                   .kind = store::PeerKind::Node,
                                                   .peer_namespace = {},
                                                   .name = node.name,
                                                   .workload = {},
                                                   .labels = node.labels});
}

std::shared_ptr<const store::Peer> set_peer(const policy::NetworkSet& set) {
  return std::make_shared<store::Peer>(store::Peer{.ip = {},
                                                   .kind = store::PeerKind::NetworkSet,
                                                   .peer_namespace = set.set_namespace,
                                                   .name = set.name,
                                                   .workload = {},
                                                   .labels = set.labels});
}

}  // namespace

void AddressBook::update(const policy::Cluster& cluster, const std::vector<policy::NetworkSet>& more_sets,
                         WallTime since) {
  std::unordered_map<IpAddr, Holder> now;
  for (const policy::NodeObject& node : cluster.nodes)
    for (const IpAddr& address : node.addresses) now[address] = node_peer(node, address);
  for (const policy::Endpoint& endpoint : cluster.endpoints) {
    if (endpoint.host_network) continue;
    for (const IpAddr& address : endpoint.addresses) now[address] = pod_peer(endpoint, address);
  }
  close_and_forget(now, since);
  for (const auto& [address, holder] : now) {
    std::vector<Span>& spans = history_[address];
    if (spans.empty() || spans.back().until) spans.push_back({since, std::nullopt, holder});
  }

  nets_.clear();
  for (const auto* sets : {&cluster.network_sets, &more_sets})
    for (const policy::NetworkSet& set : *sets) {
      const Holder holder = set_peer(set);
      for (const Cidr& net : set.nets) nets_.push_back({net, holder});
    }
  std::stable_sort(nets_.begin(), nets_.end(),
                   [](const NamedNet& a, const NamedNet& b) { return a.net.prefix > b.net.prefix; });
}

void AddressBook::close_and_forget(const std::unordered_map<IpAddr, Holder>& now, WallTime since) {
  for (auto entry = history_.begin(); entry != history_.end();) {
    std::vector<Span>& spans = entry->second;
    const auto found = now.find(entry->first);
    if (!spans.empty() && !spans.back().until &&
        (found == now.end() || !(*found->second == *spans.back().holder)))
      spans.back().until = since;
    std::erase_if(spans, [&](const Span& span) { return span.until && *span.until + kForgetAfter < since; });
    entry = spans.empty() ? history_.erase(entry) : std::next(entry);
  }
}

store::Peer AddressBook::peer(const IpAddr& address, WallTime at) const {
  if (const auto found = history_.find(address); found != history_.end()) {
    const std::vector<Span>& spans = found->second;
    for (auto span = spans.rbegin(); span != spans.rend(); ++span)
      if (span->from <= at) {
        if (!span->until || at < *span->until) return *span->holder;
        break;
      }
    // Seen just before we were told who it is: the first holder we know of.
    if (!spans.empty() && at < spans.front().from) return *spans.front().holder;
  }
  for (const NamedNet& named : nets_)
    if (named.net.contains(address)) {
      store::Peer peer = *named.holder;
      peer.ip = address;
      return peer;
    }
  store::Peer unknown;
  unknown.ip = address;
  unknown.kind = is_private(address) ? store::PeerKind::Private : store::PeerKind::Public;
  return unknown;
}

}  // namespace tierlog::logger
