#include "lab/lab.h"

#include <signal.h>

#include <algorithm>

#include "lab/lab_impl.h"
#include "lab/names.h"

namespace tierlog::lab {
namespace {

bool living(const Result<LabState>& state) {
  return state && alive(state->first.id);
}

std::string folder_of(const std::string& name) {
  return name.find('/') == std::string::npos ? std::string(kLabsFolder) + "/" + name : name;
}

}  // namespace

std::vector<LabHost> hosts_of(const LabState& state) {
  std::vector<LabHost> hosts{{"node", state.nodes.front().addresses}};
  for (std::size_t i = 1; i < state.nodes.size(); ++i) {
    hosts.push_back({state.nodes[i].name, state.nodes[i].addresses});
  }
  hosts.push_back({kOutside, state.outside});
  for (const auto& pod : state.pods) hosts.push_back({pod.name, pod.cni.addresses});
  return hosts;
}

Result<Place> place_of(const LabState& state, const std::string& host) {
  if (host == "node") return state.nodes.front().place();
  if (const NodeState* node = state.node(host); node != nullptr && !host.empty()) return node->place();
  if (host == kOutside) return Place{state.first.id, kOutside};
  const auto found = std::ranges::find(state.pods, host, &PodState::name);
  // A hostNetwork pod has no namespace of its own, and its place is the node's.
  if (found != state.pods.end()) return Place{state.node(found->node)->keeper, found->cni.container_id};
  std::string known;
  for (const auto& one : hosts_of(state)) known += (known.empty() ? "" : ", ") + one.name;
  return fail(ErrorCode::NotFound,
              "lab \"" + state.name + "\" has no host \"" + host + "\"; it has " + known);
}

Lab::Lab(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Lab::Lab(Lab&&) noexcept = default;

Lab& Lab::operator=(Lab&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}

Lab::~Lab() {
  if (impl_ && impl_->owner && impl_->state.life == LabOptions::Life::WithCaller) static_cast<void>(down());
}

Result<Lab> Lab::find(const std::string& name) {
  auto state = read_state(folder_of(name));
  if (!living(state)) {
    remove_leftovers(folder_of(name));
    return fail(ErrorCode::NotFound, "no lab \"" + name + "\" is up");
  }
  auto impl = std::make_unique<Impl>();
  impl->state = std::move(*state);
  return Lab(std::move(impl));
}

std::vector<std::string> Lab::running() {
  auto names = state_names();
  std::erase_if(names, [](const std::string& name) { return !living(read_state(folder_of(name))); });
  return names;
}

Result<void> Lab::down() {
  TL_TRY(end_first_process(impl_->state.first));
  impl_->owner = false;
  remove_folder(impl_->state.folder);
  return {};
}

const std::string& Lab::name() const {
  return impl_->state.name;
}
std::string Lab::database() const {
  return impl_->state.nodes.front().database;
}
std::string Lab::socket() const {
  return impl_->state.file("tierlogd.sock");
}
std::string Lab::folder() const {
  return impl_->state.folder;
}
std::vector<LabNode> Lab::nodes() const {
  std::vector<LabNode> nodes;
  for (const auto& node : impl_->state.nodes) {
    nodes.push_back(
        {node.name, node.addresses, node.folder, node.file("tierlogd.sock"), node.database});
  }
  return nodes;
}
bool Lab::has_host(const std::string& host) const {
  return place_of(impl_->state, host).has_value();
}
const std::vector<endpoints::Service>& Lab::services() const {
  return impl_->state.services;
}
std::vector<LabHost> Lab::hosts() const {
  return hosts_of(impl_->state);
}

std::optional<IpAddr> Lab::address(const std::string& host, Family family) const {
  for (const auto& one : hosts()) {
    if (one.name != host) continue;
    const auto found = std::ranges::find(one.addresses, family, &IpAddr::family);
    if (found != one.addresses.end()) return *found;
  }
  return std::nullopt;
}

Result<int> Lab::exec(const std::string& host, const std::vector<std::string>& command) const {
  if (command.empty()) return fail(ErrorCode::InvalidArgument, "no command to run in " + host);
  TL_ASSIGN(const Place place, place_of(impl_->state, host));
  return exec_in(place, {command, {}});
}

Result<int> Lab::run_in(const std::string& host, const std::function<int()>& work) const {
  TL_ASSIGN(const Place place, place_of(impl_->state, host));
  return lab::run_in(place, work);
}

Result<pid_t> Lab::start_in(const std::string& host, const std::function<int()>& work) const {
  TL_ASSIGN(const Place place, place_of(impl_->state, host));
  return lab::start_in(place, work);
}

Result<void> Lab::add_pod(const policy::Endpoint& pod) {
  TL_TRY(impl_->refresh());
  TL_TRY(impl_->add_pod(pod));
  return impl_->settle();
}

Result<void> Lab::remove_pod(const std::string& endpoint_namespace, const std::string& pod_name) {
  TL_TRY(impl_->refresh());
  const std::string wanted = endpoint_namespace + "/" + pod_name;
  TL_TRY(place_of(impl_->state, wanted));
  TL_TRY(impl_->remove_pod(wanted));
  return impl_->settle();
}

Result<void> Lab::stop_daemon(int signal, const std::string& node) {
  TL_TRY(impl_->refresh());
  NodeState* found = impl_->state.node(node);
  if (found == nullptr) return fail(ErrorCode::NotFound, "no node \"" + node + "\"");
  TL_TRY(end_process(found->daemon, signal, std::chrono::seconds(20)));
  found->daemon = {};
  return write_state(impl_->state);
}

Result<void> Lab::start_daemon(const std::string& node) {
  TL_TRY(impl_->refresh());
  NodeState* found = impl_->state.node(node);
  if (found == nullptr) return fail(ErrorCode::NotFound, "no node \"" + node + "\"");
  if (alive(found->daemon)) return {};
  TL_TRY(impl_->run_daemon(*found));
  return write_state(impl_->state);
}

}  // namespace tierlog::lab
