// What the BPF programs of the metrics cost: CPU for each TCP connection (states, round trip times, flags at
// the uplink) and each dropped packet, with them attached and without, in turns; and what that is at 10,000 a
// second.
//
//   build/release/bin/node_metrics_bench [CONNECTIONS]      default 20,000 a round
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bench/support.h"
#include "exporters/prometheus/node/events.h"

namespace tierlog {
namespace {

constexpr int kRounds = 7;
constexpr std::uint16_t kOpen = 7000, kClosed = 9;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// CPU nanoseconds for each.
double connections(int listener, int count) {
  const sockaddr_in to = loopback(kOpen);
  const linger at_once{1, 0};  // no TIME_WAIT: ports come again
  const double before = bench::process_cpu_ms();
  for (int i = 0; i < count; ++i) {
    const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) std::exit(3);
    const Fd server(::accept(listener, nullptr, nullptr));
    ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  return (bench::process_cpu_ms() - before) * 1e6 / count;
}

double datagrams(int count) {
  const sockaddr_in to = loopback(kClosed);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const double before = bench::process_cpu_ms();
  for (int i = 0; i < count; ++i)
    ::sendto(socket.get(), "0123456789", 10, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  return (bench::process_cpu_ms() - before) * 1e6 / count;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void tell(const char* what, const std::vector<double>& without, const std::vector<double>& with) {
  const double base = median(without), cost = median(with) - base;
  std::printf(
      "%s: %.0f ns of CPU without (yardstick), %.0f ns with; ratio %.3f; at 10,000/s %.2f %% of a core\n",
      what, base, base + cost, (base + cost) / base, cost * 1e4 / 1e9 * 100);
}

int run(int count) {
  bench::need_root("node_metrics_bench");
  bench::enter(bench::new_netns());
  bench::pin_to_cpu(0);
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in here = loopback(kOpen);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&here), sizeof here) < 0 ||
      ::listen(listener.get(), 64) < 0)
    return 3;
  std::vector<double> with, without, drops_with, drops_without;
  connections(listener.get(), count / 4);  // warm
  for (int round = 0; round < kRounds; ++round)
    for (const bool attached : {round % 2 == 0, round % 2 != 0}) {
      std::unique_ptr<prometheus::KernelEvents> events;
      if (attached) {
        auto opened = prometheus::KernelEvents::open();
        if (!opened) {
          std::fprintf(stderr, "%s\n", opened.error().message.c_str());
          return 3;
        }
        events = std::move(*opened);
        events->set_uplinks({static_cast<int>(::if_nametoindex("lo"))});
        events->watch({*IpAddr::parse("127.0.0.1")});
      }
      (attached ? with : without).push_back(connections(listener.get(), count));
      (attached ? drops_with : drops_without).push_back(datagrams(count * 2));
    }
  tell("a TCP connection on loopback, each packet of it counted twice", without, with);
  tell("a packet dropped for want of a socket", drops_without, drops_with);
  return 0;
}

}  // namespace
}  // namespace tierlog

int main(int argc, char** argv) {
  return tierlog::run(argc > 1 ? std::atoi(argv[1]) : 20'000);
}
