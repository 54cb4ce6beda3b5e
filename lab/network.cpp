#include "lab/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/handle.h"
#include "lab/mounts.h"

namespace tierlog::lab {
namespace {

struct Setting {
  const char* name;
  const char* value;
};

// Every value that the machine's own settings could have changed is stated.
constexpr Setting kEverywhere[] = {
    {"ipv4/conf/all/rp_filter", "0"},          {"ipv4/conf/default/rp_filter", "0"},
    {"ipv6/conf/all/accept_dad", "0"},         {"ipv6/conf/default/accept_dad", "0"},
    {"ipv6/conf/all/accept_ra", "0"},          {"ipv6/conf/default/accept_ra", "0"},
    {"ipv4/ping_group_range", "0 2147483647"},
};
constexpr Setting kNode[] = {
    {"ipv4/ip_forward", "1"},
    {"ipv6/conf/all/forwarding", "1"},
    {"ipv6/conf/default/forwarding", "1"},
};
// Sending from, and binding to, addresses that no interface has.
constexpr Setting kOutsideOnly[] = {
    {"ipv4/ip_nonlocal_bind", "1"},
    {"ipv6/ip_nonlocal_bind", "1"},
    // It takes all addresses for its own, but must not answer for its neighbours on the link.
    {"ipv4/conf/all/arp_ignore", "1"},
};

Result<void> set(const Setting& setting) {
  const std::string path = std::string("/proc/sys/net/") + setting.name;
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return {};  // a kernel without that family or feature
    return fail(Error::from_errno(errno, "open", path));
  }
  const auto size = static_cast<ssize_t>(std::strlen(setting.value));
  if (::write(file.get(), setting.value, static_cast<std::size_t>(size)) != size) {
    return fail(Error::from_errno(errno, "set", path));
  }
  return {};
}

template <std::size_t count>
Result<void> set_all(const Setting (&settings)[count]) {
  for (const auto& setting : settings) TL_TRY(set(setting));
  return {};
}

Result<void> loopback_up() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof request.ifr_name - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0) return {};
  return fail(Error::from_errno(errno, "bring up", "lo"));
}

bool among(const std::vector<Family>& families, Family family) {
  return families.empty() || std::ranges::find(families, family) != families.end();
}

Result<void> prepare_here(const std::vector<Family>& families) {
  TL_TRY(set_all(kEverywhere));
  const char* no_v6 = among(families, Family::V6) ? "0" : "1";
  TL_TRY(set({"ipv6/conf/all/disable_ipv6", no_v6}));
  TL_TRY(set({"ipv6/conf/default/disable_ipv6", no_v6}));
  return loopback_up();
}

Result<void> prepare_node(const Place& node, const std::vector<Family>& families) {
  return do_in(node, [&] {
    const auto ready = prepare_here(families);
    return ready ? set_all(kNode) : ready;
  });
}

std::string path_of(const std::string& netns) {
  return "/run/netns/" + netns;
}

// `option`: "-4" or "-6" for lines that do not show their family.
Result<void> run_ip(const Place& place, const std::string& batch, const char* option = nullptr) {
  Command command{{"ip", "-batch", "-"}, {}};
  if (option != nullptr) command.words.insert(command.words.begin() + 1, option);
  TL_ASSIGN(const Captured said, capture_in(place, command, batch));
  if (said.exit_code == 0) return {};
  if (said.exit_code == 127) return fail(ErrorCode::NotFound, "there is no `ip` (Debian package iproute2)");
  return fail(ErrorCode::Refused, "ip: " + said.errors);
}

std::string bits(const IpAddr& address) {
  return "/" + std::to_string(address.bits());
}

void assign(std::ostringstream& batch, const IpAddr& address, const char* device) {
  batch << "addr add " << address.to_string() << bits(address) << " dev " << device
        << (address.family == Family::V6 ? " nodad\n" : "\n");
}

constexpr const char* kUplink = "uplink";
constexpr const char* kOutsideLink = "eth0";
constexpr std::size_t kOutsideNumber = 2;

// 192.0.2.N and 2001:db8:2::N
std::vector<IpAddr> link_addresses(std::size_t number, const std::vector<Family>& families) {
  std::vector<IpAddr> found;
  if (among(families, Family::V4)) found.push_back(*IpAddr::parse("192.0.2." + std::to_string(number)));
  if (among(families, Family::V6)) found.push_back(*IpAddr::parse("2001:db8:2::" + std::to_string(number)));
  return found;
}

const IpAddr* of_family(const std::vector<IpAddr>& addresses, Family family) {
  const auto found = std::ranges::find(addresses, family, &IpAddr::family);
  return found == addresses.end() ? nullptr : &*found;
}

// Single addresses with a route to the other end, not a subnet: an address next to them may be a pod's.
void own_addresses(std::ostringstream& batch, const std::vector<IpAddr>& own, const std::vector<IpAddr>& link,
                   const char* device) {
  for (const auto& address : own) assign(batch, address, device);
  for (const auto& address : link) assign(batch, address, device);
}

void route(std::ostringstream& batch, const char* verb, const IpAddr& to, const IpAddr& via,
           const char* device) {
  batch << "route " << verb << " " << to.to_string() << bits(to) << " via " << via.to_string() << " dev "
        << device << "\n";
}

void on_link(std::ostringstream& batch, const std::vector<IpAddr>& link, const char* device) {
  for (const auto& end : link)
    batch << "route add " << end.to_string() << bits(end) << " dev " << device << "\n";
}

void default_route(std::ostringstream& batch, const std::vector<IpAddr>& own, const std::vector<IpAddr>& mine,
                   const std::vector<IpAddr>& other, const char* device) {
  for (const auto& end : other) {
    const IpAddr* from = of_family(own, end.family);
    if (from == nullptr) from = of_family(mine, end.family);
    batch << "route add default via " << end.to_string() << " dev " << device << " src " << from->to_string()
          << "\n";
  }
}

// A node's other addresses are reached over its end of the link.
void routes_to(std::ostringstream& batch, const std::vector<IpAddr>& addresses,
               const std::vector<IpAddr>& link, const char* device, const char* verb) {
  for (const auto& address : addresses)
    if (const IpAddr* via = of_family(link, address.family)) route(batch, verb, address, *via, device);
}

std::string node_batch(const NetworkPlan& plan, std::size_t mine) {
  std::ostringstream batch;
  batch << "link set " << kUplink << " up\n";
  const auto link = node_link(mine, plan.families);
  const auto outside = outside_link(plan.families);
  own_addresses(batch, plan.nodes[mine].addresses, link, kUplink);
  on_link(batch, outside, kUplink);
  for (std::size_t other = 0; other < plan.nodes.size(); ++other) {
    if (other == mine) continue;
    const auto there = node_link(other, plan.families);
    on_link(batch, there, kUplink);
    routes_to(batch, plan.nodes[other].addresses, there, kUplink, "add");
  }
  default_route(batch, plan.nodes[mine].addresses, link, outside, kUplink);
  return batch.str();
}

std::string outside_batch(const NetworkPlan& plan) {
  std::ostringstream batch;
  if (plan.nodes.size() > 1) {
    batch << "link add " << kOutsideLink << " type bridge mcast_snooping 0\n";
    for (std::size_t i = 0; i < plan.nodes.size(); ++i)
      batch << "link set port" << i << " master " << kOutsideLink << "\nlink set port" << i << " up\n";
  }
  batch << "link set " << kOutsideLink << " up\n";
  const auto link = outside_link(plan.families);
  own_addresses(batch, plan.outside, link, kOutsideLink);
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    const auto there = node_link(i, plan.families);
    on_link(batch, there, kOutsideLink);
    if (i == 0)
      default_route(batch, plan.outside, link, there, kOutsideLink);
    else
      routes_to(batch, plan.nodes[i].addresses, there, kOutsideLink, "add");
  }
  return batch.str();
}

// Made in the first node, where the other namespaces have their names.
std::string links_batch(const NetworkPlan& plan) {
  if (plan.nodes.size() == 1)
    return std::string("link add uplink type veth peer name ") + kOutsideLink + " netns " + kOutside + "\n";
  std::ostringstream batch;
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    batch << "link add name uplink";
    if (i > 0) batch << " netns " << plan.nodes[i].name;
    batch << " type veth peer name port" << i << " netns " << kOutside << "\n";
  }
  return batch.str();
}

// What arrives on eth0 is local whatever its address (table 100, by rule); what is sent follows table
// main to the node. IPv4 also wants every source address to be local by the local table, which therefore
// has to be asked after main.
constexpr const char* kAnyAddress4 = R"(route add local default dev lo table 100
rule add pref 1 iif eth0 lookup 100
rule add pref 2 to 127.0.0.0/8 lookup local
rule add pref 3 lookup main
rule add pref 300 lookup local
rule del pref 0
route add local default dev lo table local
)";
constexpr const char* kAnyAddress6 = R"(route add local default dev lo table 100
rule add pref 1 iif eth0 lookup 100
)";

}  // namespace

std::vector<IpAddr> node_link(std::size_t node, const std::vector<Family>& families) {
  return link_addresses(node == 0 ? 1 : kOutsideNumber + node, families);
}

std::vector<IpAddr> outside_link(const std::vector<Family>& families) {
  return link_addresses(kOutsideNumber, families);
}

Result<ProcessId> start_node(const Place& first, const std::string& name, const std::vector<Family>& families,
                             const std::string& socket) {
  TL_TRY(make_netns(first, name, families));
  return start_detached({first.first, name}, [&](Reporter& reporter) {
    ::prctl(PR_SET_NAME, "lab-node");
    auto ready = ::unshare(CLONE_NEWNS) == 0
                     ? mount_node(socket)
                     : Result<void>(fail(Error::from_errno(errno, "make a mount namespace for", name)));
    if (!ready) {
      reporter.error(ready.error());
      return 1;
    }
    reporter.close();
    for (;;) ::pause();
  });
}

Result<void> build_network(const NetworkPlan& plan) {
  const Place first{plan.nodes.front().keeper, {}};
  const Place outside{first.first, kOutside};
  for (const auto& node : plan.nodes) TL_TRY(prepare_node({node.keeper, {}}, plan.families));
  TL_TRY(make_netns(first, kOutside, plan.families));
  TL_TRY(do_in(outside, [] { return set_all(kOutsideOnly); }));
  TL_TRY(run_ip(first, links_batch(plan)));
  TL_TRY(run_ip(outside, outside_batch(plan)));
  for (std::size_t i = 0; i < plan.nodes.size(); ++i)
    TL_TRY(run_ip({plan.nodes[i].keeper, {}}, node_batch(plan, i)));
  if (among(plan.families, Family::V4)) TL_TRY(run_ip(outside, kAnyAddress4, "-4"));
  return among(plan.families, Family::V6) ? run_ip(outside, kAnyAddress6, "-6") : Result<void>{};
}

Result<void> route_to_node(const Place& place, const std::vector<IpAddr>& addresses, std::size_t node,
                           bool there) {
  std::ostringstream batch;
  routes_to(batch, addresses, node_link(node, {}), place.netns == kOutside ? kOutsideLink : kUplink,
            there ? "replace" : "del");
  return run_ip(place, batch.str());
}

Result<void> make_netns(const Place& node, const std::string& name, const std::vector<Family>& families) {
  return do_in(node, [&]() -> Result<void> {
    const std::string path = path_of(name);
    if (::unshare(CLONE_NEWNET) != 0) return fail(Error::from_errno(errno, "make network namespace", name));
    TL_TRY(prepare_here(families));
    const Fd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0));
    if (!file) return fail(Error::from_errno(errno, "create", path));
    if (::mount("/proc/self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      return fail(Error::from_errno(errno, "bind network namespace to", path));
    }
    return {};
  });
}

Result<void> remove_netns(const Place& node, const std::string& name) {
  return do_in(node, [&]() -> Result<void> {
    const std::string path = path_of(name);
    if (::umount2(path.c_str(), MNT_DETACH) != 0 && errno != EINVAL && errno != ENOENT) {
      return fail(Error::from_errno(errno, "unmount", path));
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail(Error::from_errno(errno, "remove", path));
    return {};
  });
}

}  // namespace tierlog::lab
