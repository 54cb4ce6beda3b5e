#include "dataplane/ebpf/stations.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/handle.h"
#include "dataplane/links.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::HostEndpoint;
using policy::kNone;
using policy::Program;
using Addresses = std::map<std::string, std::vector<IpAddr>>;  // by interface

Result<Addresses> addresses_here() {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return fail(Error::from_errno(errno, "list", "addresses"));
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> list(first, &::freeifaddrs);
  Addresses found;
  for (const ifaddrs* one = first; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    IpAddr address;
    if (one->ifa_addr->sa_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      address.family = Family::V4;
      std::memcpy(address.bytes.data(), &v4->sin_addr, 4);
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      address.family = Family::V6;
      std::memcpy(address.bytes.data(), &v6->sin6_addr, 16);
    } else {
      continue;
    }
    found[one->ifa_name].push_back(address);
  }
  return found;
}

// ARPHRD_…; nothing: it is gone.
std::optional<int> kind_of(const Fd& socket, const std::string& interface) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) return std::nullopt;
  return request.ifr_hwaddr.sa_family;
}

// Devices that show IP packets with nothing before them: tun, WireGuard and the like, IP in IP.
bool shows_raw_ip(int kind) {
  return kind == ARPHRD_NONE || kind == ARPHRD_RAWIP || kind == ARPHRD_TUNNEL || kind == ARPHRD_TUNNEL6 || kind == ARPHRD_SIT;
}

// Into program.hosts: named ones and those that are known by an address stand before "*".
std::uint32_t host_of(const Program& program, const std::string& interface, const std::vector<IpAddr>& own) {
  for (std::uint32_t i = 0; i < program.hosts.size(); ++i) {
    const HostEndpoint& host = program.cluster->host_endpoints[program.hosts[i].endpoint];
    if (host.interface == interface || host.interface == "*") return i;
    const auto is_own = [&](const IpAddr& address) { return std::find(own.begin(), own.end(), address) != own.end(); };
    if (host.interface.empty() && std::any_of(host.addresses.begin(), host.addresses.end(), is_own)) return i;
  }
  return kNone;
}

Result<void> add_hosts(const Program& program, bool carries, const std::set<std::string>& of_pods,
                       std::vector<Attached>& into) {
  TL_ASSIGN(const auto links, Links::open());
  TL_ASSIGN(const auto all, links->list());
  TL_ASSIGN(const Addresses addresses, addresses_here());
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (const Link& link : all) {
    const auto kind = kind_of(socket, link.name);
    if (!kind || *kind == ARPHRD_LOOPBACK || link.master != 0 || of_pods.contains(link.name)) continue;
    const auto own = addresses.find(link.name);
    const std::uint32_t host =
        host_of(program, link.name, own == addresses.end() ? std::vector<IpAddr>{} : own->second);
    const bool is_raw = shows_raw_ip(*kind);
    if (*kind != ARPHRD_ETHER && !is_raw) {
      if (host == kNone) continue;
      return fail(ErrorCode::InvalidArgument,
                  program.cluster->host_endpoints[program.hosts[host].endpoint].display() + ": frames of interface " +
                      link.name + " are neither Ethernet's nor plain IP (type " + std::to_string(*kind) +
                      "), which the eBPF programs need; dataplane: nftables enforces it");
    }
    if (host != kNone)
      into.push_back({Station::Host, host, static_cast<std::uint32_t>(link.index), is_raw});
    else if (carries)
      into.push_back({Station::Plain, kNone, static_cast<std::uint32_t>(link.index), is_raw});
  }
  return {};
}

}  // namespace

Interfaces::Interfaces() {
  if (auto links = Links::open()) changes_ = std::move(*links);
}
Interfaces::~Interfaces() = default;

void Interfaces::look() {
  if (!changes_ || changes_->drain()) known_.clear();
}

std::uint32_t Interfaces::index_of(const std::string& name) {
  if (name.empty()) return 0;
  const auto [known, is_new] = known_.try_emplace(name, 0);
  // What is not there may come without being an interface of ours before.
  if (is_new || known->second == 0) known->second = ::if_nametoindex(name.c_str());
  return known->second;
}

Result<std::vector<Attached>> stations_of(const Program& program, bool carries, Interfaces& interfaces) {
  interfaces.look();
  std::vector<Attached> ends;
  std::set<std::uint32_t> taken;
  std::set<std::string> names;
  const auto add = [&](Station station, std::uint32_t endpoint, const std::string& interface) {
    names.insert(interface);
    // An interface that is gone takes its filters with it.
    const std::uint32_t index = interfaces.index_of(interface);
    if (index != 0 && taken.insert(index).second) ends.push_back({station, endpoint, index, false});
  };
  for (std::uint32_t i = 0; i < program.endpoints.size(); ++i) {
    const policy::Endpoint& pod = program.cluster->endpoints[program.endpoints[i].endpoint];
    add(Station::Pod, i, pod.interface);
    names.insert(pod.bridge);
  }
  for (const std::string& interface : program.closed_interfaces) add(Station::Closed, kNone, interface);
  if (!program.hosts.empty() || carries) TL_TRY(add_hosts(program, carries, names, ends));
  return ends;
}

}  // namespace tierlog::dataplane::ebpf
