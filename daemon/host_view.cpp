#include "daemon/host_view.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/files.h"
#include "base/handle.h"

namespace tierlog::daemon {

std::string KernelView::boot_id() const {
  const auto id = read_file("/proc/sys/kernel/random/boot_id", 64);
  return id ? id->substr(0, id->find('\n')) : "";
}

bool KernelView::has_interface(const std::string& name) const {
  return ::if_nametoindex(name.c_str()) != 0;
}

bool KernelView::has_netns(const std::string& path) const {
  return ::access(path.c_str(), F_OK) == 0;
}

std::vector<IpAddr> KernelView::addresses() const {
  std::vector<IpAddr> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  const Owned<ifaddrs, ::freeifaddrs> owner(list);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    IpAddr address;
    if (entry->ifa_addr->sa_family == AF_INET) {
      const auto* in = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
      address = IpAddr::v4(ntohl(in->sin_addr.s_addr));
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      const auto* in = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
      address.family = Family::V6;
      std::memcpy(address.bytes.data(), &in->sin6_addr, 16);
    } else {
      continue;
    }
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end())
      addresses.push_back(address);
  }
  return addresses;
}

}  // namespace tierlog::daemon
