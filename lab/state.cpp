#include "lab/state.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

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

Json to_json(const PodState& pod) {
  return {{"name", pod.name},
          {"addresses", to_texts(pod.cni.addresses)},
          {"netns", pod.cni.container_id},
          {"arguments", pod.cni.arguments},
          {"configurations", pod.cni.configurations},
          {"result", pod.cni.result},
          {"server", to_json(pod.server)}};
}

PodState pod_from(const Json& json) {
  PodState pod;
  pod.name = json.at("name").get<std::string>();
  pod.cni.addresses = from_texts<IpAddr>(json.at("addresses"));
  pod.cni.container_id = json.at("netns").get<std::string>();
  pod.cni.arguments = json.at("arguments").get<std::string>();
  pod.cni.configurations = json.at("configurations").get<std::vector<std::string>>();
  pod.cni.result = json.at("result").get<std::string>();
  pod.server = process_from(json.at("server"));
  return pod;
}

Json to_json(const LabState& state) {
  Json json{{"name", state.name},
            {"first", to_json(state.first.id)},
            {"life", state.life == LabOptions::Life::WithCaller ? "with-caller" : "until-down"},
            {"topology", state.topology},
            {"dataplane", state.dataplane},
            {"socket", state.file("tierlogd.sock")},
            {"database", state.file("flows.db")},
            {"daemon", to_json(state.daemon)},
            {"chain",
             {{"cni", state.chain.cni == Cni::Bridge ? "bridge" : "ptp"},
              {"cni_folder", state.chain.cni_folder},
              {"bin_folder", state.chain.bin_folder},
              {"socket", state.chain.socket}}},
            {"node", to_texts(state.node)},
            {"outside", to_texts(state.outside)},
            {"pod_cidrs", to_texts(state.pod_cidrs)},
            {"fixed", to_texts(state.fixed)},
            {"foreign", to_texts(state.foreign)},
            {"pods", Json::array()}};
  for (const auto& pod : state.pods) json["pods"].push_back(to_json(pod));
  return json;
}

LabState state_from(const Json& json) {
  LabState state;
  state.name = json.at("name").get<std::string>();
  state.first.id = process_from(json.at("first"));
  state.life = json.at("life") == "with-caller" ? LabOptions::Life::WithCaller : LabOptions::Life::UntilDown;
  state.topology = json.at("topology").get<std::string>();
  state.dataplane = json.at("dataplane").get<std::string>();
  state.daemon = process_from(json.at("daemon"));
  const Json& chain = json.at("chain");
  state.chain.cni = chain.at("cni") == "bridge" ? Cni::Bridge : Cni::Ptp;
  state.chain.cni_folder = chain.at("cni_folder").get<std::string>();
  state.chain.bin_folder = chain.at("bin_folder").get<std::string>();
  state.chain.socket = chain.at("socket").get<std::string>();
  state.node = from_texts<IpAddr>(json.at("node"));
  state.outside = from_texts<IpAddr>(json.at("outside"));
  state.pod_cidrs = from_texts<Cidr>(json.at("pod_cidrs"));
  state.fixed = from_texts<IpAddr>(json.at("fixed"));
  state.foreign = from_texts<IpAddr>(json.at("foreign"));
  for (const auto& pod : json.at("pods")) state.pods.push_back(pod_from(pod));
  return state;
}

}  // namespace

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
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kLabsFolder, error)) {
    if (fs::exists(entry.path() / kStateFile, error)) names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
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
  for (const auto& entry : fs::directory_iterator(folder, error)) fs::remove_all(entry.path(), error);
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
