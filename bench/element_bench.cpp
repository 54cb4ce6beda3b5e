// What one pod more costs: a set element on the socket that the back end keeps, and a whole apply.
//
//   element_bench [ROUNDS]     (root; makes network namespaces of its own and leaves nothing)
//
// Yardstick: one `nft add element` process that adds a member to a set of the same size.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/encode.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace dataplane::nftables;

constexpr int kPods = 1000;
constexpr int kPolicies = 100;
constexpr int kRulesEach = 10;
constexpr int kInARow = 50;

Bytes key_of(int number) {
  return {10, 1, static_cast<std::uint8_t>(number / 256), static_cast<std::uint8_t>(number % 256)};
}
std::string text_of_key(int number) {
  return "10.1." + std::to_string(number / 256) + "." + std::to_string(number % 256);
}

void need(const Result<void>& done) {
  if (done) return;
  std::fprintf(stderr, "%s\n", done.error().message.c_str());
  std::exit(3);
}

// The table of the yardstick, with a set of as many members as there are pods.
void make_set() {
  std::string text = "table inet y { set pods { type ipv4_addr; elements = { ";
  for (int pod = 0; pod < kPods; ++pod) text += (pod == 0 ? "" : ", ") + text_of_key(pod);
  must_feed({"nft", "-f", "-"}, text + " }; }; }");
}

// A thousand rules in a hundred policies; every tenth pod has the same labels.
std::string policies() {
  std::string text;
  for (int policy = 0; policy < kPolicies; ++policy) {
    const std::string app = "app-" + std::to_string(policy);
    text += policy_head("a", app, "app == '" + app + "'", "Ingress");
    for (int rule = 0; rule < kRulesEach; ++rule)
      text += "  - {action: Allow, protocol: TCP, source: {selector: \"app == 'app-" +
              std::to_string((policy + rule + 1) % kPolicies) + "'\"}, destination: {ports: [" +
              std::to_string(8000 + rule) + "]}}\n";
  }
  return text;
}

std::vector<policy::Endpoint> pods(int count) {
  std::vector<policy::Endpoint> all;
  for (int pod = 0; pod < count; ++pod)
    all.push_back(local_pod("a", "pod-" + std::to_string(pod), text_of_key(pod),
                            {{"app", "app-" + std::to_string(pod % kPolicies)}}));
  return all;
}

double add_element(NetfilterSocket& socket, int number) {
  const auto start = Stopwatch::now();
  Batch batch;
  batch.set_table(NFPROTO_INET, "y");
  add_elements(batch, "pods", {{key_of(number), std::nullopt, false}});
  need(socket.commit(batch));
  return ms_since(start);
}

int run(int rounds) {
  const Fd netns = new_netns();
  enter(netns);
  make_set();
  auto backend = NftablesBackend::open({});
  if (!backend) need(fail(backend.error()));
  policy::MemoryRuleIds ids;
  const std::string text = policies();
  need((*backend)->apply(program_of(text, pods(kPods), ids)));
  auto socket = NetfilterSocket::open();
  if (!socket) need(fail(socket.error()));

  std::vector<double> element, first, apply, apply_cpu, compile, nft, nft_cpu;
  for (int round = -1; round < rounds; ++round) {
    const int number = kPods + 1000 + (kInARow + 2) * (round + 1);
    const double first_ms = add_element(*socket, number);
    std::vector<double> row;
    for (int next = 0; next < kInARow; ++next) row.push_back(add_element(*socket, number + 2 + next));
    const double element_ms = median(row);

    const Spent spent =
        spend({"nft", "add", "element", "inet", "y", "pods", "{ " + text_of_key(number + 1) + " }"});
    if (spent.code != 0) return 3;

    auto start = Stopwatch::now();
    const auto program = program_of(text, pods(kPods + round + 2), ids);
    const double compile_ms = ms_since(start);
    ::usleep(100'000);
    need((*backend)->sweep_when_due());
    start = Stopwatch::now();
    const double cpu = process_cpu_ms();
    need((*backend)->apply(program));
    if (round < 0) continue;  // the first only warms up
    apply.push_back(ms_since(start));
    apply_cpu.push_back(process_cpu_ms() - cpu);
    compile.push_back(compile_ms);
    element.push_back(element_ms);
    first.push_back(first_ms);
    nft.push_back(spent.wall_ms);
    nft_cpu.push_back(spent.cpu_ms);
  }
  std::printf("%d pods, %d rules in force; one pod more in a class that is there\n", kPods,
              kPolicies * kRulesEach);
  std::printf("  %-42s %9.3f ms\n", "one element on the kept socket", median(element));
  std::printf("  %-42s %9.3f ms\n", "the same, after a rest", median(first));
  std::printf("  %-42s %9.3f ms   CPU %8.3f ms   (%zu objects changed)\n", "apply of the whole Program",
              median(apply), median(apply_cpu), (*backend)->changed());
  std::printf("  %-42s %9.3f ms\n", "before that: policy text to Program", median(compile));
  std::printf("  %-42s %9.3f ms   CPU %8.3f ms\n", "yardstick: one nft process, one element", median(nft),
              median(nft_cpu));
  std::printf("  ratios to the nft process: element %s, after a rest %s, apply %s\n",
              to_text(paired(element, nft)).c_str(), to_text(paired(first, nft)).c_str(),
              to_text(paired(apply, nft)).c_str());
  verdict("one element / one nft process", paired(element, nft).median, 0.01);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("element_bench");
  return run(argc > 1 ? std::max(5, std::atoi(argv[1])) : 31);
}
