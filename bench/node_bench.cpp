// A node of 1,000 pods: memory of the real tierlogd, sizes of its tables, and how long the next pod waits.
//
//   node_bench [PODS]      (root; makes network namespaces of its own and leaves nothing)
//
// Each pod is a veth, registered through the control socket as the CNI plugin does it. 100
// policies of ten rules each select them by labels. Yardsticks: the same daemon before the first pod, and one
// nft process that adds an element to a set of as many.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/nftables/read_back.h"
#include "endpoints/control.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
namespace nft = dataplane::nftables;

constexpr int kNamespaces = 10;
constexpr int kApps = 100;
constexpr int kRulesEach = 10;
constexpr std::size_t kLast = 21;  // registrations whose time is told

std::string app(int number) {
  return "app-" + std::to_string(number % kApps);
}
std::string ns_of_app(int number) {
  return "ns-" + std::to_string(number % kNamespaces);
}

std::string topology() {
  std::string text = "namespaces:\n";
  for (int i = 0; i < kNamespaces; ++i) text += "- {name: ns-" + std::to_string(i) + "}\n";
  return text;
}

std::string policies() {
  std::string text;
  for (int number = 0; number < kApps; ++number) {
    text += policy_head(ns_of_app(number), app(number), "app == '" + app(number) + "'", "Ingress");
    for (int rule = 0; rule < kRulesEach; ++rule)
      text += "  - {action: Allow, protocol: TCP, source: {selector: \"app == '" +
              app(number + kNamespaces * (rule + 1)) + "'\"}, destination: {ports: [" +
              std::to_string(8000 + rule) + "]}}\n";
  }
  return text;
}

std::string address(int pod) {
  return "10.1." + std::to_string(pod / 250) + "." + std::to_string(pod % 250 + 1);
}

// The pods' own ends are all in one other namespace.
void make_interfaces(int pods, const Fd& peers) {
  const std::string there = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(peers.get());
  std::string text;
  for (int pod = 0; pod < pods; ++pod) {
    const std::string number = std::to_string(pod);
    text += "link add cali" + number + " type veth peer name eth" + number + " netns " + there +
            "\nlink set cali" + number + " up\n";
  }
  must_feed({"ip", "-batch", "-"}, text);
}

nlohmann::json registration(int pod) {
  char mac[24];
  std::snprintf(mac, sizeof mac, "02:00:00:00:%02x:%02x", pod / 256, pod % 256);
  return {{"op", "cni-add"},
          {"container_id", "container-" + std::to_string(pod)},
          {"ifname", "eth0"},
          {"netns", "/proc/self/ns/net"},
          {"namespace", ns_of_app(pod)},
          {"name", app(pod) + "-" + std::to_string(pod)},
          {"labels", {{"app", app(pod)}}},
          {"addresses", {address(pod)}},
          {"interface", "cali" + std::to_string(pod)},
          {"mac", mac}};
}

nlohmann::json ask(const std::string& socket, const nlohmann::json& request) {
  auto answer = endpoints::call(socket, request, 60s);
  if (answer) return *answer;
  std::fprintf(stderr, "tierlogd: %s\n", answer.error().message.c_str());
  std::exit(3);
}

class Daemon {
 public:
  Daemon(const fs::path& folder, const std::string& program) : folder_(folder), pid_(start(program)) {
    for (int i = 0; i < 200; ++i) {
      if (endpoints::call(socket(), {{"op", "status"}})) return;
      std::this_thread::sleep_for(50ms);
    }
    std::fprintf(stderr, "%s\n", text_of((folder_ / "log").string()).c_str());
    std::exit(3);
  }
  ~Daemon() {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  std::string socket() const { return (folder_ / "tierlogd.sock").string(); }
  double rss() const { return status_mib("VmRSS", pid_); }
  double peak() const { return status_mib("VmHWM", pid_); }
  // Of all its threads, in the time since it began.
  double cpu_ms() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    std::string word;
    double ticks = 0;
    for (int field = 1; field <= 15 && file >> word; ++field)
      if (field >= 14) ticks += std::strtod(word.c_str(), nullptr);
    return ticks * 1e3 / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

 private:
  pid_t start(const std::string& program) const {
    fs::create_directories(folder_ / "files");
    std::ofstream(folder_ / "files/topology.yaml") << topology();
    std::ofstream(folder_ / "files/policies.yaml") << policies();
    std::ofstream(folder_ / "tierlogd.yaml")
        << "node: bench\npolicies: [" << (folder_ / "files/policies.yaml").string()
        << "]\ntopology: " << (folder_ / "files/topology.yaml").string() << "\nsocket: " << socket()
        << "\nstore: {path: " << (folder_ / "flows.db").string() << "}\nlog: {level: warning}\n";
    return start_child([&] {
      const int log = ::open((folder_ / "log").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
      ::dup2(log, STDERR_FILENO);
      ::execl(program.c_str(), program.c_str(), "--config", (folder_ / "tierlogd.yaml").c_str(), nullptr);
      return 127;
    });
  }

  fs::path folder_;
  pid_t pid_;
};

void print_tables() {
  auto socket = nft::NetfilterSocket::open();
  if (!socket) return;
  for (const std::uint8_t family : {std::uint8_t{NFPROTO_INET}, std::uint8_t{NFPROTO_NETDEV}}) {
    const auto chains = nft::read_chains(*socket, family);
    const auto seals = nft::read_seals(*socket, family);
    const auto sets = nft::read_sets(*socket, family);
    const auto counters = nft::read_counter_objects(*socket, family);
    if (!chains || !seals || !sets || !counters) return;
    std::size_t rules = 0, elements = 0;
    for (const auto& [chain, of_chain] : *seals) rules += of_chain.size();
    for (const auto& [set, filled_by_packets] : *sets)
      if (const auto read = nft::read_elements(*socket, set, family); read) elements += read->size();
    std::printf("  table %-6s tierlog: %zu chains, %zu rules, %zu sets with %zu elements, %zu counters\n",
                family == NFPROTO_INET ? "inet" : "netdev", chains->size(), rules, sets->size(), elements,
                counters->size());
  }
}

double nft_process(int number) {
  const Spent spent = spend({"nft", "add", "element", "inet", "y", "pods", "{ " + address(number) + " }"});
  return spent.code == 0 ? spent.wall_ms : 0;
}

int run(int pods, const fs::path& folder, const std::string& program) {
  const Fd netns = new_netns();
  enter(netns);
  const Fd peers = new_netns();
  make_interfaces(pods, peers);
  std::string yardstick = "table inet y { set pods { type ipv4_addr; elements = { ";
  for (int pod = 0; pod < pods; ++pod) yardstick += (pod == 0 ? "" : ", ") + address(pod);
  must_feed({"nft", "-f", "-"}, yardstick + " }; }; }");

  Daemon daemon(folder, program);
  const double rss_before = daemon.rss();
  std::vector<double> add_ms, add_cpu, nft_ms;
  const auto begin = Stopwatch::now();
  for (int pod = 0; pod < pods; ++pod) {
    const bool told = pod + static_cast<int>(kLast) >= pods;
    // As pods come on a real node: not while the tables are still being swept after the one before.
    if (told) {
      std::this_thread::sleep_for(200ms);
      nft_ms.push_back(nft_process(pods + pod));
    }
    const double cpu = daemon.cpu_ms();
    const auto start = Stopwatch::now();
    ask(daemon.socket(), registration(pod));
    const double took = ms_since(start);
    if (told) {
      add_ms.push_back(took);
      add_cpu.push_back(daemon.cpu_ms() - cpu);
    } else if (pod % 100 == 0) {
      std::printf("  pod %4d: registered in %.1f ms\n", pod, took);
      std::fflush(stdout);
    }
  }
  const double all_ms = ms_since(begin);
  std::this_thread::sleep_for(2s);
  const auto status = ask(daemon.socket(), {{"op", "status"}})["status"];
  std::printf("%d pods registered in %.1f s: %d endpoints enforced, %d rules\n", pods, all_ms / 1e3,
              status["programmed"].get<int>(), status["rules"].get<int>());
  std::printf("  daemon's memory: RSS %.1f MiB (peak %.1f); before the first pod %.1f MiB; a pod %.1f KiB\n",
              daemon.rss(), daemon.peak(), rss_before, (daemon.rss() - rss_before) * 1024 / pods);
  print_tables();
  std::printf("  one cni-add, the last %zu: median %.1f ms (max %.1f), CPU of the daemon %.1f ms\n",
              add_ms.size(), median(add_ms), percentile(add_ms, 1), median(add_cpu));
  std::printf("  yardstick: one nft process, one element: %.1f ms; ratio %s\n", median(nft_ms),
              to_text(paired(add_ms, nft_ms)).c_str());
  return status["programmed"].get<int>() == pods ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("node_bench");
  const fs::path folder = fs::temp_directory_path() / ("tierlog-bench-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const std::string program = fs::read_symlink("/proc/self/exe").parent_path() / "tierlogd";
  const int code = run(argc > 1 ? std::max(50, std::atoi(argv[1])) : 1000, folder, program);
  fs::remove_all(folder);
  return code;
}
