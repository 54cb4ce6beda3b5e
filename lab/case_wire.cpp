#include "lab/case_wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

namespace tierlog::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kMark = "tl-check:", kSentinel = "tl-after:";
constexpr std::uint16_t kSentinelType = 0x88b5;  // for local experiments
constexpr std::chrono::seconds kPatience{10};
// Routes need somebody to go through; the neighbour entry below says who it is.
constexpr const char* kOutsideV4 = "169.254.1.1";
constexpr const char* kOutsideV6 = "fe80::1";

std::string numbered(std::string_view head, std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", value);
  return std::string(head) + text;
}

Mac mac_of(unsigned side, std::size_t link) {
  return {0x02,
          0x74,
          static_cast<std::uint8_t>(side),
          0,
          static_cast<std::uint8_t>(link >> 8),
          static_cast<std::uint8_t>(link & 0xff)};
}

std::string text_of(const Mac& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                mac[5]);
  return text;
}

constexpr unsigned kNodeSide = 0, kFarSide = 1;

Result<void> enter_new_namespace() {
  if (::unshare(CLONE_NEWNET) == 0) return {};
  return fail(ErrorCode::Refused, std::string("make a network namespace: ") + std::strerror(errno) +
                                      " (needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root)");
}

Result<void> set_switch(const char* name, const char* value) {
  const std::string path = std::string("/proc/sys/net/") + name;
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) return {};
  if (!file || ::write(file.get(), value, std::strlen(value)) < 0)
    return fail(Error::from_errno(errno, "set", path));
  return {};
}

Result<void> run_ip(const std::string& batch) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno(errno, "make", "a pipe"));
  Fd reading(ends[0]), writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail(Error::from_errno(errno, "fork for", "ip"));
  if (child == 0) {
    ::dup2(reading.get(), STDIN_FILENO);
    ::execlp("ip", "ip", "-batch", "-", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  std::size_t done = 0;
  while (done < batch.size()) {
    const ssize_t wrote = ::write(writing.get(), batch.data() + done, batch.size() - done);
    if (wrote <= 0) break;
    done += static_cast<std::size_t>(wrote);
  }
  writing = Fd();
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(ErrorCode::NotFound, "there is no `ip` (Debian package iproute2)");
  return fail(ErrorCode::Refused, "ip -batch: the links could not be made");
}

// Of all interfaces of this thread's namespace; what is sent here is not read here.
Result<Fd> packet_socket() {
  Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
  if (!socket) return fail(Error::from_errno(errno, "open", "a packet socket"));
  const int on = 1, room = 64 << 20;
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  return socket;
}

// On the node only sentinels are of interest, and they must not meet the egress hook on their way out.
Result<void> only_sentinels(const Fd& socket) {
  sock_filter code[] = {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kSentinelType, 0, 1),
                        BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{4, code};
  const int on = 1;
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0 ||
      ::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0)
    return fail(Error::from_errno(errno, "set up", "a packet socket"));
  return {};
}

// One CPU has one queue: what is sent later arrives later.
void stay_on_one_cpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(std::max(0, ::sched_getcpu())), &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

FrameSpec frame_of(const Shot& shot, std::size_t link, std::uint32_t number) {
  FrameSpec frame;
  const policy::Packet& packet = shot.packet;
  frame.source = mac_of(kFarSide, link);
  frame.destination = mac_of(kNodeSide, link);
  frame.from = packet.source;
  frame.to = packet.destination;
  frame.protocol = packet.protocol;
  frame.source_port = packet.source_port;
  frame.port = packet.destination_port;
  frame.icmp_type = packet.icmp_type;
  frame.icmp_code = packet.icmp_code;
  frame.icmp_id = shot.icmp_id;
  frame.fragment_id = number;
  frame.mark = numbered(kMark, number);
  return frame;
}

Bytes sentinel(unsigned from_side, std::size_t link) {
  FrameSpec frame;
  frame.source = mac_of(from_side, link);
  frame.destination = mac_of(from_side == kNodeSide ? kFarSide : kNodeSide, link);
  frame.ethertype = kSentinelType;
  frame.mark = kSentinel;
  return build(frame);
}

// The number behind a mark; nothing when the frame has none.
std::optional<std::uint32_t> number_in(const Bytes& frame, std::size_t size) {
  const void* found = ::memmem(frame.data(), size, kMark.data(), kMark.size());
  if (found == nullptr) return std::nullopt;
  const auto* text = static_cast<const char*>(found) + kMark.size();
  if (text + 8 > reinterpret_cast<const char*>(frame.data()) + size) return std::nullopt;
  return static_cast<std::uint32_t>(std::strtoul(std::string(text, 8).c_str(), nullptr, 16));
}

}  // namespace

Result<std::unique_ptr<Wire>> Wire::make(std::vector<WirePod> pods) {
  std::unique_ptr<Wire> wire(new Wire);
  wire->pods_ = std::move(pods);
  TL_TRY(wire->make_links());
  return wire;
}

Result<void> Wire::make_links() {
  TL_TRY(enter_new_namespace());
  for (const char* name : {"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"})
    TL_TRY(set_switch(name, "1"));
  far_namespace_ = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  TL_ASSIGN(far_socket_, packet_socket());
  TL_TRY(enter_new_namespace());
  for (const auto& [name, value] : {std::pair{"ipv4/ip_forward", "1"},
                                    {"ipv6/conf/all/forwarding", "1"},
                                    {"ipv6/conf/default/forwarding", "1"},
                                    {"ipv4/conf/all/rp_filter", "0"},
                                    {"ipv4/conf/default/rp_filter", "0"},
                                    {"ipv4/conf/all/send_redirects", "0"},
                                    {"ipv4/conf/default/send_redirects", "0"},
                                    {"ipv6/conf/default/accept_dad", "0"},
                                    {"ipv6/conf/default/accept_ra", "0"}})
    TL_TRY(set_switch(name, value));
  const std::string far =
      "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(far_namespace_.get());
  std::string batch = "link set lo up\n";  // its address makes the tables that routes are looked up in
  for (std::size_t link = 0; link <= pods_.size(); ++link) {
    const std::string near_name = "n" + std::to_string(link), number = std::to_string(link);
    batch += "link add " + near_name + " address " + text_of(mac_of(kNodeSide, link)) +
             " type veth peer name p" + number + " address " + text_of(mac_of(kFarSide, link)) + " netns " +
             far + "\nlink set " + near_name + " addrgenmode none\nlink set " + near_name + " up\n";
    const auto lead = [&](const std::string& address, const std::string& to, const std::string& route) {
      batch += "neigh add " + address + " lladdr " + text_of(mac_of(kFarSide, link)) + " dev " + near_name +
               " nud permanent\nroute add " + to + " " + route + "dev " + near_name +
               (route.empty() ? "\n" : " onlink\n");
    };
    if (link == 0) {
      lead(kOutsideV4, "0.0.0.0/0", std::string("via ") + kOutsideV4 + " ");
      lead(kOutsideV6, "::/0", std::string("via ") + kOutsideV6 + " ");
      continue;
    }
    WirePod& pod = pods_[link - 1];
    pod.interface = near_name;
    pod.mac = text_of(mac_of(kFarSide, link));
    for (const IpAddr& address : pod.addresses) {
      links_.emplace(address, link);
      // No kernel has a route to these; the packets are left out.
      if (!unroutable({address, address}).empty()) continue;
      lead(address.to_string(), Cidr::host(address).to_string(), "");
    }
  }
  TL_TRY(run_ip(batch));
  Fd node(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  std::string far_batch;
  for (std::size_t link = 0; link <= pods_.size(); ++link)
    far_batch += "link set p" + std::to_string(link) + " up\n";
  if (::setns(far_namespace_.get(), CLONE_NEWNET) != 0)
    return fail(Error::from_errno(errno, "enter", "the far namespace"));
  const auto up = run_ip(far_batch);
  for (std::size_t link = 0; link <= pods_.size(); ++link)
    far_index_.push_back(static_cast<int>(::if_nametoindex(("p" + std::to_string(link)).c_str())));
  if (::setns(node.get(), CLONE_NEWNET) != 0)
    return fail(Error::from_errno(errno, "enter", "the node's namespace"));
  if (!up) return up;
  for (std::size_t link = 0; link <= pods_.size(); ++link)
    node_index_.push_back(static_cast<int>(::if_nametoindex(("n" + std::to_string(link)).c_str())));
  TL_ASSIGN(node_socket_, packet_socket());
  TL_TRY(only_sentinels(node_socket_));
  stay_on_one_cpu();
  return {};
}

std::size_t Wire::link_of(const IpAddr& address) const {
  const auto found = links_.find(address);
  return found == links_.end() ? 0 : found->second;
}

Result<void> Wire::send(const Fd& socket, int interface, const Bytes& frame) const {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = interface;
  for (;;) {
    const ssize_t sent = ::sendto(socket.get(), frame.data(), frame.size(), 0,
                                  reinterpret_cast<const sockaddr*>(&to), sizeof to);
    if (sent == static_cast<ssize_t>(frame.size())) return {};
    if (errno != ENOBUFS && errno != EAGAIN) return fail(Error::from_errno(errno, "send", "a frame"));
  }
}

Result<void> Wire::wait_for(const Fd& socket, std::size_t sentinels, std::vector<Arrival>* arrivals,
                            const std::vector<Shot>* shots) {
  const auto end = Clock::now() + kPatience;
  const std::uint32_t first = round_;
  Bytes frame(2048);
  while (sentinels > 0) {
    pollfd ready{socket.get(), POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) == 0)
      return fail(ErrorCode::Unavailable, "a sentinel did not arrive");
    sockaddr_ll from{};
    socklen_t size_of_from = sizeof from;
    const ssize_t got = ::recvfrom(socket.get(), frame.data(), frame.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &size_of_from);
    if (got <= 0) continue;
    const auto size = static_cast<std::size_t>(got);
    if (ntohs(from.sll_protocol) == kSentinelType) {
      --sentinels;
      continue;
    }
    if (arrivals == nullptr) continue;
    const auto number = number_in(frame, size);
    if (!number || *number < first || *number - first >= shots->size()) continue;
    const std::size_t i = *number - first;
    const policy::Packet& packet = (*shots)[i].packet;
    // An error about it comes back on the sender's link; that may be the receiver's too, outside.
    const bool is_error = packet.protocol != protocol::kIcmp && packet.protocol != protocol::kIcmpV6 &&
                          frame[packet.source.family == Family::V4 ? 14 + 9 : 14 + 6] != packet.protocol;
    if (is_error)
      (*arrivals)[i].returned = true;
    else if (from.sll_ifindex == far_index_[link_of(packet.destination)])
      (*arrivals)[i].delivered = true;
  }
  return {};
}

Result<std::vector<Arrival>> Wire::shoot(const std::vector<Shot>& shots) {
  std::vector<Arrival> arrivals(shots.size());
  std::vector<bool> from(far_index_.size(), false), to(far_index_.size(), false);
  for (std::size_t i = 0; i < shots.size(); ++i) {
    const std::size_t link = link_of(shots[i].packet.source);
    from[link] = true;
    to[link_of(shots[i].packet.destination)] = true;
    const Bytes frame = build(frame_of(shots[i], link, round_ + static_cast<std::uint32_t>(i)));
    TL_TRY(send(far_socket_, far_index_[link], frame));
  }
  std::size_t expected = 0;
  for (std::size_t link = 0; link < from.size(); ++link) {
    if (!from[link]) continue;
    TL_TRY(send(far_socket_, far_index_[link], sentinel(kFarSide, link)));
    ++expected;
  }
  TL_TRY(wait_for(node_socket_, expected, nullptr, nullptr));
  expected = 0;
  for (std::size_t link = 0; link < to.size(); ++link) {
    if (!to[link]) continue;
    TL_TRY(send(node_socket_, node_index_[link], sentinel(kNodeSide, link)));
    ++expected;
  }
  TL_TRY(wait_for(far_socket_, expected, &arrivals, &shots));
  round_ += static_cast<std::uint32_t>(shots.size());
  return arrivals;
}

Result<void> Wire::flush_connections() {
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  struct {
    nlmsghdr header;
    nfgenmsg body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  if (!socket || ::send(socket.get(), &request, sizeof request, 0) < 0)
    return fail(Error::from_errno(errno, "flush", "the connections"));
  struct {
    nlmsghdr header;
    nlmsgerr error;
    char rest[256];
  } answer{};
  if (::recv(socket.get(), &answer, sizeof answer, 0) < 0 || answer.error.error != 0)
    return fail(Error::from_errno(-answer.error.error, "flush", "the connections"));
  return {};
}

std::string unroutable(const policy::Packet& packet) {
  struct Odd {
    const char* net;
    const char* what;
  };
  constexpr Odd kOdd[] = {{"0.0.0.0/8", "is no address of a host"},  {"127.0.0.0/8", "is a loopback address"},
                          {"224.0.0.0/4", "is a multicast address"}, {"240.0.0.0/4", "is reserved"},
                          {"::/127", "is a loopback address"},       {"fe80::/10", "is a link-local address"},
                          {"ff00::/8", "is a multicast address"}};
  for (const IpAddr* address : {&packet.source, &packet.destination})
    for (const Odd& odd : kOdd)
      if (Cidr::parse(odd.net)->contains(*address))
        return address->to_string() + " " + odd.what + ", which no kernel forwards";
  constexpr std::uint8_t kExtensions[] = {43, 44, 51, 59, 60};
  if (packet.source.family == Family::V6 &&
      std::find(std::begin(kExtensions), std::end(kExtensions), packet.protocol) != std::end(kExtensions))
    return "protocol " + std::to_string(packet.protocol) +
           " is an extension header of IPv6: kernels look for the protocol behind it";
  return {};
}

}  // namespace tierlog::lab
