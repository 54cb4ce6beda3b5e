#include "cni/host_interface.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <vector>

#include "base/handle.h"

namespace tierlog::cni {
namespace {

std::optional<unsigned> read_number(const std::string& path) {
  std::ifstream file(path);
  unsigned number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// Does something in another network namespace; false when it cannot be entered.
bool inside(const std::string& netns, const std::function<void()>& act) {
  const Fd home(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const Fd container(::open(netns.c_str(), O_RDONLY | O_CLOEXEC));
  if (!home || !container || ::setns(container.get(), CLONE_NEWNET) != 0) return false;
  act();
  return ::setns(home.get(), CLONE_NEWNET) == 0;
}

}  // namespace

std::optional<Links::Link> KernelLinks::on_host(const std::string& name) const {
  const std::string folder = "/sys/class/net/" + name;
  const auto index = read_number(folder + "/ifindex");
  const auto peer = read_number(folder + "/iflink");
  if (!index || !peer) return std::nullopt;
  std::error_code absent;
  return Link{*index, *peer, std::filesystem::exists(folder + "/bridge", absent)};
}

std::optional<unsigned> KernelLinks::in_container(const std::string& netns, const std::string& name) const {
  unsigned index = 0;
  if (!inside(netns, [&] { index = ::if_nametoindex(name.c_str()); }) || index == 0) return std::nullopt;
  return index;
}

std::string KernelLinks::mac_in_container(const std::string& netns, const std::string& name) const {
  ifreq request{};
  bool read = false;
  const bool entered = inside(netns, [&] {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    read = socket && ::ioctl(socket.get(), SIOCGIFHWADDR, &request) == 0;
  });
  if (!entered || !read) return {};
  std::array<unsigned, 6> byte{};
  for (std::size_t i = 0; i < byte.size(); ++i)
    byte[i] = static_cast<unsigned char>(request.ifr_hwaddr.sa_data[i]);
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", byte[0], byte[1], byte[2], byte[3],
                byte[4], byte[5]);
  return text.data();
}

Outcome<std::string> host_interface(const PreviousResult& previous, const Environment& environment,
                                    const Links& links) {
  std::vector<std::string> candidates;
  for (const auto& one : previous.interfaces) {
    if (one.sandbox.empty() && !one.name.empty()) candidates.push_back(one.name);
  }
  const auto container = links.in_container(environment.netns, environment.interface);
  std::vector<std::string> possible;
  for (const auto& name : candidates) {
    const auto link = links.on_host(name);
    // Indices of two namespaces may be equal by chance; a device without a peer names itself.
    const bool has_peer = link && link->peer != link->index;
    if (container && has_peer && link->peer == *container) return name;
    if (!link || !link->is_bridge) possible.push_back(name);
  }
  if (possible.size() == 1) return possible.front();
  return refuse(Code::InvalidConfiguration,
                "prevResult does not show the host's end of " + environment.interface +
                    " (host interfaces: " + listed(candidates) +
                    "); expected a plugin before that makes a veth pair, like ptp or bridge");
}

}  // namespace tierlog::cni
