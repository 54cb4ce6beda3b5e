// What the eBPF programs take of a packet, by the kernel's own clock (BPF_PROG_TEST_RUN): how user space was built does
// not matter. Tuples are asked for in turn, thousands of different ones: one warm packet flatters.
//
//   ebpf_bench [ROUNDS [PART]]     each round asks for every tuple once
//
// PART: classify, way (a node's whole way beside nftables), node (membership, memory), pods (TCP between two); default: all.
//
// A question that the program gives up at once is the yardstick: loading the question, answering. It is taken off.
#include <bpf/bpf.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/ebpf_bench.h"
#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/events.h"
#include "dataplane/ebpf/layout.h"
#include "lab/frames.h"
#include "tests/dataplane/question.h"
#include "tests/dataplane/shapes.h"

namespace tierlog::bench {
namespace {

using dataplane::ebpf::EbpfBackend;
using dataplane::ebpf::EbpfEvents;
namespace shapes = dataplane::test;

constexpr std::size_t kTuples = 4096;
constexpr std::size_t kEtherHead = 14;
constexpr std::size_t kAgain = 1024;
constexpr int kPacketRepeats = 20'000;

void need(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "ebpf_bench: %s\n", what.c_str());
  std::exit(3);
}

// This process's program of that name; others may have theirs.
Fd program_called(const std::string& name) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    bpf_prog_info info{};
    std::uint32_t length = sizeof info;
    const int fd = std::atoi(entry.path().filename().c_str());
    std::error_code none;
    if (std::filesystem::read_symlink(entry.path(), none) == "anon_inode:bpf-prog" &&
        ::bpf_obj_get_info_by_fd(fd, &info, &length) == 0 && name == info.name)
      return Fd(::dup(fd));
  }
  need(false, "no program " + name);
  return {};
}

struct Asked {
  double ns = 0;
  bool cached = false, answered = false;
};

class Asker {
 public:
  Asker() : program_(program_called("tierlog_ask")), frame_(kEtherHead + sizeof(tl_question) + 32), answer_(frame_.size()) {}

  Asked ask(const tl_question& question) {
    std::memcpy(frame_.data() + kEtherHead, &question, sizeof question);
    LIBBPF_OPTS(bpf_test_run_opts, run);
    run.data_in = frame_.data();
    run.data_size_in = static_cast<std::uint32_t>(frame_.size());
    run.data_out = answer_.data();
    run.data_size_out = static_cast<std::uint32_t>(answer_.size());
    run.repeat = 1;
    need(::bpf_prog_test_run_opts(program_.get(), &run) == 0, "cannot run tierlog_ask");
    tl_answer answer;
    std::memcpy(&answer, answer_.data() + kEtherHead, sizeof answer);
    return {static_cast<double>(run.duration), answer.cached != 0, run.retval == 1};
  }

 private:
  Fd program_;
  std::vector<std::uint8_t> frame_, answer_;
};

struct Cell {
  double again = 0, warm = 0, miss = 0, mib = 0;
  std::size_t misses = 0;
};

Cell measure(shapes::Shape shape, std::size_t rules, int rounds) {
  auto backend = EbpfBackend::open({});
  need(backend.has_value(), backend ? "" : backend.error().message);
  const auto shaped = shapes::shaped_program(shape, rules, 7);
  const auto applied = (*backend)->apply(std::make_shared<const policy::Program>(shaped.program));
  need(applied.has_value(), applied ? "" : applied.error().message);
  Asker asker;
  std::mt19937 engine(11);
  std::vector<tl_question> questions;
  for (std::size_t i = 0; i < kTuples; ++i)
    questions.push_back(shapes::question_of(shapes::shaped_packet(shaped, engine), (*backend)->root(),
                                    (*backend)->installed().class_reference(0)));
  tl_question nothing{};
  nothing.root = (TL_SEGMENTS - 1u) << TL_SEGMENT_BITS;  // a segment that nobody made
  std::vector<double> base, miss, warm;
  for (int round = 0; round <= rounds; ++round)
    for (const tl_question& question : questions) {
      const Asked none = asker.ask(nothing), one = asker.ask(question);
      need(one.answered, "a question was not answered");
      base.push_back(none.ns);
      (one.cached ? warm : miss).push_back(one.ns);
    }
  // One tuple after the other, each until it is in the CPU's caches, as packets of a busy pair of workloads come.
  std::vector<double> again, base_again;
  for (std::size_t i = 0; i < kTuples; i += kTuples / kAgain) {
    for (int time = 0; time < 8; ++time) {
      const Asked one = asker.ask(questions[i]);
      if (time >= 4) again.push_back(one.ns);
    }
    for (int time = 0; time < 8; ++time) {
      const Asked none = asker.ask(nothing);
      if (time >= 4) base_again.push_back(none.ns);
    }
  }
  Cell cell;
  cell.again = median(again) - median(base_again);
  cell.warm = median(warm) - median(base);
  cell.misses = miss.size();
  cell.miss = miss.empty() ? 0 : median(miss) - median(base);
  cell.mib = static_cast<double>((*backend)->installed().arena().used()) / (1 << 20);
  return cell;
}

// Runs one program on one frame over and over; ns of each.
double per_packet(const Fd& program, const lab::Bytes& frame, int ifindex, int repeat) {
  __sk_buff context{};
  context.ifindex = static_cast<std::uint32_t>(ifindex);
  LIBBPF_OPTS(bpf_test_run_opts, run);
  run.data_in = frame.data();
  run.data_size_in = static_cast<std::uint32_t>(frame.size());
  run.ctx_in = &context;
  run.ctx_size_in = sizeof context;
  run.repeat = repeat;
  need(::bpf_prog_test_run_opts(program.get(), &run) == 0, "cannot run tierlog_out");
  return static_cast<double>(run.duration);
}

constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec: {selector: app == 'p', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
)";

void whole_program(int rounds) {
  must_run({"ip", "link", "add", "pod-p", "type", "veth", "peer", "name", "pod-q"});
  const int ifindex = static_cast<int>(::if_nametoindex("pod-p"));
  policy::MemoryRuleIds ids;
  const auto program = program_of(kPolicy, {local_pod("a", "p", "10.1.0.1", {{"app", "p"}}, "pod-p")}, ids);
  auto backend = EbpfBackend::open({});
  need(backend.has_value() && (*backend)->apply(program).has_value(), "cannot enforce");
  auto events = EbpfEvents::open((*backend)->programs().events(), (*backend)->programs().losses());
  need(events.has_value(), "no events");
  const Fd out = program_called("tierlog_out");
  lab::FrameSpec spec;
  spec.from = *IpAddr::parse("10.1.0.1");
  spec.to = *IpAddr::parse("203.0.113.9");
  spec.protocol = protocol::kTcp;
  spec.port = 80;
  spec.mark = "12345678";
  const lab::Bytes syn = lab::build(spec);
  spec.tcp_flags = 0x10;
  const lab::Bytes ack = lab::build(spec);
  spec.tcp_flags = 0x02;
  spec.port = 81;
  const lab::Bytes refused = lab::build(spec);
  const auto counted = [&](RuleId id) {
    const auto counters = (*backend)->read_counters();
    need(counters.has_value(), "no counters");
    std::uint64_t packets = 0;
    for (const auto& counter : *counters)
      if (counter.id == id) packets += counter.packets;
    return packets;
  };
  static_cast<void>(per_packet(out, syn, ifindex, 1));
  need(counted(program->rules.front().id) == 1, "no figures: the first packet of the connection was not judged");
  std::vector<double> established, quiet, told;
  tl_config& config = (*backend)->programs().config();
  std::uint64_t seen = 0;
  for (int round = 0; round < rounds; ++round) {
    established.push_back(per_packet(out, ack, ifindex, kPacketRepeats));
    config.deny_interval = 3'600'000'000'000;
    quiet.push_back(per_packet(out, refused, ifindex, kPacketRepeats));
    config.deny_interval = 0;
    told.push_back(per_packet(out, refused, ifindex, kPacketRepeats));
    std::vector<dataplane::VerdictEvent> drained;
    while ((*events)->drain(drained, 1'000'000).value_or(false)) {
    }
    seen += drained.size();
  }
  const auto flows = (*backend)->read_flows();
  const auto each = static_cast<std::uint64_t>(rounds) * kPacketRepeats;
  need(flows.has_value() && flows->size() == 1 && flows->front().flow.packets[0] == 1 + each,
       "no figures: established packets were not followed");
  need(counted(program->ends.front().id) == 2 * each, "no figures: denied packets were not judged");
  std::printf("\none flow, ns a packet, the whole program out of a pod (%d rounds of %d):\n", rounds, kPacketRepeats);
  std::printf("  established %.0f   denied, counted only %.0f   denied and told %.0f\n", median(established), median(quiet),
              median(told));
  need(seen + 2 >= each, "events were lost");
  verdict("an event per denied packet / counted only", paired(told, quiet).median, 1.15);
}

void classify(int rounds) {
  enter(new_netns());
  pin_to_cpu(0);
  const std::vector<std::size_t> sizes{10, 100, 1000, 10'000};
  std::printf("classification, ns above the yardstick, median of %zu tuples in turn, %d rounds:\n", kTuples, rounds);
  std::printf("%-6s %7s %12s %10s %10s %8s %10s\n", "shape", "rules", "cached again", "cached", "miss", "misses", "MiB");
  std::map<shapes::Shape, std::map<std::size_t, Cell>> cells;
  for (const shapes::Shape shape : shapes::kShapes)
    for (const std::size_t size : sizes) {
      const Cell cell = cells[shape][size] = measure(shape, size, rounds);
      std::printf("%-6s %7zu %12.0f %10.0f %10.0f %8zu %10.2f\n", shapes::name(shape).c_str(), size, cell.again, cell.warm,
                  cell.miss, cell.misses, cell.mib);
      std::fflush(stdout);
    }
  std::printf("\n");
  for (const shapes::Shape shape : shapes::kShapes) {
    auto& of = cells[shape];
    verdict((shapes::name(shape) + " cached again, 10,000 rules / 10").c_str(), of[10'000].again / of[10].again, 1.3);
    verdict((shapes::name(shape) + " miss at 10,000 rules, us").c_str(), of[10'000].miss / 1000, 1.5);
  }
  whole_program(std::max(5, rounds));
}

struct Part {
  const char* name;
  bool (*run)(int rounds);  // false: what it printed is not sound
};
constexpr Part kParts[] = {
    {"way", [](int rounds) { return beside_nftables(std::max(5, rounds)); }},
    {"node", [](int) { return membership_and_memory(), true; }},
    {"pods", [](int rounds) { return tcp_between_pods(std::max(5, rounds)), true; }},
    {"classify", [](int rounds) { return classify(rounds), true; }},
};

int run(int rounds, const std::string& wanted) {
  bool sound = true;
  for (const Part& part : kParts)
    if (wanted.empty() || wanted == part.name) sound = part.run(rounds) && sound;
  return sound ? 0 : 1;
}

int usage() {
  std::fprintf(stderr, "usage: ebpf_bench [ROUNDS [PART]]; ROUNDS is a number, PART one of");
  for (const Part& part : kParts) std::fprintf(stderr, " %s", part.name);
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace
}  // namespace tierlog::bench

int main(int argc, char** argv) {
  using namespace tierlog::bench;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  const std::string part = argc > 2 ? argv[2] : "";
  const bool known = std::any_of(std::begin(kParts), std::end(kParts), [&](const Part& one) { return part == one.name; });
  if (rounds < 1 || argc > 3 || (argc > 2 && !known)) return usage();
  need_root("ebpf_bench");
  return run(rounds, part);
}
