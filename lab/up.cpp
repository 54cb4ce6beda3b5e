// Making a lab: folder, first process, network, daemons, pods. Whatever fails, nothing is left.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "lab/daemon.h"
#include "lab/lab_impl.h"
#include "lab/names.h"
#include "lab/plan.h"
#include "lab/server.h"

namespace tierlog::lab {
namespace {

using Progress = std::function<void(const std::string&)>;

constexpr std::uint16_t kOutsidePorts[] = {53, 80, 443, 8080};

std::string absolute(const std::string& path) {
  std::error_code error;
  const auto full = std::filesystem::absolute(path, error).lexically_normal();
  return error ? path : full.string();
}

void append(std::vector<IpAddr>& to, const std::vector<IpAddr>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

Result<void> write_daemon_config(const LabState& state, const NodeState& node, const LabOptions& options) {
  DaemonConfig config;
  config.values = {{"node", node.name},
                   {"cluster", "lab"},
                   {"dataplane", state.dataplane},
                   {"topology", state.topology},
                   {"cluster_ips", "lab"},
                   {"socket", node.file("tierlogd.sock")},
                   {"store.path", node.database}};
  for (const auto& [key, value] : options.daemon_config)
    if (key != "store.path") config.values[key] = value;
  for (const auto& path : options.policies) config.policies.push_back(absolute(path));
  std::error_code error;
  std::filesystem::create_directories(node.folder, error);
  std::ofstream file(node.file("tierlogd.yaml"), std::ios::trunc);
  file << to_yaml(config);
  file.close();
  if (!file) return fail(ErrorCode::Io, "cannot write " + node.file("tierlogd.yaml"));
  return {};
}

MountPlan plan_mounts(const LabState& state, const LabOptions& options) {
  MountPlan mounts{state.folder, state.file("hosts"), state.file("tierlogd.sock"), {}};
  if (!state.topology.empty()) mounts.visible.push_back(state.topology);
  for (const auto& path : options.policies) mounts.visible.push_back(absolute(path));
  mounts.visible.push_back(state.nodes.front().chain.bin_folder);
  std::error_code error;
  const auto records = std::filesystem::path(state.nodes.front().database).parent_path();
  if (std::filesystem::is_directory(records, error)) mounts.visible.push_back(records.string());
  return mounts;
}

}  // namespace

Result<void> Lab::Impl::start_nodes() {
  state.nodes.front().keeper = state.first.id;
  NetworkPlan plan{{}, state.outside, state.families};
  for (auto& node : state.nodes) {
    if (!node.keeper) {
      TL_ASSIGN(node.keeper, start_node(state.nodes.front().place(), node.name, state.families,
                                        node.file("tierlogd.sock")));
    }
    plan.nodes.push_back({node.name, node.keeper, node.addresses});
  }
  TL_TRY(build_network(plan));
  for (std::size_t i = 0; i < state.nodes.size(); ++i) {
    append(state.nodes[i].addresses, node_link(i, state.families));
  }
  append(state.outside, outside_link(state.families));
  const std::vector<std::uint16_t> ports(std::begin(kOutsidePorts), std::end(kOutsidePorts));
  TL_TRY(start_server({state.first.id, kOutside}, ports));
  return write_state(state);
}

Result<void> Lab::Impl::start_daemons(const LabOptions& options) {
  for (auto& node : state.nodes) {
    TL_TRY(write_daemon_config(state, node, options));
    TL_TRY(run_daemon(node));
  }
  return write_state(state);
}

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
  say(state.nodes.size() == 1 ? "node and outside host"
                              : std::to_string(state.nodes.size()) + " nodes and outside host");
  TL_TRY(start_nodes());
  if (options.start_daemon) {
    say("tierlogd (" + state.dataplane + ")");
    TL_TRY(start_daemons(options));
  }
  for (const auto& pod : topology.cluster.endpoints) {
    if (!made_here(state, pod)) continue;
    say("pod " + pod.display());
    TL_TRY(add_pod(pod));
  }
  TL_TRY(settle());
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
  TL_TRY(check_plan(impl->state, topology));
  TL_ASSIGN(const Fd claim, claim_folder(impl->state.folder));
  impl->owner = true;
  const auto built = impl->build(topology, options, progress);
  Lab lab(std::move(impl));
  if (built) return lab;
  static_cast<void>(lab.down());
  return fail(built.error().in("lab \"" + options.name + "\""));
}

}  // namespace tierlog::lab
