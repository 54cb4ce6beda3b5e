// bench/support.h - what the benchmarks share: network namespaces that end with the process, CPU clocks,
// paired ratios and the lines in which a figure, its yardstick and the aim are told.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/handle.h"

namespace tierlog::bench {

// --- namespaces: without a name, so that nothing of them outlives their last descriptor and socket
Fd new_netns();               // the calling thread stays where it was; loopback is up in it
void enter(const Fd& netns);  // the calling thread, for good
// Ends this program with a message when there is no root to make namespaces.
void need_root(const char* program);

// Runs a program in the calling thread's namespaces and waits; ends this program when it fails.
void must_run(const std::vector<std::string>& command);
// `text` as the input of `program -`: ip -batch, nft -f.
void must_feed(const std::vector<std::string>& command, const std::string& text);

struct Spent {
  double wall_ms = 0;
  double cpu_ms = 0;        // user and system
  double peak_rss_mib = 0;  // of the process alone: it does not inherit ours, which must be small
  int code = 0;
};
Spent spend(const std::vector<std::string>& command);

// A child process that ends with this one; `work` returns its exit code.
pid_t start_child(const std::function<int()>& work);
void end_child(pid_t child);

void pin_to_cpu(int cpu);

// --- clocks
using Stopwatch = std::chrono::steady_clock;
double ms_since(Stopwatch::time_point start);
double process_cpu_ms();
// CPU time of this process and of the kernel thread that takes over its packets on that CPU.
class SenderCpu {
 public:
  explicit SenderCpu(int cpu);
  std::uint64_t now_ns() const;

 private:
  std::string path_;
};

double status_mib(const char* key, pid_t pid = 0);  // VmRSS, VmHWM of /proc/PID/status; 0: this process
void reset_peak_rss();                              // of this process
std::string text_of(const std::string& path);

// --- figures
double median(std::vector<double> values);
double percentile(std::vector<double> values, double share);
struct Ratio {
  double median = 0, low = 0, high = 0;
  std::size_t pairs = 0;
};
// Of each pair measured one after the other.
Ratio paired(const std::vector<double>& figure, const std::vector<double>& yardstick);
std::string to_text(const Ratio& ratio);  // "1.23 [1.10..1.40] of 11 pairs"
// Prints what was aimed at and what came.
void verdict(const char* what, double figure, double aim);

}  // namespace tierlog::bench
