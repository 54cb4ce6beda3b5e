// Replacing 10,000 rules at once, all of them different: time and memory against `nft -f`.
//
//   replace_bench [ROUNDS]     (root; makes network namespaces of its own and leaves nothing)
//
// Ours: a Program of 100 pods with 100 rules each, put in the place of one where every rule differs:
// prepare, flip and sweep, without the grace time between them. Yardsticks, each a whole process that
// replaces its table in one transaction: the same objects (a chain, a counter and a log statement a rule, an
// entry a class), and the shortest text that tells who matched (one rule with counter, mark and log).
#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/nftables/backend.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace std::chrono_literals;
namespace fs = std::filesystem;
using dataplane::nftables::NftablesBackend;

constexpr int kPods = 100;
constexpr int kRulesEach = 100;

std::string pod_address(int pod) {
  return "10.1.0." + std::to_string(pod + 1);
}
// Where a rule applies: its net and port; `version` moves the ports, so that no rule stays what it was.
std::string net_of(int rule) {
  return "172.16." + std::to_string(rule) + ".0/24";
}
int port_of(int pod, int rule, int version) {
  return 1000 + 20'000 * version + pod * kRulesEach + rule;
}

std::string policies(int version) {
  std::string text;
  for (int pod = 0; pod < kPods; ++pod) {
    const std::string name = "p" + std::to_string(pod);
    text += policy_head("a", name, "app == '" + name + "'", "Ingress");
    for (int rule = 0; rule < kRulesEach; ++rule)
      text += "  - {action: Allow, protocol: TCP, source: {nets: [" + net_of(rule) +
              "]}, destination: {ports: [" + std::to_string(port_of(pod, rule, version)) + "]}}\n";
  }
  return text;
}

std::vector<policy::Endpoint> pods() {
  std::vector<policy::Endpoint> all;
  for (int pod = 0; pod < kPods; ++pod) {
    const std::string name = "p" + std::to_string(pod);
    all.push_back(local_pod("a", name, pod_address(pod), {{"app", name}}));
  }
  return all;
}

std::string hex_id(int version, int pod, int rule) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", 0x100 + (version * kPods + pod) * kRulesEach + rule);
  return text;
}

std::string head_of_table() {
  return "table inet t {}\ndelete table inet t\ntable inet t {\n";
}

std::string base_chain_and_map() {
  std::string text = " map pods { type ipv4_addr : verdict; elements = { ";
  for (int pod = 0; pod < kPods; ++pod)
    text += (pod == 0 ? "" : ", ") + pod_address(pod) + " : goto e" + std::to_string(pod);
  return text +
         " }; }\n chain forward { type filter hook forward priority 10; ct state established,related accept; "
         "ip daddr vmap @pods; }\n}\n";
}

// Object by object what Tierlog makes: a counter, two chains and a map element a rule, and the sets.
std::string same_objects(int version) {
  std::string text = head_of_table(), chains, classes, logs, sets;
  for (int rule = 0; rule < kRulesEach; ++rule)
    text += " set s" + std::to_string(rule) + " { type ipv4_addr; flags interval; elements = { " +
            net_of(rule) + " }; }\n";
  for (int pod = 0; pod < kPods; ++pod) {
    classes += " chain e" + std::to_string(pod) + " {\n";
    for (int rule = 0; rule < kRulesEach; ++rule) {
      const std::string id = hex_id(version, pod, rule);
      const std::string comment =
          "comment \"default/a/p" + std::to_string(pod) + "[" + std::to_string(rule) + "] " + id + "\"";
      text += " counter c_" + id + " { }\n";
      chains += " chain r" + id + " {\n  ct mark 0 counter name c_" + id + " ct mark set 0x" + id + " " +
                comment + "\n  ct state invalid,untracked counter name c_" + id +
                " comment \"no connection\"\n }\n chain l" + id +
                " {\n  log group 4610 snaplen 128 prefix \"tl:A:" + id + "\"\n }\n";
      logs += std::string(logs.empty() ? "" : ", ") + "0x" + id + " : jump l" + id;
      classes += "  meta nfproto ipv4 meta l4proto tcp ip saddr @s" + std::to_string(rule) + " th dport " +
                 std::to_string(port_of(pod, rule, version)) + " goto r" + id + " " + comment + "\n";
    }
    classes += "  drop\n }\n";
  }
  return text + chains + " map rlog { type mark : verdict; elements = { " + logs + " }; }\n" + classes +
         base_chain_and_map();
}

std::string shortest(int version) {
  std::string text = head_of_table();
  for (int pod = 0; pod < kPods; ++pod) {
    text += " chain e" + std::to_string(pod) + " {\n";
    for (int rule = 0; rule < kRulesEach; ++rule) {
      const std::string id = hex_id(version, pod, rule);
      text += "  ip saddr " + net_of(rule) + " tcp dport " + std::to_string(port_of(pod, rule, version)) +
              " counter ct mark set 0x" + id + " log group 4610 snaplen 128 prefix \"tl:A:" + id +
              "\" accept\n";
    }
    text += "  drop\n }\n";
  }
  return text + base_chain_and_map();
}

struct Ours {
  double wall_ms = 0, cpu_ms = 0, peak_mib = 0, rise_mib = 0, compile_ms = 0;
};

// In a process of its own: holds the rules, and replaces them each time it is asked.
int serve(int socket) {
  enter(new_netns());
  policy::MemoryRuleIds ids;
  auto backend = NftablesBackend::open({});
  if (!backend) return 3;
  const std::string texts[2] = {policies(0), policies(1)};
  if (!(*backend)->apply(program_of(texts[0], pods(), ids))) return 3;
  char go = 0;
  for (int version = 1; ::read(socket, &go, 1) == 1; version = 1 - version) {
    Ours ours;
    auto start = Stopwatch::now();
    const auto program = program_of(texts[version], pods(), ids);
    ours.compile_ms = ms_since(start);
    std::this_thread::sleep_for(100ms);
    if (!(*backend)->sweep_when_due()) return 3;
    ::malloc_trim(0);  // what compiling left over would hide what replacing needs
    reset_peak_rss();
    const double before = status_mib("VmRSS");
    start = Stopwatch::now();
    double cpu = process_cpu_ms();
    if (!(*backend)->apply(program)) return 3;
    ours.wall_ms = ms_since(start);
    ours.cpu_ms = process_cpu_ms() - cpu;
    std::this_thread::sleep_for(100ms);
    start = Stopwatch::now();
    cpu = process_cpu_ms();
    if (!(*backend)->sweep_when_due()) return 3;
    ours.wall_ms += ms_since(start);
    ours.cpu_ms += process_cpu_ms() - cpu;
    ours.peak_mib = status_mib("VmHWM");
    ours.rise_mib = ours.peak_mib - before;
    if (::write(socket, &ours, sizeof ours) != sizeof ours) return 3;
  }
  return 0;
}

struct Yardstick {
  const char* name;
  std::string files[2];
  Fd netns;
  std::vector<double> wall, cpu, peak;

  void measure(int version) {
    enter(netns);
    const Spent spent = spend({"nft", "-f", files[version]});
    if (spent.code != 0) std::exit(3);
    wall.push_back(spent.wall_ms);
    cpu.push_back(spent.cpu_ms);
    peak.push_back(spent.peak_rss_mib);
  }
};

void print(const char* name, const std::vector<double>& wall, const std::vector<double>& cpu,
           const std::vector<double>& peak) {
  std::printf("  %-44s %7.0f ms   CPU %7.0f ms   peak RSS %6.1f MiB\n", name, median(wall), median(cpu),
              median(peak));
}

int run(int rounds, const fs::path& folder, const std::string& self) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 3;
  // A program of its own, so that no memory of this one counts as its.
  const pid_t server = start_child([&] {
    ::execl(self.c_str(), self.c_str(), "--serve", std::to_string(ends[1]).c_str(), nullptr);
    return 3;
  });
  ::close(ends[1]);
  Yardstick yardsticks[2]{{"nft -f, the same objects", {}, new_netns(), {}, {}, {}},
                          {"nft -f, one rule a rule", {}, new_netns(), {}, {}, {}}};
  for (int version = 0; version < 2; ++version)
    for (int which = 0; which < 2; ++which) {
      Yardstick& yardstick = yardsticks[which];
      yardstick.files[version] = folder / (std::to_string(which) + std::to_string(version) + ".nft");
      std::ofstream(yardstick.files[version]) << (which == 0 ? same_objects(version) : shortest(version));
    }
  std::vector<double> wall, cpu, peak, rise, compile;
  for (int round = -1; round < rounds; ++round) {
    Ours ours;
    if (::write(ends[0], "g", 1) != 1 || ::recv(ends[0], &ours, sizeof ours, MSG_WAITALL) != sizeof ours) {
      std::fprintf(stderr, "replace_bench: our own process failed\n");
      return 3;
    }
    for (Yardstick& yardstick : yardsticks) yardstick.measure((round + 2) % 2);
    if (round < 0) {  // the first only warms up
      for (Yardstick& yardstick : yardsticks)
        for (auto* values : {&yardstick.wall, &yardstick.cpu, &yardstick.peak}) values->clear();
      continue;
    }
    wall.push_back(ours.wall_ms);
    cpu.push_back(ours.cpu_ms);
    peak.push_back(ours.peak_mib);
    rise.push_back(ours.rise_mib);
    compile.push_back(ours.compile_ms);
  }
  end_child(server);
  std::printf("%d rules (%d pods with %d each) replaced by as many others\n", kPods * kRulesEach, kPods,
              kRulesEach);
  print("Tierlog: prepare, flip, sweep", wall, cpu, peak);
  std::printf("  %-44s %7.0f ms\n", "before that: policy text to Program", median(compile));
  std::printf("  %-44s %30s %6.1f MiB\n", "while replacing, above what it had before", "", median(rise));
  for (const Yardstick& yardstick : yardsticks)
    print(yardstick.name, yardstick.wall, yardstick.cpu, yardstick.peak);
  for (const Yardstick& yardstick : yardsticks)
    std::printf("  ratios to %-24s time %s, CPU %s, memory %s\n", yardstick.name,
                to_text(paired(wall, yardstick.wall)).c_str(), to_text(paired(cpu, yardstick.cpu)).c_str(),
                to_text(paired(peak, yardstick.peak)).c_str());
  verdict("time / nft -f of the same objects", paired(wall, yardsticks[0].wall).median, 0.6);
  verdict("peak memory / nft -f of the same objects", paired(peak, yardsticks[0].peak).median, 0.25);
  verdict("memory above what it holds anyway / nft -f of the same objects",
          paired(rise, yardsticks[0].peak).median, 0.25);
  verdict("time / nft -f, one rule a rule", paired(wall, yardsticks[1].wall).median, 0.6);
  verdict("peak memory / nft -f, one rule a rule", paired(peak, yardsticks[1].peak).median, 0.25);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("replace_bench");
  if (argc == 3 && std::strcmp(argv[1], "--serve") == 0) return serve(std::atoi(argv[2]));
  const fs::path folder = fs::temp_directory_path() / ("tierlog-bench-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const int code = run(argc > 1 ? std::max(5, std::atoi(argv[1])) : 7, folder, "/proc/self/exe");
  fs::remove_all(folder);
  return code;
}
