#include "lab/frames.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/handle.h"

namespace tierlog::lab {
namespace {

using Clock = std::chrono::steady_clock;

Result<Fd> packet_socket(const std::string& interface) {
  Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket) return fail(Error::from_errno(errno, "open", "a packet socket"));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (address.sll_ifindex == 0) return fail(Error::from_errno(errno, "find interface", interface));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(Error::from_errno(errno, "bind to", interface));
  }
  packet_mreq all{};
  all.mr_ifindex = address.sll_ifindex;
  all.mr_type = PACKET_MR_PROMISC;
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
  return socket;
}

// One CPU has one queue, so that what is sent later arrives later.
void stay_on_one_cpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(std::max(0, ::sched_getcpu())), &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

bool holds(const Bytes& frame, std::size_t size, const std::string& mark) {
  return ::memmem(frame.data(), size, mark.data(), mark.size()) != nullptr;
}

}  // namespace

Result<Mac> own_mac(const std::string& interface) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, interface.c_str(), sizeof request.ifr_name - 1);
  if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) {
    return fail(Error::from_errno(errno, "read the hardware address of", interface));
  }
  Mac mac{};
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return mac;
}

Result<void> send_frames(const std::vector<Bytes>& frames, const std::string& interface) {
  TL_ASSIGN(const Fd socket, packet_socket(interface));
  stay_on_one_cpu();
  for (const Bytes& frame : frames) {
    if (::send(socket.get(), frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size())) {
      return fail(Error::from_errno(errno, "send a frame on", interface));
    }
  }
  return {};
}

Result<Watch> Watch::open(const std::string& interface) {
  TL_ASSIGN(Fd socket, packet_socket(interface));
  const int room = 4 << 20;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  return Watch(socket.release());
}

Watch::Watch(Watch&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}

Watch::~Watch() {
  if (socket_ >= 0) ::close(socket_);
}

Result<std::vector<bool>> Watch::until(const std::string& sentinel, const std::vector<std::string>& wanted,
                                       std::chrono::milliseconds timeout) const {
  const auto end = Clock::now() + timeout;
  std::vector<bool> seen(wanted.size(), false);
  Bytes frame(65536);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd ready{socket_, POLLIN, 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) == 0) {
      return fail(ErrorCode::Unavailable, "the sentinel did not arrive");
    }
    sockaddr_ll from{};
    socklen_t size_of_from = sizeof from;
    const ssize_t got = ::recvfrom(socket_, frame.data(), frame.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &size_of_from);
    if (got <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
    const auto size = static_cast<std::size_t>(got);
    for (std::size_t i = 0; i < wanted.size(); ++i) seen[i] = seen[i] || holds(frame, size, wanted[i]);
    if (holds(frame, size, sentinel)) return seen;
  }
}

}  // namespace tierlog::lab
