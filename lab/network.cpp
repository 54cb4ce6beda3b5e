#include "lab/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/handle.h"

namespace tierlog::lab {
namespace {

struct Setting {
  const char* name;
  const char* value;
};

// Every value that the machine's own settings could have changed is stated.
constexpr Setting kEverywhere[] = {
    {"ipv4/conf/all/rp_filter", "0"},          {"ipv4/conf/default/rp_filter", "0"},
    {"ipv6/conf/all/disable_ipv6", "0"},       {"ipv6/conf/default/disable_ipv6", "0"},
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

Result<void> prepare_here() {
  TL_TRY(set_all(kEverywhere));
  return loopback_up();
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

IpAddr uplink_end(Family family, bool of_node) {
  const char* v4 = of_node ? "192.0.2.1" : "192.0.2.2";
  const char* v6 = of_node ? "2001:db8:2::1" : "2001:db8:2::2";
  return *IpAddr::parse(family == Family::V4 ? v4 : v6);
}

// Single addresses with a route to the other end, not a subnet: an address next to them may be a pod's.
void join_uplink(std::ostringstream& batch, const std::vector<IpAddr>& own, const char* device,
                 bool of_node) {
  for (const auto& address : own) assign(batch, address, device);
  for (const Family family : {Family::V4, Family::V6}) {
    const IpAddr mine = uplink_end(family, of_node);
    const IpAddr other = uplink_end(family, !of_node);
    assign(batch, mine, device);
    batch << "route add " << other.to_string() << bits(other) << " dev " << device << "\n";
    const auto from = std::ranges::find_if(own, [&](const IpAddr& one) { return one.family == family; });
    batch << "route add default via " << other.to_string() << " dev " << device << " src "
          << (from != own.end() ? *from : mine).to_string() << "\n";
  }
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

std::vector<IpAddr> uplink_addresses(bool of_node) {
  return {uplink_end(Family::V4, of_node), uplink_end(Family::V6, of_node)};
}

Result<void> build_network(const Place& node, const NetworkPlan& plan) {
  TL_TRY(do_in(node, [] {
    const auto ready = prepare_here();
    return ready ? set_all(kNode) : ready;
  }));
  TL_TRY(make_netns(node, kOutside));
  const Place outside{node.first, kOutside};
  TL_TRY(do_in(outside, [] { return set_all(kOutsideOnly); }));
  std::ostringstream inner;
  inner << "link add uplink type veth peer name eth0 netns " << kOutside << "\nlink set uplink up\n";
  join_uplink(inner, plan.node, "uplink", true);
  std::ostringstream outer;
  outer << "link set eth0 up\n";
  join_uplink(outer, plan.outside, "eth0", false);
  TL_TRY(run_ip(node, inner.str()));
  TL_TRY(run_ip(outside, outer.str()));
  TL_TRY(run_ip(outside, kAnyAddress4, "-4"));
  return run_ip(outside, kAnyAddress6, "-6");
}

Result<void> make_netns(const Place& node, const std::string& name) {
  return do_in(node, [&]() -> Result<void> {
    const std::string path = path_of(name);
    if (::unshare(CLONE_NEWNET) != 0) return fail(Error::from_errno(errno, "make network namespace", name));
    TL_TRY(prepare_here());
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
