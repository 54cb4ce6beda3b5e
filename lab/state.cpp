#include "lab/state.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"

namespace tierlog::lab {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json to_json(const ProcessId& process) {
  return {{"pid", process.pid}, {"start_time", process.start_time}};
}

ProcessId process_from(const Json& json) {
  return {json.at("pid").get<pid_t>(), json.at("start_time").get<std::uint64_t>()};
}

template <typename T>
Json to_texts(const std::vector<T>& values) {
  Json texts = Json::array();
  for (const auto& value : values) texts.push_back(value.to_string());
  return texts;
}

template <typename T>
std::vector<T> from_texts(const Json& texts) {
  std::vector<T> values;
  for (const auto& text : texts) {
    if (const auto value = T::parse(text.template get<std::string>())) values.push_back(*value);
  }
  return values;
}

std::vector<int> numbers(const std::vector<Family>& families) {
  std::vector<int> found;
  for (const Family family : families) found.push_back(static_cast<int>(family));
  return found;
}

std::vector<Family> families_from(const Json& json) {
  std::vector<Family> found;
  for (const auto& item : json) found.push_back(item.get<int>() == 4 ? Family::V4 : Family::V6);
  return found;
}

Json to_json(const policy::NamedPort& port) {
  return {{"name", port.name}, {"protocol", port.protocol}, {"port", port.port}};
}

Json to_json(const PodState& pod) {
  Json json{{"name", pod.name},
            {"node", pod.node},
            {"hostNetwork", pod.host_network()},
            {"addresses", to_texts(pod.cni.addresses)},
            {"netns", pod.cni.container_id},
            {"arguments", pod.cni.arguments},
            {"configurations", pod.cni.configurations},
            {"result", pod.cni.result},
            {"server", to_json(pod.server)},
            {"labels", pod.labels},
            {"ports", Json::array()}};
  for (const auto& port : pod.ports) json["ports"].push_back(to_json(port));
  return json;
}

PodState pod_from(const Json& json) {
  PodState pod;
  pod.name = json.at("name").get<std::string>();
  pod.node = json.at("node").get<std::string>();
  pod.cni.addresses = from_texts<IpAddr>(json.at("addresses"));
  pod.cni.container_id = json.at("netns").get<std::string>();
  pod.cni.arguments = json.at("arguments").get<std::string>();
  pod.cni.configurations = json.at("configurations").get<std::vector<std::string>>();
  pod.cni.result = json.at("result").get<std::string>();
  pod.server = process_from(json.at("server"));
  pod.labels = json.at("labels").get<policy::Labels>();
  for (const auto& port : json.at("ports")) {
    pod.ports.push_back({port.at("name").get<std::string>(), port.at("protocol").get<std::uint8_t>(),
                         port.at("port").get<std::uint16_t>()});
  }
  return pod;
}

Json to_json(const NodeState& node) {
  return {{"name", node.name},
          {"folder", node.folder},
          {"socket", node.file("tierlogd.sock")},
          {"database", node.database},
          {"keeper", to_json(node.keeper)},
          {"daemon", to_json(node.daemon)},
          {"chain",
           {{"cni", node.chain.cni == Cni::Bridge ? "bridge" : "ptp"},
            {"cni_folder", node.chain.cni_folder},
            {"bin_folder", node.chain.bin_folder},
            {"socket", node.chain.socket}}},
          {"addresses", to_texts(node.addresses)},
          {"pod_cidrs", to_texts(node.pod_cidrs)},
          {"fixed", to_texts(node.fixed)},
          {"foreign", to_texts(node.foreign)}};
}

NodeState node_from(const Json& json) {
  NodeState node;
  node.name = json.at("name").get<std::string>();
  node.folder = json.at("folder").get<std::string>();
  node.database = json.at("database").get<std::string>();
  node.keeper = process_from(json.at("keeper"));
  node.daemon = process_from(json.at("daemon"));
  const Json& chain = json.at("chain");
  node.chain.cni = chain.at("cni") == "bridge" ? Cni::Bridge : Cni::Ptp;
  node.chain.cni_folder = chain.at("cni_folder").get<std::string>();
  node.chain.bin_folder = chain.at("bin_folder").get<std::string>();
  node.chain.socket = chain.at("socket").get<std::string>();
  node.addresses = from_texts<IpAddr>(json.at("addresses"));
  node.pod_cidrs = from_texts<Cidr>(json.at("pod_cidrs"));
  node.fixed = from_texts<IpAddr>(json.at("fixed"));
  node.foreign = from_texts<IpAddr>(json.at("foreign"));
  return node;
}

Json to_json(const endpoints::Service& service) {
  Json json{{"namespace", service.service_namespace},
            {"name", service.name},
            {"selector", service.selector},
            {"clusterIPs", to_texts(service.cluster_ips)},
            {"headless", service.headless},
            {"nodePort", service.node_port},
            {"localOnly", service.local_only},
            {"affinity", service.affinity},
            {"ports", Json::array()},
            {"backends", Json::array()}};
  for (const auto& port : service.ports) {
    json["ports"].push_back({{"name", port.name},
                             {"protocol", port.protocol},
                             {"port", port.port},
                             {"target", port.target},
                             {"targetName", port.target_name},
                             {"nodePort", port.node_port}});
  }
  for (const auto& backend : service.backends) {
    json["backends"].push_back(
        {{"address", backend.address.to_string()}, {"port", backend.port}, {"target", backend.target}});
  }
  return json;
}

endpoints::Service service_from(const Json& json) {
  endpoints::Service service;
  service.service_namespace = json.at("namespace").get<std::string>();
  service.name = json.at("name").get<std::string>();
  service.selector = json.at("selector").get<policy::Labels>();
  service.cluster_ips = from_texts<IpAddr>(json.at("clusterIPs"));
  service.headless = json.at("headless").get<bool>();
  service.node_port = json.at("nodePort").get<bool>();
  service.local_only = json.at("localOnly").get<bool>();
  service.affinity = json.at("affinity").get<bool>();
  for (const auto& port : json.at("ports")) {
    service.ports.push_back({port.at("name").get<std::string>(), port.at("protocol").get<std::uint8_t>(),
                             port.at("port").get<std::uint16_t>(), port.at("target").get<std::uint16_t>(),
                             port.at("targetName").get<std::string>(),
                             port.at("nodePort").get<std::uint16_t>()});
  }
  for (const auto& backend : json.at("backends")) {
    const auto address = IpAddr::parse(backend.at("address").get<std::string>());
    if (!address) continue;
    service.backends.push_back(
        {*address, backend.at("port").get<std::size_t>(), backend.at("target").get<std::uint16_t>()});
  }
  return service;
}

Json to_json(const LabState& state) {
  Json json{{"name", state.name},
            {"first", to_json(state.first.id)},
            {"life", state.life == LabOptions::Life::WithCaller ? "with-caller" : "until-down"},
            {"topology", state.topology},
            {"dataplane", state.dataplane},
            {"socket", state.file("tierlogd.sock")},
            {"database", state.nodes.empty() ? "" : state.nodes.front().database},
            {"families", numbers(state.families)},
            {"masquerade", state.masquerade},
            {"outside", to_texts(state.outside)},
            {"nodes", Json::array()},
            {"pods", Json::array()},
            {"services", Json::array()}};
  for (const auto& node : state.nodes) json["nodes"].push_back(to_json(node));
  for (const auto& pod : state.pods) json["pods"].push_back(to_json(pod));
  for (const auto& service : state.services) json["services"].push_back(to_json(service));
  return json;
}

LabState state_from(const Json& json) {
  LabState state;
  state.name = json.at("name").get<std::string>();
  state.first.id = process_from(json.at("first"));
  state.life = json.at("life") == "with-caller" ? LabOptions::Life::WithCaller : LabOptions::Life::UntilDown;
  state.topology = json.at("topology").get<std::string>();
  state.dataplane = json.at("dataplane").get<std::string>();
  state.families = families_from(json.at("families"));
  state.masquerade = json.at("masquerade").get<bool>();
  state.outside = from_texts<IpAddr>(json.at("outside"));
  for (const auto& node : json.at("nodes")) state.nodes.push_back(node_from(node));
  for (const auto& pod : json.at("pods")) state.pods.push_back(pod_from(pod));
  for (const auto& service : json.at("services")) state.services.push_back(service_from(service));
  return state;
}

}  // namespace

bool LabState::has(Family family) const {
  return families.empty() || std::ranges::find(families, family) != families.end();
}

const NodeState* LabState::node(const std::string& wanted) const {
  if (wanted.empty() && !nodes.empty()) return &nodes.front();
  const auto found = std::ranges::find(nodes, wanted, &NodeState::name);
  return found == nodes.end() ? nullptr : &*found;
}

NodeState* LabState::node(const std::string& wanted) {
  return const_cast<NodeState*>(std::as_const(*this).node(wanted));
}

Result<void> write_state(const LabState& state) {
  const std::string path = state.file(kStateFile);
  const std::string unfinished = path + ".new";
  std::ofstream file(unfinished, std::ios::trunc);
  file << to_json(state).dump(2) << "\n";
  file.close();
  if (!file) return fail(ErrorCode::Io, "cannot write " + unfinished);
  if (::rename(unfinished.c_str(), path.c_str()) != 0) {
    return fail(Error::from_errno(errno, "rename", unfinished));
  }
  return {};
}

Result<LabState> read_state(const std::string& folder) {
  const std::string path = folder + "/" + kStateFile;
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::NotFound, "there is no lab in " + folder);
  try {
    LabState state = state_from(Json::parse(file));
    state.folder = folder;
    return state;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::Corrupt, path + ": " + error.what());
  }
}

std::vector<std::string> state_names() {
  auto names = names_in(kLabsFolder).value_or(std::vector<std::string>());
  std::erase_if(names, [](const std::string& name) {
    std::error_code error;
    return !fs::exists(fs::path(kLabsFolder) / name / kStateFile, error);
  });
  return names;
}

Result<Fd> claim_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail(Error::from_errno(error.value(), "make folder", folder));
  Fd claim(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!claim) return fail(Error::from_errno(errno, "open folder", folder));
  if (::flock(claim.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::Refused, "another process is making a lab in " + folder + " right now");
  }
  const auto there = read_state(folder);
  if (there && alive(there->first.id)) {
    return fail(ErrorCode::Refused, "lab \"" + there->name + "\" is up already (process " +
                                        std::to_string(there->first.id.pid) + ", folder " + folder + ")");
  }
  const bool ours = there || there.error().code == ErrorCode::Corrupt;
  if (!ours && !fs::is_empty(folder, error)) {
    return fail(ErrorCode::Refused,
                "folder " + folder + " holds files that are no lab's; expected an empty one");
  }
  for (const std::string& name : names_in(folder).value_or(std::vector<std::string>()))
    fs::remove_all(fs::path(folder) / name, error);
  return claim;
}

void remove_leftovers(const std::string& folder) {
  const auto state = read_state(folder);
  if (!state || alive(state->first.id)) return;
  // Claiming empties it, and fails while somebody else has claimed it.
  if (const auto claim = claim_folder(folder); claim) remove_folder(folder);
}

void remove_folder(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  fs::remove(kLabsFolder, error);  // only when it is empty
}

}  // namespace tierlog::lab
