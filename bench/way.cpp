#include "bench/way.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <thread>

#include "bench/programs.h"
#include "dataplane/conntrack.h"
#include "dataplane/conntrack_settings.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/events.h"
#include "dataplane/nftables/nflog.h"

namespace tierlog::bench {
namespace {

using namespace std::chrono_literals;

constexpr const char* kMacs[4] = {"02:00:00:00:01:02", "02:00:00:00:01:01", "02:00:00:00:02:01",
                                  "02:00:00:00:02:02"};

std::uint16_t checksum(const std::uint8_t* bytes, std::size_t count) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < count; i += 2) sum += static_cast<std::uint32_t>(bytes[i] << 8 | bytes[i + 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

void put16(std::uint8_t* at, std::uint16_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}

void put_mac(std::uint8_t* at, const char* text) {
  for (int i = 0; i < 6; ++i) at[i] = static_cast<std::uint8_t>(std::strtoul(text + 3 * i, nullptr, 16));
}

Frame udp_frame(const char* from_mac, const char* to_mac, const char* from, const char* to) {
  Frame frame{};
  put_mac(frame.data(), to_mac);
  put_mac(frame.data() + 6, from_mac);
  put16(frame.data() + 12, ETHERTYPE_IP);
  std::uint8_t* ip = frame.data() + 14;
  ip[0] = 0x45;
  put16(ip + 2, static_cast<std::uint16_t>(frame.size() - 14));
  ip[8] = 64;
  ip[9] = 17;
  ::inet_pton(AF_INET, from, ip + 12);
  ::inet_pton(AF_INET, to, ip + 16);
  put16(ip + 10, checksum(ip, 20));
  put16(ip + 24, static_cast<std::uint16_t>(frame.size() - 34));  // no UDP checksum: allowed in IPv4
  return frame;
}

// The ports of flow number `flow`.
void aim(Frame& frame, std::size_t flow, bool reply) {
  const auto client = static_cast<std::uint16_t>(20'000 + flow % 40'000);
  const auto server = static_cast<std::uint16_t>(9'000 + flow / 40'000);
  put16(frame.data() + 34, reply ? server : client);
  put16(frame.data() + 36, reply ? client : server);
}

Fd packet_socket(const char* device) {
  Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));  // protocol 0: receives nothing
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(::if_nametoindex(device));
  const int one = 1;
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    std::perror("bind a packet socket");
    std::exit(3);
  }
  return socket;
}

template <typename Opened>
auto or_end(Opened opened) {
  if (opened) return std::move(*opened);
  std::fprintf(stderr, "%s\n", opened.error().message.c_str());
  std::exit(3);
}

// Of what nobody judged a figure tells nothing.
void need_all(const Way& way, const char* what, std::uint64_t had, std::uint64_t sent) {
  if (had == sent) return;
  std::fprintf(stderr, "no figures: %s: %s: %llu of %llu\n", way.setup().name.c_str(), what,
               static_cast<unsigned long long>(had), static_cast<unsigned long long>(sent));
  std::exit(3);
}

std::uint64_t directions_of(const Way& way) {
  return !way.setup().tierlog ? 0 : way.setup().both_local ? 2 : 1;
}

void print(const char* what, const Ways& ways, const Figures& figures) {
  std::printf("%s\n", what);
  for (std::size_t i = 0; i < ways.size(); ++i)
    std::printf("  %-48s %7.0f ns CPU/packet   / %s %s\n", ways[i]->setup().name.c_str(), median(figures[i]),
                ways[0]->setup().name.c_str(), to_text(paired(figures[i], figures[0])).c_str());
}

}  // namespace

struct SharedCount {
  std::atomic<std::uint64_t> events{0};
};

Way::Way(WaySetup setup) : setup_(std::move(setup)) {
  source_ = new_netns();
  node_ = new_netns();
  sink_ = new_netns();
  lay_links();
  setup_.tierlog ? judge() : track_only();
  enter(source_);
  sender_ = packet_socket("eth0");
  enter(sink_);
  replier_ = packet_socket("eth0");
  enter(node_);
  flusher_ = Fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
}

Way::~Way() {
  if (reader_ != 0) end_child(reader_);
  if (shared_ != nullptr) ::munmap(shared_, sizeof(SharedCount));
}

void Way::establish() {
  Frame forth = udp_frame(kMacs[0], kMacs[1], kSource, kSink);
  Frame back = udp_frame(kMacs[3], kMacs[2], kSink, kSource);
  for (std::size_t flow = 0; flow < kFlows; ++flow) {
    aim(forth, flow, false);
    aim(back, flow, true);
    put(sender_, forth);
    put(replier_, back);
  }
}

double Way::send(const SenderCpu& cpu, std::size_t packets, std::size_t flows) {
  Frame frame = udp_frame(kMacs[0], kMacs[1], kSource, kSink);
  const std::uint64_t arrived_before = arrived();
  const std::uint64_t before = cpu.now_ns();
  for (std::size_t i = 0; i < packets; ++i) {
    aim(frame, i % flows, false);
    put(sender_, frame);
  }
  const std::uint64_t after = cpu.now_ns();
  std::this_thread::sleep_for(20ms);
  const std::uint64_t came = arrived() - arrived_before;
  lost_ += packets - std::min<std::uint64_t>(came, packets);
  return static_cast<double>(after - before) / static_cast<double>(packets);
}

void Way::forget_flows() {
  if (programs_ != nullptr) static_cast<void>(programs_->forget_flows());
  struct {
    nlmsghdr header;
    nfgenmsg netfilter;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.netfilter.nfgen_family = AF_INET;
  char answer[256];
  if (::send(flusher_.get(), &request, sizeof request, 0) < 0 ||
      ::recv(flusher_.get(), answer, sizeof answer, 0) < 0) {
    std::perror("flush conntrack");
    std::exit(3);
  }
}

std::uint64_t Way::judged() {
  if (!backend_) return 0;
  std::uint64_t packets = 0;
  const auto counters = backend_->read_counters();
  if (counters)
    for (const auto& counter : *counters)
      if (find_reserved(counter.id) == nullptr) packets += counter.packets;
  return packets;
}

std::size_t Way::connections() {
  enter(node_);
  const auto tracked = static_cast<std::size_t>(std::stoull(text_of("/proc/sys/net/netfilter/nf_conntrack_count")));
  if (programs_ == nullptr) return tracked;
  const std::size_t known = or_end(programs_->read_flows()).size();
  return setup_.tracks ? std::min(known, tracked) : known;
}

std::uint64_t Way::followed() {
  std::uint64_t by_programs = 0, by_kernel = 0;
  if (programs_ != nullptr)
    for (const auto& [key, flow] : or_end(programs_->read_flows())) by_programs += flow.packets[0];
  if (programs_ != nullptr && !setup_.tracks) return by_programs;
  enter(node_);
  const auto conntrack = or_end(dataplane::Conntrack::open());
  if (auto done = conntrack->dump([&](const auto& one) { by_kernel += one.packets_out; }); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    std::exit(3);
  }
  return programs_ == nullptr ? by_kernel : std::min(by_programs, by_kernel);
}

void Way::lay_links() {
  enter(node_);
  must_run({"sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"});
  // The other ends are moved by descriptor paths of this process: the namespaces have no names.
  const std::string self = "/proc/" + std::to_string(::getpid()) + "/fd/";
  std::string text;
  const auto link = [&](const char* device, int near, int far, const Fd& there) {
    text += std::string("link add ") + device + " address " + kMacs[near] +
            " type veth peer name eth0 address " + kMacs[far] + " netns " + self +
            std::to_string(there.get()) + "\n";
  };
  link("calsource", 1, 0, source_);
  link("calsink", 2, 3, sink_);
  text +=
      "addr add 10.1.0.1/24 dev calsource\naddr add 10.2.0.1/24 dev calsink\n"
      "link set calsource up\nlink set calsink up\n";
  text += std::string("neigh replace ") + kSource + " lladdr " + kMacs[0] +
          " dev calsource nud permanent\n" + "neigh replace " + kSink + " lladdr " + kMacs[3] +
          " dev calsink nud permanent\n";
  must_feed({"ip", "-batch", "-"}, text);
  must_run({"sysctl", "-qw", "net.ipv4.ip_forward=1"});
  for (const Fd* end : {&source_, &sink_}) {
    enter(*end);
    must_run({"sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"});
    must_run({"ip", "link", "set", "eth0", "up"});
    must_feed({"nft", "-f", "-"},
              "table netdev end { chain c { type filter hook ingress device eth0 priority 0; drop; }; }");
  }
  enter(node_);
}

void Way::track_only() {
  if (!setup_.told) {
    must_feed({"nft", "-f", "-"}, "table inet yardstick { chain unused { ct state new accept; }; }");
    return;
  }
  must_feed({"nft", "-f", "-"},
            "table inet yardstick { chain forward { type filter hook forward priority 10; "
            "ct state established,related accept; "
            "counter ct mark set 0x100 meta mark set 0x100 log group 4610 snaplen 128 prefix \"tl:A\"; }; }");
  static_cast<void>(dataplane::set_conntrack_switches());
  start_reader();
}

void Way::judge() {
  static_cast<void>(dataplane::set_conntrack_switches());
  if (setup_.tracks) track_only();
  backend_ = open_backend();
  std::vector<policy::Endpoint> pods{
      local_pod("a", "source", kSource, {}, setup_.guard ? "calsource" : "")};
  pods[0].mac = kMacs[0];
  if (setup_.both_local) {
    pods.push_back(local_pod("a", "sink", kSink, {}, setup_.guard ? "calsink" : ""));
    pods[1].mac = kMacs[3];
  }
  pods.insert(pods.end(), setup_.others.begin(), setup_.others.end());
  policy::MemoryRuleIds ids;
  const auto program = program_of(setup_.policies, std::move(pods), ids);
  const auto start = Stopwatch::now();
  if (auto done = backend_->apply(program); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    std::exit(3);
  }
  apply_ms_ = ms_since(start);
  static_cast<void>(backend_->end_sparing());
  static_cast<void>(backend_->settle(false));  // nothing lives yet that would have to be judged anew
  start_reader();
}

std::unique_ptr<dataplane::Backend> Way::open_backend() {
  if (!setup_.programs) return or_end(dataplane::nftables::NftablesBackend::open(setup_.options));
  auto backend = or_end(dataplane::ebpf::EbpfBackend::open({}));
  programs_ = backend.get();
  return backend;
}

std::unique_ptr<dataplane::EventSource> Way::open_events() const {
  if (!setup_.programs)
    return or_end(dataplane::nftables::NflogSource::open(dataplane::nftables::TableOptions{}.nflog_group));
  const dataplane::ebpf::Programs& programs = programs_->programs();
  return or_end(dataplane::ebpf::EbpfEvents::open(programs.events(), programs.losses()));
}

void Way::start_reader() {
  shared_ = static_cast<SharedCount*>(
      ::mmap(nullptr, sizeof(SharedCount), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  new (shared_) SharedCount;
  reader_ = start_child([this] {
    pin_to_cpu(kReaderCpu);
    const auto source = open_events();
    std::vector<dataplane::VerdictEvent> events;
    for (;;) {
      events.clear();
      while (source->drain(events, 20'000).value_or(false)) {
      }
      shared_->events += events.size();
      std::this_thread::sleep_for(5ms);
    }
    return 3;
  });
  std::this_thread::sleep_for(50ms);
}

std::uint64_t Way::arrived() const {
  enter(sink_);
  std::istringstream lines(text_of("/proc/thread-self/net/dev"));
  enter(node_);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find("eth0:");
    if (colon == std::string::npos) continue;
    std::istringstream numbers(line.substr(colon + 5));
    std::uint64_t bytes = 0, packets = 0;
    numbers >> bytes >> packets;
    return packets;
  }
  return 0;
}

void Way::put(const Fd& socket, const Frame& frame) {
  while (::send(socket.get(), frame.data(), frame.size(), 0) < 0)
    if (errno != ENOBUFS && errno != EAGAIN) {
      std::perror("send a frame");
      std::exit(3);
    }
}

std::uint64_t Way::events() const {
  return shared_ == nullptr ? 0 : shared_->events.load();
}

Figures take_turns(const Ways& ways, int rounds, const std::function<double(Way&)>& measure) {
  Figures figures(ways.size());
  for (int round = -1; round < rounds; ++round)
    for (std::size_t i = 0; i < ways.size(); ++i) {
      const std::size_t turn = (i + static_cast<std::size_t>(round + 1)) % ways.size();
      const double figure = measure(*ways[turn]);
      if (round >= 0) figures[turn].push_back(figure);  // the first round only warms up
    }
  return figures;
}

PacketFigures measure_packets(const Ways& ways, int rounds, std::size_t established_packets, std::size_t new_flows) {
  pin_to_cpu(kSenderCpu);
  const SenderCpu cpu(kSenderCpu);
  std::vector<std::uint64_t> judged, events;
  for (const auto& way : ways) {
    way->establish();
    judged.push_back(way->judged());
    need_all(*way, "packets judged that open connections", judged.back(), directions_of(*way) * kFlows);
    need_all(*way, "connections noted", way->connections(), kFlows);
  }
  const auto turns = static_cast<std::uint64_t>(rounds) + 1;
  PacketFigures figures;
  figures.established = take_turns(ways, rounds, [&](Way& way) { return way.send(cpu, established_packets, kFlows); });
  // Conntrack alone counts none by itself.
  const auto counts = [](const Way& way) { return way.setup().tierlog || way.setup().told; };
  for (const auto& way : ways) {
    if (counts(*way)) need_all(*way, "packets followed", way->followed(), kFlows + turns * established_packets);
    events.push_back(way->events());
  }
  figures.fresh = take_turns(ways, rounds, [&](Way& way) {
    way.forget_flows();
    const double ns = way.send(cpu, new_flows, new_flows);
    need_all(way, "connections noted", way.connections(), new_flows);
    return ns;
  });
  for (std::size_t i = 0; i < ways.size(); ++i)
    need_all(*ways[i], "first packets judged", ways[i]->judged() - judged[i], directions_of(*ways[i]) * turns * new_flows);
  for (const auto& way : ways) {
    if (counts(*way)) continue;
    static_cast<void>(way->followed());
    way->forget_flows();
    way->establish();
    static_cast<void>(way->send(cpu, established_packets, kFlows));
    need_all(*way, "packets followed", way->followed(), kFlows + established_packets);
  }
  print("established packet, 1,000 flows in turn", ways, figures.established);
  print("first packet of a connection, allowed and told", ways, figures.fresh);
  std::this_thread::sleep_for(100ms);  // the last messages
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const std::uint64_t told = ways[i]->events() - events[i];
    const std::uint64_t wanted = (ways[i]->setup().told ? 1 : directions_of(*ways[i])) * turns * new_flows;
    if (told == wanted && ways[i]->lost() == 0) continue;
    figures.sound = false;
    std::printf("  NOT SOUND: %s: %llu told of %llu, %llu packets lost\n", ways[i]->setup().name.c_str(),
                static_cast<unsigned long long>(told), static_cast<unsigned long long>(wanted),
                static_cast<unsigned long long>(ways[i]->lost()));
  }
  if (figures.sound) std::printf("every packet was judged and arrived, every first one was told once a direction\n");
  return figures;
}

}  // namespace tierlog::bench
