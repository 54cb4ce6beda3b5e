// Making a lab: folder, first process, network, daemon, pods. Whatever fails, nothing is left.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "lab/daemon.h"
#include "lab/lab_impl.h"
#include "lab/names.h"
#include "lab/server.h"

namespace tierlog::lab {
namespace {

using Progress = std::function<void(const std::string&)>;

constexpr const char* kNodeName = "node-1";
constexpr std::uint16_t kOutsidePorts[] = {53, 80, 443, 8080};
constexpr std::size_t kLongestSocketPath = 107;

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
std::vector<T> parse_all(std::initializer_list<const char*> texts) {
  std::vector<T> values;
  for (const char* text : texts) values.push_back(*T::parse(text));
  return values;
}

void append(std::vector<IpAddr>& to, const std::vector<IpAddr>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

bool made_here(const policy::Endpoint& pod) {
  return !pod.host_network && (pod.node.empty() || pod.node == kNodeName);
}

Result<void> check(const LabOptions& options, const LabState& state) {
  if (::geteuid() != 0) {
    return fail(ErrorCode::Refused, "a lab needs root: it makes network namespaces of its own");
  }
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
  if (options.name.empty() || options.name.front() == '.' || !std::ranges::all_of(options.name, plain)) {
    return fail(ErrorCode::InvalidArgument,
                "lab name \"" + options.name + "\"; expected letters, digits, -, _ and .");
  }
  if (state.file("tierlogd.sock").size() > kLongestSocketPath) {
    return fail(ErrorCode::InvalidArgument,
                "folder " + state.folder + " is too deep for a Unix socket in it");
  }
  return {};
}

// What the topology says, as the lab keeps it.
LabState plan_state(const endpoints::Topology& topology, const std::string& topology_path,
                    const LabOptions& options) {
  LabState state;
  state.name = options.name;
  state.folder =
      absolute(options.folder.empty() ? std::string(kLabsFolder) + "/" + options.name : options.folder);
  state.topology = topology_path.empty() ? "" : absolute(topology_path);
  state.life = options.life;
  state.dataplane = options.dataplane.empty() ? topology.lab.dataplane : options.dataplane;
  state.chain = {topology.lab.cni, options.cni_folder,
                 options.bin_folder.empty() ? own_folder() : absolute(options.bin_folder),
                 options.start_daemon ? state.file("tierlogd.sock") : ""};
  state.pod_cidrs = topology.lab.pod_cidrs;
  if (state.pod_cidrs.empty()) state.pod_cidrs = parse_all<Cidr>({"10.244.0.0/24", "fd00:244::/64"});
  state.outside = topology.lab.outside;
  if (state.outside.empty()) state.outside = parse_all<IpAddr>({"203.0.113.9", "2001:db8:113::9"});
  for (const auto& node : topology.cluster.nodes) {
    append(node.name == kNodeName ? state.node : state.foreign, node.addresses);
  }
  for (const auto& pod : topology.cluster.endpoints) {
    append(made_here(pod) ? state.fixed : state.foreign, pod.addresses);
  }
  // A bridge's subnet has to hold them; without a use they would only make it wide.
  const bool dynamic = std::ranges::any_of(topology.cluster.endpoints, [](const policy::Endpoint& pod) {
    return made_here(pod) && pod.addresses.empty();
  });
  if (topology.lab.cni == Cni::Bridge && !dynamic) state.pod_cidrs.clear();
  append(state.foreign, state.outside);
  append(state.foreign, state.node);
  return state;
}

Result<void> write_daemon_config(const LabState& state, const LabOptions& options) {
  DaemonConfig config;
  config.values = {{"node", kNodeName},
                   {"cluster", "lab"},
                   {"dataplane", state.dataplane},
                   {"topology", state.topology},
                   {"socket", state.file("tierlogd.sock")},
                   {"store.path", state.file("flows.db")}};
  for (const auto& [key, value] : options.daemon_config) config.values[key] = value;
  for (const auto& path : options.policies) config.policies.push_back(absolute(path));
  std::ofstream file(state.file("tierlogd.yaml"), std::ios::trunc);
  file << to_yaml(config);
  file.close();
  if (!file) return fail(ErrorCode::Io, "cannot write " + state.file("tierlogd.yaml"));
  return {};
}

MountPlan plan_mounts(const LabState& state, const LabOptions& options) {
  MountPlan mounts{state.folder, state.file("hosts"), state.file("tierlogd.sock"), {}};
  if (!state.topology.empty()) mounts.visible.push_back(state.topology);
  for (const auto& path : options.policies) mounts.visible.push_back(absolute(path));
  mounts.visible.push_back(state.chain.bin_folder);
  return mounts;
}

}  // namespace

Result<void> Lab::Impl::build(const endpoints::Topology& topology, const LabOptions& options,
                              const Progress& progress) {
  const auto say = [&](const std::string& step) {
    if (progress) progress(step);
  };
  TL_TRY(write_hosts(state));
  TL_ASSIGN(StartedFirst first, start_first_process(state.life, plan_mounts(state, options)));
  state.first = first.process;
  tether = std::move(first.tether);
  TL_TRY(write_state(state));
  say("node and outside host");
  TL_TRY(build_network(state.node_place(), {state.node, state.outside}));
  append(state.node, uplink_addresses(true));
  append(state.outside, uplink_addresses(false));
  const std::vector<std::uint16_t> ports(std::begin(kOutsidePorts), std::end(kOutsidePorts));
  TL_TRY(start_server({state.first.id, kOutside}, ports));
  TL_TRY(write_state(state));
  if (options.start_daemon) {
    say("tierlogd (" + state.dataplane + ")");
    TL_TRY(write_daemon_config(state, options));
    TL_TRY(run_daemon());
    TL_TRY(write_state(state));
  }
  for (const auto& pod : topology.cluster.endpoints) {
    if (!made_here(pod)) continue;
    say("pod " + pod.display());
    TL_TRY(add_pod(pod));
  }
  TL_TRY(write_hosts(state));
  TL_TRY(write_state(state));
  if (state.life == LabOptions::Life::UntilDown) {
    tether->release();
    tether.reset();
  }
  return {};
}

Result<Lab> Lab::up(const endpoints::Topology& topology, const std::string& topology_path,
                    const LabOptions& options, const Progress& progress) {
  auto impl = std::make_unique<Impl>();
  impl->state = plan_state(topology, topology_path, options);
  TL_TRY(check(options, impl->state));
  TL_ASSIGN(const Fd claim, claim_folder(impl->state.folder));
  impl->owner = true;
  const auto built = impl->build(topology, options, progress);
  Lab lab(std::move(impl));
  if (built) return lab;
  static_cast<void>(lab.down());
  return fail(built.error().in("lab \"" + options.name + "\""));
}

}  // namespace tierlog::lab
