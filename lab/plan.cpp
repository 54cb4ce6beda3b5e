#include "lab/plan.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cctype>
#include <filesystem>
#include <set>

#include "endpoints/service_backends.h"
#include "lab/network.h"

namespace tierlog::lab {
namespace {

constexpr const char* kOnlyNode = "node-1";
constexpr std::size_t kLongestSocketPath = 107;
// As a cluster hands them out by itself.
constexpr std::uint16_t kFirstNodePort = 30000;
constexpr std::size_t kMostNodes = 16;

std::string absolute(const std::string& path) {
  std::error_code error;
  const auto full = std::filesystem::absolute(path, error).lexically_normal();
  return error ? path : full.string();
}

std::string own_folder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

template <typename T>
std::vector<T> parse_all(std::initializer_list<const char*> texts, const endpoints::LabOptions& lab) {
  std::vector<T> values;
  for (const char* text : texts) {
    const bool v6 = std::string_view(text).find(':') != std::string_view::npos;
    if (lab.has(v6 ? Family::V6 : Family::V4)) values.push_back(*T::parse(text));
  }
  return values;
}

void append(std::vector<IpAddr>& to, const std::vector<IpAddr>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

std::vector<policy::NodeObject> built_nodes(const policy::Cluster& cluster) {
  if (cluster.nodes.empty()) return {policy::NodeObject{kOnlyNode, {}, {}}};
  std::set<std::string> wanted;
  for (const auto& pod : cluster.endpoints) {
    wanted.insert(pod.node.empty() ? cluster.nodes.front().name : pod.node);
  }
  std::vector<policy::NodeObject> built;
  std::ranges::copy_if(cluster.nodes, std::back_inserter(built),
                       [&](const auto& node) { return wanted.contains(node.name); });
  if (built.empty()) built.push_back(cluster.nodes.front());
  return built;
}

// Whatever somebody has, but for this node's own pods.
std::vector<IpAddr> foreign_to(const LabState& state, const NodeState& node, const policy::Cluster& cluster) {
  std::vector<IpAddr> foreign;
  for (const auto& object : cluster.nodes) append(foreign, object.addresses);
  for (const auto& pod : cluster.endpoints) {
    const bool own = made_here(state, pod) && state.node(pod.node) == &node && !pod.host_network;
    if (!own) append(foreign, pod.addresses);
  }
  append(foreign, state.outside);
  return foreign;
}

NodeState plan_node(const LabState& state, const policy::NodeObject& object, std::size_t number,
                    const endpoints::Topology& topology, const LabOptions& options) {
  NodeState node;
  node.name = object.name;
  node.folder = number == 0 ? state.folder : state.folder + "/" + object.name;
  node.database = node.file("flows.db");
  if (const auto moved = options.daemon_config.find("store.path"); moved != options.daemon_config.end()) {
    const std::filesystem::path path = absolute(moved->second);
    node.database = number == 0 ? path : path.parent_path() / object.name / path.filename();
  }
  node.addresses = object.addresses;
  node.chain = {topology.lab.cni, options.cni_folder,
                options.bin_folder.empty() ? own_folder() : absolute(options.bin_folder),
                options.start_daemon ? node.file("tierlogd.sock") : ""};
  auto cidrs = topology.lab.pod_cidrs;
  if (cidrs.empty()) cidrs = parse_all<Cidr>({"10.244.0.0/24", "fd00:244::/64"}, topology.lab);
  for (const auto& cidr : cidrs) node.pod_cidrs.push_back(block(cidr, number));
  return node;
}

void plan_pods(LabState& state, NodeState& node, const policy::Cluster& cluster) {
  bool dynamic = false;
  for (const auto& pod : cluster.endpoints) {
    if (!made_here(state, pod) || pod.host_network || state.node(pod.node) != &node) continue;
    append(node.fixed, pod.addresses);
    dynamic = dynamic || pod.addresses.empty();
  }
  // A bridge's subnet has to hold them; without a use they would only make it wide.
  if (node.chain.cni == Cni::Bridge && !dynamic) node.pod_cidrs.clear();
  node.foreign = foreign_to(state, node, cluster);
}

Result<void> check_family(const LabState& state, const std::string& what, const IpAddr& address) {
  if (state.has(address.family)) return {};
  return fail(ErrorCode::InvalidArgument,
              what + ": " + address.to_string() + " is of a family that is not in lab.families");
}

// What one bridge holds is on its link; another node's pods in it would never be routed to.
Result<void> check_bridges(const LabState& state) {
  if (state.nodes.size() < 2 || state.nodes.front().chain.cni != Cni::Bridge) return {};
  for (const auto& node : state.nodes) {
    TL_ASSIGN(AddressPlan plan, AddressPlan::make(Cni::Bridge, node.fixed, node.foreign, node.pod_cidrs));
    for (const auto& own : node.fixed) {
      TL_ASSIGN(const Subnet subnet, plan.subnet_of(own));
      for (const auto& other : state.nodes) {
        const auto inside = std::ranges::find_if(other.fixed, [&](const IpAddr& address) {
          return address.family == own.family && subnet.cidr.contains(address);
        });
        if (&other == &node || inside == other.fixed.end()) continue;
        return fail(ErrorCode::InvalidArgument, inside->to_string() + " of " + other.name +
                                                    " is in the bridge's subnet " + subnet.cidr.to_string() +
                                                    " of " + node.name +
                                                    "; expected subnets of their own, or lab.cni: ptp");
      }
    }
  }
  return {};
}

void assign_node_ports(std::vector<endpoints::Service>& services) {
  std::set<std::pair<std::uint8_t, std::uint16_t>> taken;
  for (const auto& service : services)
    for (const auto& port : service.ports) taken.emplace(port.protocol, port.node_port);
  for (auto& service : services) {
    for (auto& port : service.ports) {
      if (!service.node_port || port.node_port != 0) continue;
      port.node_port = kFirstNodePort;
      while (taken.contains({port.protocol, port.node_port})) ++port.node_port;
      taken.emplace(port.protocol, port.node_port);
    }
  }
}

}  // namespace

Cidr block(const Cidr& first, std::size_t number) {
  Cidr found = first;
  if (first.prefix == 0) return found;
  std::size_t at = (std::size_t{first.prefix} - 1) / 8;
  std::size_t carry = number << (7 - (first.prefix - 1) % 8);
  for (;;) {
    const std::size_t sum = found.address.bytes[at] + carry;
    found.address.bytes[at] = static_cast<std::uint8_t>(sum & 0xff);
    carry = sum >> 8;
    if (carry == 0 || at == 0) return found;
    --at;
  }
}

bool made_here(const LabState& state, const policy::Endpoint& pod) {
  return state.node(pod.node) != nullptr;
}

LabState plan_state(const endpoints::Topology& topology, const std::string& topology_path,
                    const LabOptions& options) {
  LabState state;
  state.name = options.name;
  state.folder =
      absolute(options.folder.empty() ? std::string(kLabsFolder) + "/" + options.name : options.folder);
  state.topology = topology_path.empty() ? "" : absolute(topology_path);
  state.life = options.life;
  const char* given = std::getenv("TIERLOG_DATAPLANE");
  state.dataplane = !options.dataplane.empty() ? options.dataplane : given != nullptr ? given : topology.lab.dataplane;
  state.families = topology.lab.families;
  state.masquerade = topology.lab.masquerade;
  state.outside = topology.lab.outside;
  if (state.outside.empty()) {
    state.outside = parse_all<IpAddr>({"203.0.113.9", "2001:db8:113::9"}, topology.lab);
  }
  for (const auto& object : built_nodes(topology.cluster)) {
    state.nodes.push_back(plan_node(state, object, state.nodes.size(), topology, options));
  }
  for (auto& node : state.nodes) plan_pods(state, node, topology.cluster);
  state.services = assign_services(topology);
  return state;
}

Result<void> check_plan(const LabState& state, const endpoints::Topology& topology) {
  if (::geteuid() != 0) {
    return fail(ErrorCode::Refused, "a lab needs root: it makes network namespaces of its own");
  }
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
  if (state.name.empty() || state.name.front() == '.' || !std::ranges::all_of(state.name, plain)) {
    return fail(ErrorCode::InvalidArgument,
                "lab name \"" + state.name + "\"; expected letters, digits, -, _ and .");
  }
  if (state.nodes.size() > kMostNodes) {
    return fail(ErrorCode::InvalidArgument, std::to_string(state.nodes.size()) + " nodes; expected at most " +
                                                std::to_string(kMostNodes));
  }
  for (const auto& node : state.nodes) {
    if (node.name == kOutside || (node.name == "node" && &node != state.nodes.data())) {
      return fail(ErrorCode::InvalidArgument,
                  "a node called \"" + node.name + "\"; the lab calls another host that");
    }
    if (node.file("tierlogd.sock").size() > kLongestSocketPath) {
      return fail(ErrorCode::InvalidArgument,
                  "folder " + node.folder + " is too deep for a Unix socket in it");
    }
    for (const auto& address : node.addresses) TL_TRY(check_family(state, "node " + node.name, address));
  }
  for (const auto& pod : topology.cluster.endpoints) {
    if (!made_here(state, pod)) continue;
    for (const auto& address : pod.addresses) TL_TRY(check_family(state, "pod " + pod.display(), address));
  }
  return check_bridges(state);
}

std::vector<endpoints::Service> assign_services(const endpoints::Topology& topology) {
  endpoints::Topology assigned = topology;
  endpoints::assign_cluster_ips(assigned);
  auto services = std::move(assigned.services);
  assign_node_ports(services);
  return services;
}

}  // namespace tierlog::lab
