// Pods of a running lab: namespace, CNI chain, listeners.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "lab/daemon.h"
#include "lab/lab_impl.h"
#include "lab/server.h"

namespace tierlog::lab {
namespace {

// The same plan at every call: gateways are the first free addresses, and an address that comes later
// can be none of them.
Result<AddressPlan> plan_addresses(const LabState& state) {
  return AddressPlan::make(state.chain.cni, state.fixed, state.foreign, state.pod_cidrs);
}

Result<void> check_new(const LabState& state, const policy::Endpoint& pod) {
  for (const auto& other : state.pods) {
    if (other.name == pod.display()) {
      return fail(ErrorCode::InvalidArgument, "pod " + pod.display() + " is there already");
    }
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

Result<void> Lab::Impl::add_pod(const policy::Endpoint& pod) {
  TL_TRY(check_new(state, pod));
  TL_ASSIGN(AddressPlan plan, plan_addresses(state));
  PodState made{pod.display(), {}, {}};
  TL_ASSIGN(made.cni, plan_pod(state.chain, plan, pod));
  const Place node = state.node_place();
  const Place inside{state.first.id, made.cni.container_id};
  TL_TRY(make_netns(node, inside.netns));
  const auto added = cni_add(state.chain, node, made.cni);
  if (!added) {
    static_cast<void>(remove_netns(node, inside.netns));
    return added;
  }
  const auto ports = ports_of(pod);
  if (!ports.empty()) {
    auto server = start_server(inside, ports);
    if (!server) {
      static_cast<void>(cni_del(state.chain, node, made.cni));
      static_cast<void>(remove_netns(node, inside.netns));
      return fail(server.error().in("pod " + pod.display()));
    }
    made.server = *server;
  }
  state.pods.push_back(std::move(made));
  for (const auto& address : pod.addresses) {
    if (std::ranges::find(state.fixed, address) == state.fixed.end()) state.fixed.push_back(address);
  }
  return {};
}

Result<void> Lab::Impl::remove_pod(const std::string& name) {
  const auto found = std::ranges::find(state.pods, name, &PodState::name);
  const Place node = state.node_place();
  if (found->server) TL_TRY(end_process(found->server, SIGKILL, std::chrono::seconds(5)));
  TL_TRY(cni_del(state.chain, node, found->cni));
  TL_TRY(remove_netns(node, found->cni.container_id));
  state.pods.erase(found);
  return {};
}

Result<void> Lab::Impl::run_daemon() {
  const DaemonFiles files{find_tierlogd(state.chain.bin_folder), state.file("tierlogd.yaml"),
                          state.file("tierlogd.log"), state.file("tierlogd.sock")};
  TL_ASSIGN(state.daemon, start_tierlogd(state.node_place(), files));
  return {};
}

}  // namespace tierlog::lab
