#include "daemon/left_over.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tierlog::daemon {
namespace {

constexpr const char* kBootKey = "boot_id";
// tierlog-cni writes a line of a few hundred bytes.
constexpr std::size_t kLongestRequest = 64 << 10;

std::string why_gone(const store::RegisteredEndpoint& endpoint, const HostView& host, bool rebooted) {
  const std::string since = rebooted ? " since the node was booted anew" : "";
  if (!host.has_interface(endpoint.host_interface))
    return "its interface " + endpoint.host_interface + " is gone" + since;
  if (rebooted && !host.has_netns(endpoint.netns))
    return "its network namespace " + endpoint.netns + " is gone" + since;
  return "";
}

}  // namespace

std::vector<SpooledDel> read_spool(const std::string& folder, std::vector<std::string>& complaints) {
  std::vector<SpooledDel> waiting;
  const auto names = names_in(folder);
  if (!names) return waiting;
  for (const std::string& name : *names) {
    if (!name.ends_with(".json")) continue;  // still being written
    const std::string path = folder + "/" + name;
    const auto content = read_file(path, kLongestRequest);
    if (!content) {
      // Carried out by somebody else meanwhile, or nothing of ours.
      if (content.error().code != ErrorCode::NotFound)
        complaints.push_back("spool file " + path + " is passed over: " + content.error().message);
      continue;
    }
    const auto request = nlohmann::json::parse(*content, nullptr, false);
    const auto text = [&](const char* key) {
      const auto found = request.find(key);
      return found != request.end() && found->is_string() ? found->get<std::string>() : "";
    };
    const bool fits = request.is_object() && text("op") == "cni-del" && !text("container_id").empty();
    if (fits) {
      waiting.push_back({path, text("container_id"), text("ifname")});
      continue;
    }
    complaints.push_back("spool file " + path + " was no CNI request and is removed");
    ::unlink(path.c_str());
  }
  return waiting;
}

std::string GonePod::to_string() const {
  std::string text = endpoint.endpoint_namespace + "/" + endpoint.name + " (";
  for (const std::string& address : endpoint.addresses) text += (text.back() == '(' ? "" : ", ") + address;
  return text + ") is no longer enforced: " + why;
}

Result<std::vector<GonePod>> drop_gone_pods(store::StateDb& state, const HostView& host) {
  const std::string boot = host.boot_id();
  TL_ASSIGN(const auto before, state.get(kBootKey));
  const bool rebooted = before && *before != boot;
  TL_ASSIGN(const auto registered, state.endpoints());
  std::vector<GonePod> gone;
  for (const store::RegisteredEndpoint& endpoint : registered) {
    const std::string why = why_gone(endpoint, host, rebooted);
    if (why.empty()) continue;
    TL_TRY(state.remove_endpoint(endpoint.container_id, endpoint.ifname));
    gone.push_back({endpoint, why});
  }
  if (!before || rebooted) TL_TRY(state.put(kBootKey, boot));
  return gone;
}

}  // namespace tierlog::daemon
