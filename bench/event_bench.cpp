// Logged events into a file that can be asked: what arrives of a flood, and what it costs, beside ulogd2.
//
//   event_bench [SECONDS [ROUNDS]]      (root; makes network namespaces of its own and leaves nothing)
//   event_bench SECONDS ours            only ours, every event a flow of its own: for a profiler
//
//   two senders --veth--> node: `log group 77` and drop --NFLOG--> one receiver --> its file
//
// Each receiver gets the same flood in a namespace of its own, with the same room in its socket: a preload
// forces ulogd2's, and `ss -m` is asked what it got. CPU is the receiver's alone, to its end. What was
// counted is asked of the file: sums of records for ours, lines or rows for ulogd2's.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#include "bench/support.h"
#include "daemon/commit_pace.h"
#include "daemon/store_writer.h"
#include "dataplane/nftables/nflog.h"
#include "logger/flow_logger.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using namespace tierlog;
using namespace tierlog::bench;

constexpr std::uint16_t kGroup = 77;
constexpr int kReceiveBytes = 64 << 20;
constexpr std::uint32_t kFlows = 20'000;
constexpr const char* kDestination = "10.2.0.2";
constexpr const char* kPolicy =
    "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: bench}\n"
    "spec:\n  selector: all()\n  ingress:\n  - {action: Deny, protocol: UDP}\n";

enum class Flows : std::uint8_t { Aggregating, Distinct };

struct Receiver {
  const char* name;
  const char* stack;  // ulogd2's; null: ours
  const char* file;
};
constexpr Receiver kReceivers[] = {
    {"tierlog", nullptr, "flows.db"},
    {"ulogd2 LOGEMU", "log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,out1:LOGEMU", "out"},
    {"ulogd2 JSON", "log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,out1:JSON", "out"},
    {"ulogd2 SQLITE3", "log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,out1:SQLITE3", "out"},
};

struct Shared {
  std::atomic<bool> go{false}, stop{false};
  std::atomic<std::uint64_t> sent{0};
  std::atomic<std::uint64_t> lost{0}, records{0};
  std::array<std::atomic<std::uint64_t>, 4096> latency_ms{};  // ours: event to committed row
};
Shared* shared() {
  static auto* const memory =
      new (::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
  return memory;
}

struct Outcome {
  double offered = 0, counted = 0, cpu_ns = 0, seconds = 0, rows = 0, lost = 0;
};

// --- the flood

using Frame = std::array<std::uint8_t, 242>;

void put16(std::uint8_t* at, std::uint32_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}

Frame udp_frame() {
  Frame frame{};
  std::memcpy(frame.data(), "\x02\0\0\0\x01\x01\x02\0\0\0\x01\x02", 12);
  put16(frame.data() + 12, ETHERTYPE_IP);
  std::uint8_t* ip = frame.data() + 14;
  ip[0] = 0x45;
  put16(ip + 2, frame.size() - 14);
  ip[8] = 64;
  ip[9] = 17;
  ip[12] = 192;
  ip[14] = 2;
  ::inet_pton(AF_INET, kDestination, ip + 16);
  put16(ip + 24, frame.size() - 34);
  return frame;
}

// The header's sum must be right, or the packet never comes to the rule.
void aim(Frame& frame, Flows flows, std::uint32_t flow) {
  std::uint8_t* ip = frame.data() + 14;
  ip[15] = static_cast<std::uint8_t>(flow % 200 + 1);
  // The kernel tells denied flows apart by destination port, not by source port.
  put16(ip + 20, flows == Flows::Aggregating ? 1024 + flow / 200 % 50'000 : 40'000);
  put16(ip + 22, 5000 + (flows == Flows::Aggregating ? flow % 100 : flow / 200 % 60'000));
  put16(ip + 10, 0);
  std::uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(ip[i] << 8 | ip[i + 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  put16(ip + 10, ~sum & 0xffff);
}

int send_flood(int cpu, Flows flows, double per_second) {
  pin_to_cpu(cpu);
  const Fd socket(::socket(AF_PACKET, SOCK_RAW, 0));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
  const int one = 1;
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return 3;
  Frame frame = udp_frame();
  while (!shared()->go) std::this_thread::sleep_for(1ms);
  const auto start = Stopwatch::now();
  std::uint64_t sent = 0;
  while (!shared()->stop) {
    for (int i = 0; i < 64; ++i, ++sent) {
      const auto number = static_cast<std::uint32_t>(2 * sent + static_cast<std::uint64_t>(cpu));
      aim(frame, flows, flows == Flows::Aggregating ? number % kFlows : number);
      while (::send(socket.get(), frame.data(), frame.size(), 0) < 0 &&
             (errno == ENOBUFS || errno == EAGAIN)) {
      }
    }
    shared()->sent += 64;
    while (static_cast<double>(sent) > per_second * ms_since(start) / 1000 && !shared()->stop)
      std::this_thread::sleep_for(200us);
  }
  return 0;
}

// --- the receivers

std::shared_ptr<const policy::Program> make_program() {
  policy::Cluster cluster;
  policy::Endpoint pod;
  pod.endpoint_namespace = "a";
  pod.name = "db";
  pod.addresses = {*IpAddr::parse(kDestination)};
  pod.local = true;
  cluster.endpoints = {pod};
  const auto loaded = policy::load_text(kPolicy, "bench.yaml");
  policy::MemoryRuleIds ids;
  auto program = policy::compile(loaded.set, std::make_shared<const policy::Cluster>(cluster), ids);
  return std::make_shared<const policy::Program>(std::move(*program));
}

void note_latencies(std::vector<WallTime>& starts, WallTime now) {
  for (const WallTime start : starts) {
    const auto ms = static_cast<std::size_t>((now - start).count() / 1'000'000);
    ++shared()->latency_ms[std::min(ms, shared()->latency_ms.size() - 1)];
  }
  starts.clear();
}

// The daemon's event path: the same source, logger, room and writer, drained and committed at the same pace.
int run_ours(const fs::path& folder) {
  auto store = store::FlowStore::open_writer((folder / "flows.db").string(), {"bench", "bench"});
  auto source = dataplane::nftables::NflogSource::open(kGroup);
  if (!store || !source) {
    std::fprintf(stderr, "%s\n", store ? source.error().message.c_str() : store.error().message.c_str());
    return 3;
  }
  const auto program = make_program();
  const SystemClock clock;
  logger::FlowLogger logger;
  logger.set_program(program, {}, from_ns(0));
  static_cast<void>(store->put_catalog(logger::make_catalog(*program, clock.wall())));
  daemon::StoreWriter writer(*store, clock);
  writer.start();
  std::vector<dataplane::VerdictEvent> events;
  auto told = Stopwatch::now();
  std::vector<WallTime> in_hand;  // starts of some records that are being written
  daemon::CommitPace pace;
  for (bool ended = false; !ended;) {
    events.clear();
    const bool more = (*source)->drain(events, 20'000).value_or(false);
    logger.on_events(events);
    if (Stopwatch::now() - told > 1s) {
      told = Stopwatch::now();
      logger.on_denied_counts({}, clock.wall(), logger::FlowLogger::Reading::Regular);
    }
    if (writer.idle()) note_latencies(in_hand, clock.wall());
    if (pace.due(clock.boottime(), logger.has_records(), logger.pending().size()) && writer.idle()) {
      auto entries = logger.take_entries();
      for (std::size_t i = 0; i < entries.size(); i += 16) in_hand.push_back(entries[i].start);
      writer.give({std::nullopt, {}, std::move(entries), logger.take_changes(), std::nullopt});
    }
    ended = shared()->stop && !more && events.empty();
    if (!more) std::this_thread::sleep_for(5ms);
  }
  logger.on_denied_counts({}, clock.wall(), logger::FlowLogger::Reading::Last);
  writer.wait(60s);
  writer.give({std::nullopt, {}, logger.take_entries(), logger.take_changes(), std::nullopt});
  writer.wait(60s);
  const auto loss = (*source)->loss();
  shared()->lost = loss.sequence_gaps + loss.undecodable;
  return 0;
}

void write_ulogd_config(const Receiver& receiver, const fs::path& folder) {
  constexpr const char* kPlugins = "/usr/lib/x86_64-linux-gnu/ulogd/ulogd_";
  std::ofstream config(folder / "ulogd.conf");
  config << "[global]\nlogfile=\"" << (folder / "log").string() << "\"\nloglevel=5\n";
  for (const char* plugin : {"inppkt_NFLOG", "raw2packet_BASE", "filter_IFINDEX", "filter_IP2STR",
                             "filter_PRINTPKT", "output_LOGEMU", "output_JSON", "output_SQLITE3"})
    config << "plugin=\"" << kPlugins << plugin << ".so\"\n";
  config << "stack=" << receiver.stack << "\n[log1]\ngroup=" << kGroup << "\n[out1]\n";
  if (std::strstr(receiver.stack, "SQLITE3") != nullptr)
    config << "db=\"" << (folder / receiver.file).string() << "\"\ntable=\"ulog\"\n";
  else
    config << "file=\"" << (folder / receiver.file).string() << "\"\nsync=0\n";
  if (std::strstr(receiver.stack, "SQLITE3") == nullptr) return;
  sqlite3* database = nullptr;
  sqlite3_open((folder / receiver.file).c_str(), &database);
  sqlite3_exec(database,
               "CREATE TABLE ulog(oob_time_sec INTEGER, oob_prefix TEXT, ip_saddr_str TEXT,"
               " ip_daddr_str TEXT, ip_protocol INTEGER, udp_sport INTEGER, udp_dport INTEGER)",
               nullptr, nullptr, nullptr);
  sqlite3_close(database);
}

int run_ulogd(const fs::path& folder) {
  const std::string shim = std::string(TIERLOG_BINARY_DIR) + "/bench/libreceive_buffer.so";
  ::setenv("LD_PRELOAD", shim.c_str(), 1);
  ::setenv("BENCH_RECEIVE_BYTES", std::to_string(kReceiveBytes).c_str(), 1);
  const std::string config = (folder / "ulogd.conf").string();
  ::execl("/usr/sbin/ulogd", "ulogd", "-c", config.c_str(), static_cast<char*>(nullptr));
  return 3;
}

double number(const fs::path& database, const char* sql) {
  sqlite3* handle = nullptr;
  sqlite3_stmt* statement = nullptr;
  double found = 0;
  sqlite3_open(database.c_str(), &handle);
  if (sqlite3_prepare_v2(handle, sql, -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW)
    found = sqlite3_column_double(statement, 0);
  sqlite3_finalize(statement);
  sqlite3_close(handle);
  return found;
}

double lines_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::array<char, 1 << 16> buffer{};
  double lines = 0;
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    lines += static_cast<double>(std::count(buffer.data(), buffer.data() + in.gcount(), '\n'));
    if (!in) break;
  }
  return lines;
}

// --- one run

// Prefixes of ours: a packet of a flow that is known already, or the first one of a flow.
void lay(const Fd& sender, const Fd& node, RuleId rule, Flows flows) {
  enter(node);
  const std::string there = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(sender.get());
  must_feed(
      {"ip", "-batch", "-"},
      "link add n0 address 02:00:00:00:01:01 type veth peer name eth0 address 02:00:00:00:01:02 netns " +
          there + "\nlink set n0 up\n");
  must_feed({"nft", "-f", "-"},
            "table ip bench { chain c { type filter hook prerouting priority -300; udp dport >= 5000 meta "
            "mark set " +
                std::to_string(tierlog::number(rule)) +
                " log group 77 prefix \"" + (flows == Flows::Aggregating ? "tl:O" : "tl:D") +
                "\" snaplen 128; drop; }; }");
  enter(sender);
  must_run({"ip", "link", "set", "eth0", "up"});
  enter(node);
}

// Asked in the receiver's namespace: what room its sockets have.
void show_room(const char* name) {
  std::printf("  %s: ", name);
  std::fflush(stdout);
  must_run({"sh", "-c",
            "ss -f netlink -m 2>/dev/null | grep -o 'rb[0-9]*' | sort -u | tr '\\n' ' '; echo 'bytes of room "
            "(ss -m)'"});
}

Outcome flood(const Receiver& receiver, Flows flows, double per_second, double seconds, bool show) {
  Shared& s = *shared();
  s.go = s.stop = false;
  s.sent = s.lost = s.records = 0;
  for (auto& bucket : s.latency_ms) bucket = 0;
  const fs::path folder = fs::temp_directory_path() / ("tierlog-events-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const Fd sender = new_netns(), node = new_netns();
  lay(sender, node, make_program()->rules.at(0).id, flows);
  if (receiver.stack != nullptr) write_ulogd_config(receiver, folder);
  const pid_t reader =
      start_child([&] { return receiver.stack == nullptr ? run_ours(folder) : run_ulogd(folder); });
  std::this_thread::sleep_for(500ms);
  if (show) show_room(receiver.name);
  std::vector<pid_t> senders;
  enter(sender);
  for (int cpu = 0; cpu < 2; ++cpu)
    senders.push_back(start_child([&, cpu] { return send_flood(cpu, flows, per_second / 2); }));
  std::this_thread::sleep_for(100ms);
  const auto start = Stopwatch::now();
  s.go = true;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  s.stop = true;
  Outcome result;
  result.seconds = ms_since(start) / 1000;
  for (const pid_t child : senders) ::waitpid(child, nullptr, 0);
  result.offered = static_cast<double>(s.sent.load());
  // ulogd2 ends when it is told to; what is in its socket by then it may still take.
  if (receiver.stack != nullptr) {
    std::this_thread::sleep_for(2s);
    ::kill(reader, SIGTERM);
  }
  rusage used{};
  int status = 0;
  ::wait4(reader, &status, 0, &used);
  const auto ns = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_usec) * 1e3;
  };
  const fs::path file = folder / receiver.file;
  if (receiver.stack == nullptr) {
    result.counted = number(file, "SELECT sum(packets) FROM recorded");
    result.rows = number(file, "SELECT count(*) FROM flow");
  } else if (std::strstr(receiver.stack, "SQLITE3") != nullptr) {
    result.counted = result.rows = number(file, "SELECT count(*) FROM ulog");
  } else {
    result.counted = result.rows = lines_of(file);
  }
  result.lost =
      receiver.stack == nullptr ? static_cast<double>(s.lost.load()) : result.offered - result.counted;
  result.cpu_ns = (ns(used.ru_utime) + ns(used.ru_stime)) / std::max(1.0, result.counted);
  enter(node);
  fs::remove_all(folder);
  return result;
}

double latency(double share) {
  std::uint64_t all = 0, sum = 0;
  for (const auto& bucket : shared()->latency_ms) all += bucket;
  for (std::size_t ms = 0; ms < shared()->latency_ms.size(); ++ms) {
    sum += shared()->latency_ms[ms];
    if (static_cast<double>(sum) >= share * static_cast<double>(all)) return static_cast<double>(ms);
  }
  return 0;
}

struct Series {
  std::vector<double> counted_per_s, cpu_ns, rows_per_s;
};

std::vector<Series> compare(const char* title, Flows flows, double per_second, double seconds, int rounds) {
  std::printf("%s, %.0f events/s wanted for %.0f s\n", title, per_second, seconds);
  std::vector<Series> all(std::size(kReceivers));
  for (int round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < std::size(kReceivers); ++i) {
      const Outcome r = flood(kReceivers[i], flows, per_second, seconds, round == 0);
      std::printf(
          "  %-15s offered %8.0f/s  counted %8.0f/s  not counted %5.1f %%  rows %8.0f  %7.0f ns CPU/event",
          kReceivers[i].name, r.offered / r.seconds, r.counted / r.seconds,
          100 * (1 - r.counted / std::max(1.0, r.offered)), r.rows, r.cpu_ns);
      if (i == 0)
        std::printf("  numbered and lost %.0f  event to row median %.0f ms p99 %.0f ms", r.lost, latency(0.5),
                    latency(0.99));
      std::printf("\n");
      all[i].counted_per_s.push_back(r.counted / r.seconds);
      all[i].cpu_ns.push_back(r.cpu_ns);
      all[i].rows_per_s.push_back(1e9 / r.cpu_ns);
    }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("event_bench");
  static_cast<void>(shared());
  const double seconds = argc > 1 ? std::max(1.0, std::atof(argv[1])) : 10;
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 1;
  constexpr double kQuiet = 20'000, kFlood = 400'000;
  if (argc > 2 && std::string_view(argv[2]) == "ours") {
    const Outcome r = flood(kReceivers[0], Flows::Distinct, kQuiet, seconds, true);
    std::printf("%.0f rows, %.0f ns CPU/event, event to row median %.0f ms p99 %.0f ms\n", r.rows, r.cpu_ns, latency(0.5),
                latency(0.99));
    return 0;
  }
  const auto calm = compare("20,000 flows", Flows::Aggregating, kQuiet, seconds, rounds);
  const auto distinct = compare("every event a flow of its own", Flows::Distinct, kQuiet, seconds, rounds);
  const auto flood = compare("flood over 20,000 flows", Flows::Aggregating, kFlood, seconds, rounds);
  std::printf("tierlog / yardstick, medians of %d pairs\n", rounds);
  const auto ratio = [](const std::vector<double>& a, const std::vector<double>& b) {
    return paired(a, b).median;
  };
  verdict("CPU per event / JSON, events aggregate", ratio(calm[0].cpu_ns, calm[2].cpu_ns), 1.0 / 6);
  verdict("CPU per event / JSON, every event its own row", ratio(distinct[0].cpu_ns, distinct[2].cpu_ns),
          0.5);
  verdict("counted in the flood: LOGEMU / tierlog", ratio(flood[1].counted_per_s, flood[0].counted_per_s),
          1 / 1.5);
  verdict("counted in the flood: JSON / tierlog", ratio(flood[2].counted_per_s, flood[0].counted_per_s),
          1 / 2.5);
  verdict("rows into SQLite for the same CPU: SQLITE3 / tierlog", ratio(distinct[0].cpu_ns, distinct[3].cpu_ns), 1.0 / 20);
  return 0;
}
