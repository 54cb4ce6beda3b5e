// What judging costs a packet: CPU time on the forwarding path, against the kernel's conntrack alone.
//
//   packet_bench [ROUNDS]      (root; makes network namespaces of its own and leaves nothing)
//
// Each variant has a way of its own (way.h); they take turns within each round.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "bench/programs.h"
#include "bench/way.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;

constexpr std::size_t kEstablishedPackets = 60'000;
constexpr std::size_t kNewFlows = 20'000;

struct Variant {
  const char* name;
  bool tierlog = true;
  bool both_local = false;  // source and sink are pods of the node: two directions are judged and logged
  bool guard = true;
  int rules = 10;  // that do not match, before the one that allows, in each direction
  bool told = false;
};
constexpr Variant kVariants[] = {
    {"conntrack alone", false},
    {"pod -> outside", true, false, true, 10},
    {"pod -> outside, no interface guard", true, false, false, 10},
    {"pod -> pod on the node", true, true, true, 10},
    {"pod -> outside, 100 rules before", true, false, true, 100},
    {"conntrack and one rule that counts, marks, logs", false, false, false, 0, true},
};

std::string policies(const Variant& variant) {
  std::string text;
  for (const char* direction : {"Egress", "Ingress"}) {
    text += policy_head("a", std::string("p-") + (direction[0] == 'E' ? "e" : "i"), "all()", direction);
    const char* side = direction[0] == 'E' ? "destination" : "source";
    for (int i = 0; i < variant.rules; ++i)
      text += "  - {action: Deny, protocol: UDP, " + std::string(side) + ": {nets: [172.16." +
              std::to_string(i) + ".0/24]}}\n";
    text += "  - {action: Allow, protocol: UDP, destination: {ports: [\"9000:9100\"]}}\n  - {action: Deny}\n";
  }
  return text;
}

int run(int rounds) {
  Ways ways;
  for (const Variant& variant : kVariants) ways.push_back(std::make_unique<Way>(
        WaySetup{variant.name, variant.tierlog, variant.told, variant.both_local, variant.guard, policies(variant), {}, {}}));
  const auto [established, fresh, sound] = measure_packets(ways, rounds, kEstablishedPackets, kNewFlows);
  verdict("established packet / conntrack alone", paired(established[1], established[0]).median, 1.1);
  verdict("the same between two pods", paired(established[3], established[0]).median, 1.1);
  std::printf("of a first packet, ours / one rule that counts, marks and logs: %s\n",
              to_text(paired(fresh[1], fresh[5])).c_str());
  verdict("new logged flow / conntrack alone", paired(fresh[1], fresh[0]).median, 1.5);
  verdict("the same between two pods, judged and logged twice", paired(fresh[3], fresh[0]).median, 1.5);
  std::printf("the interface guard's share: %.0f ns of an established packet, %.0f ns of a first one\n",
              median(established[1]) - median(established[2]), median(fresh[1]) - median(fresh[2]));
  return sound ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("packet_bench");
  return run(argc > 1 ? std::max(5, std::atoi(argv[1])) : 11);
}
