#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "bench/ebpf_bench.h"
#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/links.h"

namespace tierlog::bench {
namespace {

using dataplane::ebpf::EbpfBackend;

constexpr int kPolicies = 60, kRulesEach = 100, kOfOne = 10;  // 1,000 rules of an endpoint
constexpr int kEndpoints = 1000;

std::string policies() {
  std::string text;
  for (int i = 0; i < kPolicies; ++i) {
    text += policy_head("a", "p" + std::to_string(i), "has(p" + std::to_string(i) + ")", "Ingress");
    for (int rule = 0; rule < kRulesEach; ++rule)
      text += "  - {action: Allow, protocol: TCP, source: {selector: app == 'x" + std::to_string((i * 7 + rule) % 50) +
              "'}, destination: {ports: [" + std::to_string(1000 + i * kRulesEach + rule) + "]}}\n";
  }
  return text;
}

// Endpoint number `i` in one of `classes` classes, which are told apart by the ten policies they have.
policy::Endpoint endpoint(int i, int classes, bool has_interface = false) {
  policy::Labels labels{{"app", "x" + std::to_string(i % 50)}};
  const int which = i % classes;
  // Nine in a row from a place, and a tenth behind them: 60 * 50 are different.
  for (int j = 0; j < kOfOne - 1; ++j) labels["p" + std::to_string((which % kPolicies + j) % kPolicies)] = "";
  labels["p" + std::to_string((which % kPolicies + kOfOne - 1 + which / kPolicies) % kPolicies)] = "";
  return local_pod("a", "pod-" + std::to_string(i), "10.1." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250),
                   labels, has_interface ? "pod" + std::to_string(i) : "");
}

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "ebpf_bench: %s\n", why.c_str());
  std::exit(3);
}

// Of all BPF maps that this process holds, as the kernel accounts them; MiB.
double map_memory() {
  double bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);)
      if (line.rfind("memlock:", 0) == 0 ) bytes += std::strtod(line.c_str() + 8, nullptr);
  }
  return bytes / (1 << 20);
}

long faults_until_now() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// CPU of a page that is touched the first time, us.
double page_fault_us() {
  constexpr std::size_t kPages = 16'384, kPage = 4096;
  void* room = ::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) stop("no memory");
  static_cast<void>(::madvise(room, kPages * kPage, MADV_NOHUGEPAGE));
  auto* bytes = static_cast<volatile char*>(room);
  const double before = process_cpu_ms();
  for (std::size_t i = 0; i < kPages; ++i) bytes[i * kPage] = 1;
  const double ms = process_cpu_ms() - before;
  ::munmap(room, kPages * kPage);
  return ms * 1e3 / kPages;
}

// CPU of asking whether interfaces came or went where none did, us: the one system call of a change.
double looking_us() {
  constexpr int kTimes = 20'000;
  const auto links = dataplane::Links::open();
  if (!links) stop(links.error().message);
  const double before = process_cpu_ms();
  for (int i = 0; i < kTimes; ++i)
    if ((*links)->drain()) stop("interfaces change");
  return (process_cpu_ms() - before) * 1e3 / kTimes;
}

void memory_of(int classes) {
  auto backend = EbpfBackend::open({});
  if (!backend) stop(backend.error().message);
  policy::MemoryRuleIds ids;
  std::vector<policy::Endpoint> pods;
  for (int i = 0; i < kEndpoints; ++i) pods.push_back(endpoint(i, classes));
  const auto program = program_of(policies(), pods, ids);
  const auto start = Stopwatch::now();
  if (auto done = (*backend)->apply(program); !done) stop(done.error().message);
  const double ms = ms_since(start);
  const auto& arena = (*backend)->installed().arena();
  std::printf("  %d endpoints of %d rules, %zu classes (%zu of ingress): classes and addresses %.0f MiB in %zu segments of "
              "4 MiB; all maps %.0f MiB; applied in %.0f ms\n",
              kEndpoints, kOfOne * kRulesEach, program->classes.size(), program->classes.size() - 1,
              static_cast<double>(arena.used()) / (1 << 20), arena.segments(), map_memory(), ms);
  verdict(("memory of classes and addresses, " + std::to_string(classes) + " classes, MiB").c_str(),
          static_cast<double>(arena.segments()) * 4, 150);
}

// A pod that is known and not enforced here joins other sets, over and over.
void membership() {
  constexpr int kChanges = 2000;
  std::string links;
  for (int i = 0; i < kEndpoints; i += 2)
    links += "link add pod" + std::to_string(i) + " type veth peer name pod" + std::to_string(i + 1) + "\n";
  must_feed({"ip", "-batch", "-"}, links);
  auto backend = EbpfBackend::open({});
  if (!backend) stop(backend.error().message);
  policy::MemoryRuleIds ids;
  std::vector<policy::Endpoint> pods;
  for (int i = 0; i < kEndpoints; ++i) pods.push_back(endpoint(i, 300, true));
  auto remote = local_pod("a", "far", "10.9.0.1", {{"app", "x0"}});
  remote.local = false;
  pods.push_back(remote);
  const std::string text = policies();
  std::vector<std::shared_ptr<const policy::Program>> programs;
  for (const char* app : {"x1", "x2"}) {
    pods.back().labels["app"] = app;
    programs.push_back(program_of(text, pods, ids));
  }
  const auto change = [&](int i) {
    if (auto done = (*backend)->apply(programs[static_cast<std::size_t>(i) % 2]); !done) stop(done.error().message);
  };
  for (int warm = 0; warm < 100; ++warm) change(warm);
  const auto& arena = (*backend)->installed().arena();
  const std::uint32_t root = (*backend)->root();
  const std::uint64_t used = arena.used();
  const long faults_before = faults_until_now();
  const double before = process_cpu_ms();
  for (int i = 0; i < kChanges; ++i) change(i);
  const double all = (process_cpu_ms() - before) * 1e3 / kChanges;
  const double faults = static_cast<double>(faults_until_now() - faults_before) / kChanges;
  if ((*backend)->root() == root) stop("nothing was changed");
  if (arena.used() != used) stop("the arena's use went from " + std::to_string(used) + " to " + std::to_string(arena.used()));
  // The kernel's account of its own time goes by ticks, too coarse for this: so what it is asked is timed alone. Pages
  // that the allocator gave back and takes again are not the change's work, and stand beside.
  const double looking = looking_us();
  std::printf("  one pod's labels change, %d times, %d endpoints in 300 classes: %.0f us of CPU each; one system call of %.2f "
              "us, one store a family of addresses and one of the root; beside it %.2f page faults of the allocator, %.2f us "
              "each\n",
              kChanges, kEndpoints, all, looking, faults, page_fault_us());
  verdict("one pod's membership change, us in the kernel", looking, 2);
}

}  // namespace

void membership_and_memory() {
  enter(new_netns());
  std::printf("\nmany endpoints with many rules:\n");
  for (const int classes : {300, 1000}) memory_of(classes);
  membership();
}

}  // namespace tierlog::bench
