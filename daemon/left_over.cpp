#include "daemon/left_over.h"

#include <net/if.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBootKey = "boot_id";

std::string why_gone(const store::RegisteredEndpoint& endpoint, const HostView& host, bool rebooted) {
  const std::string since = rebooted ? " since the node was booted anew" : "";
  if (!host.has_interface(endpoint.host_interface))
    return "its interface " + endpoint.host_interface + " is gone" + since;
  if (rebooted && !host.has_netns(endpoint.netns))
    return "its network namespace " + endpoint.netns + " is gone" + since;
  return "";
}

}  // namespace

std::vector<SpooledDel> read_spool(const std::string& folder, std::vector<std::string>& strange) {
  std::vector<SpooledDel> waiting;
  std::error_code error;
  const fs::directory_iterator entries(folder, error);
  if (error) return waiting;
  for (const auto& entry : entries) {
    if (entry.path().extension() != ".json") continue;  // still being written
    // Whoever may write there can leave a pipe or a folder, too.
    constexpr std::size_t kLongest = 64 * 1024;
    const auto content = read_file(entry.path().string(), kLongest);
    const auto request = nlohmann::json::parse(content ? *content : "", nullptr, false);
    const auto text = [&](const char* key) {
      const auto found = request.find(key);
      return found != request.end() && found->is_string() ? found->get<std::string>() : "";
    };
    const bool fits = request.is_object() && text("op") == "cni-del" && !text("container_id").empty();
    if (fits) {
      waiting.push_back({entry.path().string(), text("container_id"), text("ifname")});
      continue;
    }
    strange.push_back(entry.path().string());
    std::error_code ignored;
    fs::remove(entry.path(), ignored);
  }
  std::sort(waiting.begin(), waiting.end(),
            [](const SpooledDel& a, const SpooledDel& b) { return a.path < b.path; });
  return waiting;
}

std::string KernelView::boot_id() const {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

bool KernelView::has_interface(const std::string& name) const {
  return ::if_nametoindex(name.c_str()) != 0;
}

bool KernelView::has_netns(const std::string& path) const {
  std::error_code ignored;
  return fs::exists(path, ignored);
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
