// Pods of a running lab: namespace, CNI chain, listeners.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "lab/daemon.h"
#include "lab/lab_impl.h"
#include "lab/names.h"
#include "lab/server.h"
#include "lab/services.h"

namespace tierlog::lab {
namespace {

// The same plan at every call: gateways are the first free addresses, and an address that comes later
// can be none of them.
Result<AddressPlan> plan_addresses(const NodeState& node) {
  return AddressPlan::make(node.chain.cni, node.fixed, node.foreign, node.pod_cidrs);
}

Result<void> check_new(const LabState& state, const policy::Endpoint& pod) {
  for (const auto& other : state.pods) {
    if (other.name == pod.display()) {
      return fail(ErrorCode::InvalidArgument, "pod " + pod.display() + " is there already");
    }
    if (pod.host_network || other.host_network()) continue;
    for (const auto& address : pod.addresses) {
      if (std::ranges::find(other.cni.addresses, address) == other.cni.addresses.end()) continue;
      return fail(ErrorCode::InvalidArgument,
                  "pod " + pod.display() + ": " + address.to_string() + " is the address of " + other.name);
    }
  }
  return {};
}

std::vector<std::uint16_t> ports_of(const policy::Endpoint& pod) {
  std::set<std::uint16_t> ports;
  for (const auto& port : pod.ports) {
    if (port.port != 0) ports.insert(port.port);
  }
  return {ports.begin(), ports.end()};
}

// Namespace and CNI chain. On an error nothing of it is left.
Result<void> add_network(const LabState& state, const NodeState& node, const policy::Endpoint& pod,
                         CniPod& made) {
  TL_ASSIGN(AddressPlan plan, plan_addresses(node));
  TL_ASSIGN(made, plan_pod(node.chain, plan, pod));
  TL_TRY(make_netns(node.place(), made.container_id, state.families));
  const auto added = cni_add(node.chain, node.place(), made);
  if (!added) static_cast<void>(remove_netns(node.place(), made.container_id));
  return added;
}

void remove_network(const NodeState& node, const CniPod& made) {
  static_cast<void>(cni_del(node.chain, node.place(), made));
  static_cast<void>(remove_netns(node.place(), made.container_id));
}

// Beside the other programs in a build, in sbin once installed.
std::string find_tierlogd(const std::string& folder) {
  const std::string beside = folder + "/tierlogd";
  const std::string installed = folder + "/../sbin/tierlogd";
  std::error_code error;
  const bool elsewhere = !std::filesystem::exists(beside, error) && std::filesystem::exists(installed, error);
  return elsewhere ? installed : beside;
}

}  // namespace

Result<void> Lab::Impl::refresh() {
  TL_ASSIGN(LabState fresh, read_state(state.folder));
  if (fresh.first.id != state.first.id || !alive(fresh.first.id)) {
    return fail(ErrorCode::NotFound, "lab \"" + state.name + "\" has ended");
  }
  fresh.first.keeper = state.first.keeper;
  state = std::move(fresh);
  return {};
}

Result<void> Lab::Impl::lead_to(const NodeState& node, const std::vector<IpAddr>& addresses,
                                bool there) const {
  const auto number = static_cast<std::size_t>(&node - state.nodes.data());
  for (const auto& other : state.nodes) {
    if (&other != &node) TL_TRY(route_to_node(other.place(), addresses, number, there));
  }
  // The first node is where everything goes that is nowhere else.
  return number == 0 ? Result<void>{} : route_to_node({state.first.id, kOutside}, addresses, number, there);
}

Result<void> Lab::Impl::add_pod(const policy::Endpoint& pod) {
  TL_TRY(check_new(state, pod));
  NodeState* node = state.node(pod.node);
  if (node == nullptr) {
    return fail(ErrorCode::InvalidArgument,
                "pod " + pod.display() + ": the lab has no node \"" + pod.node + "\"");
  }
  PodState made{pod.display(), node->name, {}, {}, pod.labels, pod.ports};
  made.cni.addresses = node->addresses;
  if (!pod.host_network) {
    TL_TRY(add_network(state, *node, pod, made.cni));
    TL_TRY(lead_to(*node, made.cni.addresses, true));
  }
  const auto ports = ports_of(pod);
  if (!ports.empty()) {
    auto server = start_server({node->keeper, made.cni.container_id}, ports);
    if (!server) {
      if (!pod.host_network) remove_network(*node, made.cni);
      return fail(server.error().in("pod " + pod.display()));
    }
    made.server = *server;
  }
  state.pods.push_back(std::move(made));
  for (const auto& address : pod.addresses) {
    if (!pod.host_network && std::ranges::find(node->fixed, address) == node->fixed.end()) {
      node->fixed.push_back(address);
    }
  }
  return {};
}

Result<void> Lab::Impl::remove_pod(const std::string& name) {
  const auto found = std::ranges::find(state.pods, name, &PodState::name);
  const NodeState& node = *state.node(found->node);
  if (found->server) TL_TRY(end_process(found->server, SIGKILL, std::chrono::seconds(5)));
  if (!found->host_network()) {
    TL_TRY(lead_to(node, found->cni.addresses, false));
    TL_TRY(cni_del(node.chain, node.place(), found->cni));
    TL_TRY(remove_netns(node.place(), found->cni.container_id));
  }
  state.pods.erase(found);
  return {};
}

Result<void> Lab::Impl::settle() const {
  TL_TRY(write_hosts(state));
  TL_TRY(program_services(state));
  return write_state(state);
}

Result<void> Lab::Impl::run_daemon(NodeState& node) const {
  const DaemonFiles files{find_tierlogd(node.chain.bin_folder), node.file("tierlogd.yaml"),
                          node.file("tierlogd.log"), node.file("tierlogd.sock")};
  TL_ASSIGN(node.daemon, start_tierlogd(node.place(), files));
  return {};
}

}  // namespace tierlog::lab
