#include "daemon/world.h"

#include <algorithm>
#include <utility>

#include "daemon/admission.h"
#include "endpoints/service_backends.h"
#include "policy/not_ready.h"

namespace tierlog::daemon {
namespace {

constexpr const char* kRevisionKey = "policy_revision";

using EndpointIndex = std::map<std::pair<std::string, std::string>, std::size_t>;

policy::Endpoint& endpoint_of(policy::Cluster& cluster, EndpointIndex& known,
                              const store::RegisteredEndpoint& registration) {
  const auto [found, is_new] =
      known.try_emplace({registration.endpoint_namespace, registration.name}, cluster.endpoints.size());
  if (!is_new) return cluster.endpoints[found->second];
  policy::Endpoint fresh;
  fresh.endpoint_namespace = registration.endpoint_namespace;
  fresh.name = registration.name;
  fresh.workload = policy::workload_of(registration.name);
  cluster.endpoints.push_back(std::move(fresh));
  return cluster.endpoints.back();
}

// Notes which key has which id, on the way to the registry.
class NotingRuleIds final : public policy::RuleIdRegistry {
 public:
  NotingRuleIds(policy::RuleIdRegistry& registry, std::vector<store::KnownRule>& noted)
      : registry_(registry), noted_(noted) {}

  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override {
    TL_ASSIGN(auto identities, registry_.identify(keys));
    for (std::size_t i = 0; i < keys.size(); ++i)
      noted_.push_back({store::key_hash(keys[i].text()), identities[i]});
    return identities;
  }

 private:
  policy::RuleIdRegistry& registry_;
  std::vector<store::KnownRule>& noted_;
};

}  // namespace

policy::Cluster assemble_cluster(const endpoints::Topology& topology,
                                 const std::vector<store::RegisteredEndpoint>& registered,
                                 const policy::PolicySet& policies, const std::string& node,
                                 const std::vector<IpAddr>& node_addresses) {
  policy::Cluster cluster = topology.cluster;
  policy::add_objects(cluster, policies);
  for (policy::HostEndpoint& host : cluster.host_endpoints) host.local = host.node == node;
  EndpointIndex known;
  for (std::size_t i = 0; i < cluster.endpoints.size(); ++i)
    known.try_emplace({cluster.endpoints[i].endpoint_namespace, cluster.endpoints[i].name}, i);
  for (const store::RegisteredEndpoint& registration : registered) {
    policy::Endpoint& endpoint = endpoint_of(cluster, known, registration);
    endpoint.local = true;
    endpoint.node = node;
    endpoint.interface = registration.host_interface;
    endpoint.mac = registration.mac;
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

World::World(const Config& config, store::StateDb& state, dataplane::Backend& backend, const HostView& host,
             Applied applied, BridgesOf bridges_of)
    : config_(config),
      state_(state),
      backend_(backend),
      host_(host),
      applied_(std::move(applied)),
      bridges_of_(std::move(bridges_of)) {}

std::vector<std::string> World::close_unknown(const std::set<std::string>& interfaces) {
  std::vector<std::string> closed;
  const auto registered = state_.endpoints();
  if (!registered) return closed;
  for (const std::string& name : interfaces) {
    const bool known = std::any_of(registered->begin(), registered->end(),
                                   [&](const auto& endpoint) { return endpoint.host_interface == name; });
    if (!known && host_.has_interface(name)) closed.push_back(name);
  }
  closed_interfaces_.insert(closed_interfaces_.end(), closed.begin(), closed.end());
  return closed;
}

Result<void> World::start() {
  TL_ASSIGN(registered_, state_.endpoints());
  TL_ASSIGN(const auto revision, state_.get(kRevisionKey));
  if (revision) revision_ = std::stoull(*revision);
  auto files = read_inputs(config_);
  const auto done = files ? use(std::move(*files)) : Result<void>(fail(files.error()));
  if (done) return {};
  refused_ = done.error().code != ErrorCode::InvalidArgument;
  files_error_ = done.error().message;
  const auto instead = use_last_good();
  if (!instead && instead.error().code != ErrorCode::NotFound)
    files_error_ += "\nthe last good set is not in force either: " + instead.error().message;
  return fail(done.error().code, files_error_);
}

// Errors: NotFound (there is none: everything is denied), Refused (the rules of before stay in force).
Result<void> World::use_last_good() {
  auto kept = kept_inputs(state_);
  if (!kept || !*kept) {
    TL_TRY(apply());
    return kept ? Result<void>(fail(ErrorCode::NotFound, "there is no last good set")) : fail(kept.error());
  }
  const std::string why = files_error_;
  TL_TRY(use(std::move((*kept)->inputs)));
  files_error_ = why;
  return {};
}

// Puts `inputs` into force and keeps them, or leaves all as it was.
Result<void> World::use(Inputs inputs) {
  if (config_.lab_cluster_ips) endpoints::assign_cluster_ips(inputs.topology);
  std::swap(inputs_, inputs);
  const bool was_ready = std::exchange(ready_, true);
  const std::string apply_error = apply_error_;
  if (auto done = apply(); !done) {
    std::swap(inputs_, inputs);
    ready_ = was_ready;
    apply_error_ = apply_error;
    return done;
  }
  files_error_.clear();
  auto kept = keep_inputs(state_, inputs_, SystemClock().wall());
  since_ = kept ? *kept : SystemClock().wall();
  if (!kept)
    inputs_.warnings.warning({}, "in force, but not kept as the last good set: " + kept.error().message);
  return {};
}

std::shared_ptr<const policy::Cluster> World::assemble() const {
  auto cluster = std::make_shared<policy::Cluster>(
      assemble_cluster(inputs_.topology, registered_, inputs_.policies, config_.node, host_.addresses()));
  if (!bridges_of_) return cluster;
  std::set<std::string> interfaces;
  for (const policy::Endpoint& endpoint : cluster->endpoints)
    if (endpoint.local && !endpoint.interface.empty()) interfaces.insert(endpoint.interface);
  const auto bridges = bridges_of_(interfaces);
  for (policy::Endpoint& endpoint : cluster->endpoints) {
    const auto bridge = bridges.find(endpoint.interface);
    if (endpoint.local && bridge != bridges.end()) endpoint.bridge = bridge->second;
  }
  return cluster;
}

Result<void> World::apply() {
  const auto attempt = [&]() -> Result<void> {
    NotingRuleIds ids(state_, rule_keys_);
    TL_ASSIGN(auto compiled, policy::compile(inputs_.policies, assemble(), ids,
                                             {.scope = policy::CompileOptions::Scope::Local,
                                              .revision = revision_ + 1,
                                              .memory = &memory_,
                                              .failsafes = config_.failsafes}));
    if (!ready_) policy::deny_everything(compiled);
    if (config_.audits)
      for (policy::ProgramEndpoint& endpoint : compiled.endpoints) endpoint.audited = true;
    if (!config_.host_to_pod_by_policy)
      for (const policy::NodeObject& node : compiled.cluster->nodes)
        if (node.name == config_.node)
          compiled.host_addresses.insert(node.addresses.begin(), node.addresses.end());
    std::erase_if(closed_interfaces_, [&](const std::string& name) { return !host_.has_interface(name); });
    compiled.closed_interfaces = closed_interfaces_;
    const auto program = std::make_shared<const policy::Program>(std::move(compiled));
    // A start without room on the disk enforces what it knows; it must not deny everything instead.
    if (auto kept = state_.put(kRevisionKey, std::to_string(revision_ + 1)); !kept && program_)
      return fail(kept.error());
    TL_TRY(backend_.apply(program));
    program_ = program;
    ++revision_;
    applied_(program_, inputs_.policies.network_sets);
    told_rule_keys_.insert(told_rule_keys_.end(), rule_keys_.begin(), rule_keys_.end());
    rule_keys_.clear();
    return {};
  };
  auto done = attempt();
  apply_error_ = done ? "" : done.error().message;
  return done;
}

store::Moment World::moment(WallTime since) const {
  std::vector<IpAddr> hosts(program_->host_addresses.begin(), program_->host_addresses.end());
  std::sort(hosts.begin(), hosts.end());
  return {.since = since,
          .revision = program_->revision,
          .ready = ready_,
          .texts = inputs_.texts.policies,
          .host_addresses = std::move(hosts)};
}

// What is in force says the same: nothing has to be done, and no revision to be counted.
bool World::in_force(const InputTexts& texts) const {
  if (!ready_ || !last_error().empty() || !program_ || !texts.same_as(inputs_.texts)) return false;
  const auto cluster = assemble();
  return cluster->endpoints == program_->cluster->endpoints && cluster->nodes == program_->cluster->nodes &&
         cluster->host_endpoints == program_->cluster->host_endpoints;
}

Result<bool> World::reload() {
  auto texts = read_texts(config_);
  if (in_force(texts)) return false;
  auto files = understand(std::move(texts));
  auto done = files ? use(std::move(*files)) : Result<void>(fail(files.error()));
  refused_ = !done && done.error().code != ErrorCode::InvalidArgument;
  if (done) return true;
  files_error_ = done.error().message;
  return fail(done.error());
}

Result<std::vector<store::RegisteredEndpoint>> World::add_endpoint(const store::RegisteredEndpoint& endpoint) {
  TL_ASSIGN(auto superseded,
            admit(endpoint, registered_, inputs_.topology.cluster.endpoints, config_.node, host_));
  const auto before = registered_;
  const auto closed_before = closed_interfaces_;
  const std::string apply_error = apply_error_;
  std::erase_if(registered_, [&](const store::RegisteredEndpoint& other) {
    return std::find(superseded.begin(), superseded.end(), other) != superseded.end();
  });
  registered_.push_back(endpoint);
  std::erase(closed_interfaces_, endpoint.host_interface);
  auto done = exchange(superseded, {endpoint});
  if (done) done = apply();
  if (!done) {
    registered_ = before;
    closed_interfaces_ = closed_before;
    apply_error_ = apply_error;
    static_cast<void>(exchange({endpoint}, superseded));
    return fail(done.error());
  }
  std::erase_if(superseded, [&](const store::RegisteredEndpoint& other) {
    return other.container_id == endpoint.container_id && other.ifname == endpoint.ifname;
  });
  return superseded;
}

// In state.db.
Result<void> World::exchange(const std::vector<store::RegisteredEndpoint>& old,
                             const std::vector<store::RegisteredEndpoint>& fresh) {
  for (const store::RegisteredEndpoint& one : old)
    TL_TRY(state_.remove_endpoint(one.container_id, one.ifname));
  for (const store::RegisteredEndpoint& one : fresh) TL_TRY(state_.put_endpoint(one));
  return {};
}

Result<void> World::remove_endpoint(const std::string& container_id, const std::string& ifname) {
  const auto gone = std::erase_if(registered_, [&](const store::RegisteredEndpoint& other) {
    const bool is_it = other.container_id == container_id && other.ifname == ifname;
    if (is_it) closed_interfaces_.push_back(other.host_interface);
    return is_it;
  });
  TL_TRY(state_.remove_endpoint(container_id, ifname));
  if (gone == 0) return {};
  return apply();
}

Result<void> World::check_endpoint(const store::RegisteredEndpoint& endpoint) const {
  const std::string shown = endpoint.endpoint_namespace + "/" + endpoint.name;
  if (!host_.has_interface(endpoint.host_interface))
    return fail(ErrorCode::NotFound, shown + " is not enforced: its interface " + endpoint.host_interface + " is gone");
  for (const std::string& text : endpoint.addresses) {
    const auto address = IpAddr::parse(text);
    const policy::ProgramEndpoint* enforced = address && program_ ? program_->enforced(*address) : nullptr;
    if (enforced == nullptr)
      return fail(ErrorCode::NotFound, shown + " with address " + text + " is not enforced");
    const policy::Endpoint& known = program_->cluster->endpoints[enforced->endpoint];
    if (known.display() != shown)
      return fail(ErrorCode::NotFound,
                  "address " + text + " is enforced for " + known.display() + ", not for " + shown);
    if (known.interface != endpoint.host_interface)
      return fail(ErrorCode::NotFound, shown + " is enforced at interface " + known.interface + ", not at " +
                                           endpoint.host_interface);
  }
  return {};
}

}  // namespace tierlog::daemon
