#include "policy/set_table.h"

#include <algorithm>
#include <functional>
#include <string_view>

namespace tierlog::policy {
namespace {

// No canonical selector starts like this: labels have no colon.
constexpr std::string_view kNetsPrefix = "nets:";
constexpr std::string_view kServicePrefix = "service:";
constexpr std::string_view kNodesPrefix = "nodes:";

template <typename T, typename Make>
std::uint32_t interned(std::unordered_map<std::string, std::uint32_t>& by_key, std::vector<T>& sets,
                       const std::string& key, const Make& make) {
  const auto [entry, is_new] = by_key.emplace(key, static_cast<std::uint32_t>(sets.size()));
  if (is_new) sets.push_back(make());
  return entry->second;
}

template <typename Range, typename Text>
std::string listed(const Range& range, std::string_view separator, const Text& text) {
  std::string result;
  for (const auto& item : range) {
    if (!result.empty()) result += separator;
    result += text(item);
  }
  return result;
}

template <typename T>
void sort_unique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

std::vector<Cidr> minimal(std::vector<Cidr> nets) {
  std::sort(nets.begin(), nets.end());
  std::vector<Cidr> kept;
  for (const Cidr& net : nets)
    // A net sorts behind every net that it lies in, and nets nest or are apart.
    if (kept.empty() || !kept.back().contains(net)) kept.push_back(net);
  return kept;
}

std::vector<Cidr> SetTable::members_of(const Selector& selector) {
  PopulationMemory::Members& kept = population_.remembered(selector);
  const std::uint64_t content = population_.content(selector);
  if (kept.content == content) return kept.members;
  std::vector<Cidr> members;
  for (const std::uint32_t index : population_.selected(selector)) {
    const Population::Group& group = population_.groups()[index];
    for_each_member(population_.cluster(), group, [&](const auto& addresses, const auto& /*ports*/) {
      for (const IpAddr& address : addresses) members.push_back(Cidr::host(address));
    });
    for (const NetworkSet* set : group.sets)
      members.insert(members.end(), set->nets.begin(), set->nets.end());
  }
  kept.content = content;
  kept.members = minimal(std::move(members));
  return kept.members;
}

std::uint32_t SetTable::of_selector(const Selector& selector, const std::string& text) {
  const std::string& key = selector.canonical();
  return interned(by_key_, program_.sets, key, [&] {
    return AddressSet{key, text.empty() ? key : text, members_of(selector)};
  });
}

std::uint32_t SetTable::of_nodes(const Selector& selector, const std::string& text) {
  const std::string key = std::string(kNodesPrefix) + selector.canonical();
  return interned(by_key_, program_.sets, key, [&] {
    std::vector<Cidr> members;
    for (const NodeObject& node : population_.cluster().nodes)
      if (selector.matches(node.labels))
        for (const IpAddr& address : node.addresses) members.push_back(Cidr::host(address));
    return AddressSet{key, text.empty() ? "a node" : text, minimal(std::move(members))};
  });
}

std::uint32_t SetTable::of_nets(const std::vector<Cidr>& nets) {
  std::vector<Cidr> members = minimal(nets);
  const std::string text = listed(members, ", ", std::mem_fn(&Cidr::to_string));
  const std::string key = std::string(kNetsPrefix) + text;
  return interned(by_key_, program_.sets, key, [&] { return AddressSet{key, text, members}; });
}

const ServiceObject* SetTable::find(const ServiceSpec& service) const {
  const auto& services = population_.cluster().services;
  const auto found = std::find_if(services.begin(), services.end(), [&](const ServiceObject& object) {
    return object.name == service.name && object.service_namespace == service.service_namespace;
  });
  return found == services.end() ? nullptr : &*found;
}

std::uint32_t SetTable::of_service(const ServiceSpec& service) {
  const std::string text = service.service_namespace + "/" + service.name;
  const std::string key = std::string(kServicePrefix) + text;
  return interned(by_key_, program_.sets, key, [&] {
    std::vector<Cidr> members;
    if (const ServiceObject* object = find(service))
      for (const IpAddr& address : object->addresses) members.push_back(Cidr::host(address));
    return AddressSet{key, "service " + text, minimal(std::move(members))};
  });
}

std::uint32_t SetTable::ports_of_service(const ServiceSpec& service) {
  const std::string text = service.service_namespace + "/" + service.name;
  const std::string key = std::string(kServicePrefix) + text;
  return interned(ports_by_key_, program_.port_sets, key, [&] {
    PortSet set{key, "service " + text, {}};
    if (const ServiceObject* object = find(service)) set.members = object->ports;
    sort_unique(set.members);
    return set;
  });
}

std::uint32_t SetTable::of_named_ports(std::vector<std::string> names,
                                       const std::optional<Selector>& selector,
                                       std::optional<std::uint8_t> protocol) {
  sort_unique(names);
  const Selector who = selector.value_or(Selector::all());
  const std::string text = listed(names, ", ", std::identity());
  const std::string key =
      "ports:" + text + " " + (protocol ? protocol::name(*protocol) : "any") + " of " + who.canonical();
  return interned(ports_by_key_, program_.port_sets, key, [&] {
    PortSet set{key, text, {}};
    for (const std::uint32_t index : population_.selected(who))
      for_each_member(population_.cluster(), population_.groups()[index],
                      [&](const auto& addresses, const auto& ports) {
                        for (const NamedPort& port : ports) {
                          if (!std::binary_search(names.begin(), names.end(), port.name)) continue;
                          if (protocol && port.protocol != *protocol) continue;
                          for (const IpAddr& address : addresses)
                            set.members.push_back({address, port.protocol, port.port});
                        }
                      });
    sort_unique(set.members);
    return set;
  });
}

SetOrigin origin_of(const AddressSet& set) {
  if (set.key.starts_with(kNetsPrefix)) return SetOrigin::Nets;
  return set.key.starts_with(kServicePrefix) ? SetOrigin::Service : SetOrigin::Selector;
}

}  // namespace tierlog::policy
