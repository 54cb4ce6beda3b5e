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
  std::vector<LabHost> hosts{{"node", state.node}, {kOutside, state.outside}};
  for (const auto& pod : state.pods) hosts.push_back({pod.name, pod.cni.addresses});
  return hosts;
}

Result<Place> place_of(const LabState& state, const std::string& host) {
  if (host == "node") return state.node_place();
  if (host == kOutside) return Place{state.first.id, kOutside};
  const auto found = std::ranges::find(state.pods, host, &PodState::name);
  if (found != state.pods.end()) return Place{state.first.id, found->cni.container_id};
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
  return impl_->state.file("flows.db");
}
std::string Lab::socket() const {
  return impl_->state.file("tierlogd.sock");
}
std::string Lab::folder() const {
  return impl_->state.folder;
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
  TL_TRY(write_hosts(impl_->state));
  return write_state(impl_->state);
}

Result<void> Lab::remove_pod(const std::string& endpoint_namespace, const std::string& pod_name) {
  TL_TRY(impl_->refresh());
  const std::string wanted = endpoint_namespace + "/" + pod_name;
  TL_TRY(place_of(impl_->state, wanted));
  TL_TRY(impl_->remove_pod(wanted));
  TL_TRY(write_hosts(impl_->state));
  return write_state(impl_->state);
}

Result<void> Lab::stop_daemon(int signal) {
  TL_TRY(impl_->refresh());
  TL_TRY(end_process(impl_->state.daemon, signal, std::chrono::seconds(20)));
  impl_->state.daemon = {};
  return write_state(impl_->state);
}

Result<void> Lab::start_daemon() {
  TL_TRY(impl_->refresh());
  if (alive(impl_->state.daemon)) return {};
  TL_TRY(impl_->run_daemon());
  return write_state(impl_->state);
}

}  // namespace tierlog::lab
