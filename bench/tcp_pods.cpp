#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>

#include "bench/ebpf_bench.h"
#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/conntrack_settings.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/nftables/backend.h"

namespace tierlog::bench {
namespace {

using namespace std::chrono_literals;

constexpr const char* kClient = "10.1.0.2";
constexpr const char* kServer = "10.2.0.2";
constexpr std::uint16_t kPort = 8080;
constexpr auto kTime = 800ms;

constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: in, namespace: a}
spec:
  selector: app == 'server'
  ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'client'}, destination: {ports: [8080]}}]
)";

struct Counts {
  std::atomic<std::uint64_t> connections{0}, bytes{0};
};

sockaddr_in address_of(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(kPort);
  ::inet_pton(AF_INET, text, &address.sin_addr);
  return address;
}

// Takes what comes until its peer ends.
int serve(Counts& counts) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const sockaddr_in own = address_of(kServer);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 || ::listen(listener.get(), 512) != 0)
    return 3;
  std::array<char, 262'144> room;
  for (;;) {
    const Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer) continue;
    for (ssize_t got; (got = ::recv(peer.get(), room.data(), room.size(), 0)) > 0;)
      counts.bytes += static_cast<std::uint64_t>(got);
  }
}

Fd connect_once() {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const linger reset{1, 0};  // no port waits for its end
  ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  const sockaddr_in to = address_of(kServer);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return {};
  return socket;
}

// Two pods of one node; what judges is opened in it.
class Pods {
 public:
  enum class Plane { None, Tables, Programs };
  Pods(const char* name, Plane plane) : name_(name) {
    counts_ = static_cast<Counts*>(::mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    new (counts_) Counts;
    client_ = new_netns();
    server_ = new_netns();
    node_ = new_netns();
    enter(node_);
    const std::string self = "/proc/" + std::to_string(::getpid()) + "/fd/";
    must_feed({"ip", "-batch", "-"}, "link add cal1 type veth peer name eth0 netns " + self + std::to_string(client_.get()) +
                                         "\nlink add cal2 type veth peer name eth0 netns " + self +
                                         std::to_string(server_.get()) +
                                         "\naddr add 10.1.0.1/24 dev cal1\naddr add 10.2.0.1/24 dev cal2\nlink set cal1 up\n"
                                         "link set cal2 up\n");
    must_run({"sysctl", "-qw", "net.ipv4.ip_forward=1"});
    for (const auto& [netns, net] : {std::pair{&client_, "10.1.0."}, std::pair{&server_, "10.2.0."}}) {
      enter(*netns);
      must_feed({"ip", "-batch", "-"}, std::string("addr add ") + net + "2/24 dev eth0\nlink set eth0 up\nroute add default via " +
                                           net + "1\n");
    }
    enter(node_);
    judge(plane);
    enter(server_);
    reader_ = start_child([this] { return serve(*counts_); });
    enter(client_);
    for (int i = 0; i < 200 && !connect_once(); ++i) std::this_thread::sleep_for(10ms);
    enter(node_);
  }
  ~Pods() {
    end_child(reader_);
    ::munmap(counts_, sizeof(Counts));
  }

  double connections_a_second() {
    enter(client_);
    const auto start = Stopwatch::now();
    std::uint64_t made = 0;
    while (Stopwatch::now() - start < kTime) made += connect_once() ? 1 : 0;
    const double ms = ms_since(start);
    opened_ += made;
    enter(node_);
    return static_cast<double>(made) * 1000 / ms;
  }
  double gigabits_a_second() const {
    enter(client_);
    const Fd socket = connect_once();
    static const std::array<char, 131'072> block{};
    const auto start = Stopwatch::now();
    const std::uint64_t before = counts_->bytes;
    while (Stopwatch::now() - start < kTime && ::send(socket.get(), block.data(), block.size(), MSG_NOSIGNAL) > 0) {
    }
    const std::uint64_t came = counts_->bytes - before;
    const double ms = ms_since(start);
    enter(node_);
    return static_cast<double>(came) * 8 / ms / 1e6;
  }
  const char* name() const { return name_; }
  // Ends this program where whoever should judge here has not judged each connection.
  void need_judged() const {
    if (!backend_) return;
    std::uint64_t judged = 0;
    if (const auto counters = backend_->read_counters())
      for (const auto& counter : *counters)
        if (find_reserved(counter.id) == nullptr) judged += counter.packets;
    if (opened_ > 0 && judged >= opened_) return;
    std::fprintf(stderr, "ebpf_bench: no figures: %s: connections judged: %llu of %llu\n", name_,
                 static_cast<unsigned long long>(judged), static_cast<unsigned long long>(opened_));
    std::exit(3);
  }

 private:
  void judge(Plane plane) {
    if (plane == Plane::None) return;
    Result<std::unique_ptr<dataplane::Backend>> opened;
    if (plane == Plane::Tables) {
      static_cast<void>(dataplane::set_conntrack_switches());
      opened = dataplane::nftables::NftablesBackend::open({});
    } else {
      opened = dataplane::ebpf::EbpfBackend::open({});
    }
    policy::MemoryRuleIds ids;
    const auto program = program_of(kPolicy,
                                    {local_pod("a", "client", kClient, {{"app", "client"}}, "cal1"),
                                     local_pod("a", "server", kServer, {{"app", "server"}}, "cal2")},
                                    ids);
    if (!opened || !(*opened)->apply(program)) {
      std::fprintf(stderr, "ebpf_bench: cannot enforce between pods\n");
      std::exit(3);
    }
    backend_ = std::move(*opened);
    static_cast<void>(backend_->end_sparing());
    static_cast<void>(backend_->settle(false));
  }

  const char* name_;
  std::uint64_t opened_ = 0;
  Counts* counts_ = nullptr;
  Fd client_, server_, node_;
  std::unique_ptr<dataplane::Backend> backend_;
  pid_t reader_ = 0;
};

}  // namespace

void tcp_between_pods(int rounds) {
  std::vector<std::unique_ptr<Pods>> all;
  all.push_back(std::make_unique<Pods>("no policies", Pods::Plane::None));
  all.push_back(std::make_unique<Pods>("nftables", Pods::Plane::Tables));
  all.push_back(std::make_unique<Pods>("eBPF", Pods::Plane::Programs));
  std::vector<std::vector<double>> rates(all.size()), speeds(all.size());
  for (int round = -1; round < rounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t turn = (i + static_cast<std::size_t>(round + 1)) % all.size();
      const double rate = all[turn]->connections_a_second(), speed = all[turn]->gigabits_a_second();
      if (round < 0) continue;
      rates[turn].push_back(rate);
      speeds[turn].push_back(speed);
    }
  for (const auto& pods : all) pods->need_judged();
  std::printf("\nTCP between two pods, both ends judged, nobody reads the messages, %d rounds by turns:\n", rounds);
  for (std::size_t i = 0; i < all.size(); ++i)
    std::printf("  %-12s %7.0f connections a second, / no policies %s;  %5.1f Gbit/s, / no policies %s\n", all[i]->name(),
                median(rates[i]), to_text(paired(rates[i], rates[0])).c_str(), median(speeds[i]),
                to_text(paired(speeds[i], speeds[0])).c_str());
}

}  // namespace tierlog::bench
