#include "daemon/world.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <cstring>

#include "base/handle.h"
#include "policy/lint.h"

namespace tierlog::daemon {
namespace {

constexpr const char* kRevisionKey = "policy_revision";

// The addresses of this network namespace: the node, as its pods see it.
std::vector<IpAddr> own_addresses() {
  std::vector<IpAddr> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  const Owned<ifaddrs, ::freeifaddrs> owner(list);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    IpAddr address;
    if (entry->ifa_addr->sa_family == AF_INET) {
      const auto* in = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
      address = IpAddr::v4(ntohl(in->sin_addr.s_addr));
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      const auto* in = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
      address.family = Family::V6;
      std::memcpy(address.bytes.data(), &in->sin6_addr, 16);
    } else {
      continue;
    }
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end())
      addresses.push_back(address);
  }
  return addresses;
}

policy::Endpoint& endpoint_of(policy::Cluster& cluster, const store::RegisteredEndpoint& registration) {
  for (policy::Endpoint& endpoint : cluster.endpoints)
    if (endpoint.endpoint_namespace == registration.endpoint_namespace && endpoint.name == registration.name)
      return endpoint;
  policy::Endpoint fresh;
  fresh.endpoint_namespace = registration.endpoint_namespace;
  fresh.name = registration.name;
  fresh.workload = policy::workload_of(registration.name);
  cluster.endpoints.push_back(std::move(fresh));
  return cluster.endpoints.back();
}

void deny_everything(policy::Program& program) {
  for (policy::EndpointClass& endpoint_class : program.classes) {
    endpoint_class.tiers.clear();
    endpoint_class.fallback_action = policy::Action::Deny;
    endpoint_class.fallback = endpoint_class.direction == Direction::Ingress ? reserved::kNotReadyIngress
                                                                             : reserved::kNotReadyEgress;
  }
}

}  // namespace

policy::Cluster assemble_cluster(const endpoints::Topology& topology,
                                 const std::vector<store::RegisteredEndpoint>& registered,
                                 const policy::PolicySet& policies, const std::string& node,
                                 const std::vector<IpAddr>& node_addresses) {
  policy::Cluster cluster = topology.cluster;
  for (const policy::NamespaceObject& object : policies.namespaces) {
    policy::NamespaceObject& known = cluster.namespaces[object.name];
    known.name = object.name;
    for (const auto& [key, value] : object.labels) known.labels[key] = value;
    if (object.log_decisions != policy::LogDecisions::None) known.log_decisions = object.log_decisions;
  }
  for (const store::RegisteredEndpoint& registration : registered) {
    policy::Endpoint& endpoint = endpoint_of(cluster, registration);
    endpoint.local = true;
    endpoint.node = node;
    endpoint.interface = registration.host_interface;
    for (const auto& [key, value] : registration.labels) endpoint.labels[key] = value;
    endpoint.addresses.clear();
    for (const std::string& text : registration.addresses)
      if (const auto address = IpAddr::parse(text)) endpoint.addresses.push_back(*address);
  }
  const auto self = std::find_if(cluster.nodes.begin(), cluster.nodes.end(),
                                 [&](const policy::NodeObject& object) { return object.name == node; });
  policy::NodeObject& own = self == cluster.nodes.end() ? cluster.nodes.emplace_back() : *self;
  own.name = node;
  for (const IpAddr& address : node_addresses)
    if (std::find(own.addresses.begin(), own.addresses.end(), address) == own.addresses.end())
      own.addresses.push_back(address);
  return cluster;
}

World::World(const Config& config, store::StateDb& state, dataplane::Backend& backend, Applied applied)
    : config_(config), state_(state), backend_(backend), applied_(std::move(applied)) {}

Result<void> World::start() {
  TL_ASSIGN(registered_, state_.endpoints());
  TL_ASSIGN(const auto revision, state_.get(kRevisionKey));
  if (revision) revision_ = std::stoull(*revision);
  auto loaded = load_files();
  ready_ = loaded.has_value();
  auto applied = apply();
  if (!loaded) {
    last_error_ = loaded.error().message;
    return loaded;
  }
  return applied;
}

Result<void> World::load_files() {
  endpoints::Topology topology;
  Diagnostics findings;
  if (!config_.topology.empty()) {
    auto loaded = endpoints::load_topology(config_.topology);
    findings.add(loaded.findings);
    topology = std::move(loaded.topology);
  }
  auto loaded = policy::load_paths(config_.policies);
  findings.add(loaded.findings);
  if (!findings.has_errors()) findings.add(policy::lint(loaded.set));
  findings.sort();
  if (findings.has_errors()) {
    std::string text = findings.to_string();
    text.pop_back();  // the last line's end
    return fail(ErrorCode::InvalidArgument, std::move(text));
  }
  warnings_ = findings;
  policies_ = std::move(loaded.set);
  topology_ = std::move(topology);
  return {};
}

std::shared_ptr<const policy::Cluster> World::assemble() const {
  return std::make_shared<const policy::Cluster>(
      assemble_cluster(topology_, registered_, policies_, config_.node, own_addresses()));
}

Result<void> World::apply() {
  const auto attempt = [&]() -> Result<void> {
    TL_ASSIGN(auto compiled,
              policy::compile(policies_, assemble(), state_,
                              {.scope = policy::CompileOptions::Scope::Local, .revision = revision_ + 1}));
    if (!ready_) deny_everything(compiled);
    if (!config_.host_to_pod_by_policy)
      for (const policy::NodeObject& node : compiled.cluster->nodes)
        if (node.name == config_.node)
          compiled.host_addresses.insert(node.addresses.begin(), node.addresses.end());
    const auto program = std::make_shared<const policy::Program>(std::move(compiled));
    TL_TRY(backend_.apply(program));
    program_ = program;
    ++revision_;
    TL_TRY(state_.put(kRevisionKey, std::to_string(revision_)));
    applied_(program_, policies_.network_sets);
    return {};
  };
  auto done = attempt();
  last_error_ = done ? "" : done.error().message;
  return done;
}

Result<void> World::reload() {
  auto old_policies = policies_;
  auto old_topology = topology_;
  const bool was_ready = ready_;
  if (auto loaded = load_files(); !loaded) {
    last_error_ = loaded.error().message;
    return loaded;
  }
  ready_ = true;
  auto done = apply();
  if (!done) {
    policies_ = std::move(old_policies);
    topology_ = std::move(old_topology);
    ready_ = was_ready;
  }
  return done;
}

Result<void> World::add_endpoint(const store::RegisteredEndpoint& endpoint) {
  auto before = registered_;
  std::erase_if(registered_, [&](const store::RegisteredEndpoint& other) {
    return other.container_id == endpoint.container_id && other.ifname == endpoint.ifname;
  });
  registered_.push_back(endpoint);
  TL_TRY(state_.put_endpoint(endpoint));
  auto done = apply();
  if (!done) {
    registered_ = std::move(before);
    static_cast<void>(state_.remove_endpoint(endpoint.container_id, endpoint.ifname));
  }
  return done;
}

Result<void> World::remove_endpoint(const std::string& container_id, const std::string& ifname) {
  const auto gone = std::erase_if(registered_, [&](const store::RegisteredEndpoint& other) {
    return other.container_id == container_id && other.ifname == ifname;
  });
  TL_TRY(state_.remove_endpoint(container_id, ifname));
  if (gone == 0) return {};
  return apply();
}

Result<void> World::check_endpoint(const store::RegisteredEndpoint& endpoint) const {
  const std::string shown = endpoint.endpoint_namespace + "/" + endpoint.name;
  for (const std::string& text : endpoint.addresses) {
    const auto address = IpAddr::parse(text);
    const policy::ProgramEndpoint* enforced = address && program_ ? program_->enforced(*address) : nullptr;
    if (enforced == nullptr)
      return fail(ErrorCode::NotFound, shown + " with address " + text + " is not enforced");
    const policy::Endpoint& known = program_->cluster->endpoints[enforced->endpoint];
    if (known.display() != shown)
      return fail(ErrorCode::NotFound,
                  "address " + text + " is enforced for " + known.display() + ", not for " + shown);
  }
  return {};
}

}  // namespace tierlog::daemon
