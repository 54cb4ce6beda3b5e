// What judging costs a packet: CPU time on the forwarding path, against the kernel's conntrack alone.
//
//   packet_bench [ROUNDS]      (root; makes network namespaces of its own and leaves nothing)
//
// Each variant has a way of its own (way.h); they take turns within each round.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "bench/programs.h"
#include "bench/way.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace std::chrono_literals;

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

void print(const char* what, const Ways& ways, const Figures& figures) {
  std::printf("%s\n", what);
  for (std::size_t i = 0; i < ways.size(); ++i)
    std::printf("  %-38s %7.0f ns CPU/packet   ratio %s\n", ways[i]->setup().name.c_str(), median(figures[i]),
                to_text(paired(figures[i], figures[0])).c_str());
}

int run(int rounds) {
  Ways ways;
  for (const Variant& variant : kVariants) ways.push_back(std::make_unique<Way>(
        WaySetup{variant.name, variant.tierlog, variant.told, variant.both_local, variant.guard, policies(variant), {}, {}}));
  pin_to_cpu(kSenderCpu);
  const SenderCpu cpu(kSenderCpu);
  for (const auto& way : ways) way->establish();
  const Figures established =
      take_turns(ways, rounds, [&](Way& way) { return way.send(cpu, kEstablishedPackets, kFlows); });
  std::vector<std::uint64_t> judged, events;
  for (const auto& way : ways) {
    judged.push_back(way->judged());
    events.push_back(way->events());
  }
  const Figures fresh = take_turns(ways, rounds, [&](Way& way) {
    way.forget_flows();
    return way.send(cpu, kNewFlows, kNewFlows);
  });
  print("established packet", ways, established);
  print("first packet of a connection, allowed and logged", ways, fresh);
  std::this_thread::sleep_for(100ms);  // the last log messages
  bool sound = true;
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const std::uint64_t directions = !kVariants[i].tierlog ? 0 : kVariants[i].both_local ? 2 : 1;
    const auto each = kNewFlows * static_cast<std::uint64_t>(rounds + 1);
    const std::uint64_t wanted = directions * each, to_be_told = kVariants[i].told ? each : wanted;
    const std::uint64_t told = ways[i]->events() - events[i], new_ones = ways[i]->judged() - judged[i];
    if (judged[i] != directions * kFlows || new_ones != wanted || told != to_be_told || ways[i]->lost() != 0) {
      sound = false;
      std::printf("  NOT SOUND: %s: %lu judged of %lu, %lu told, %lu packets lost, %lu judged to establish\n",
                  kVariants[i].name, new_ones, wanted, told, ways[i]->lost(), judged[i]);
    }
  }
  if (sound) std::printf("every packet arrived, every first packet was judged and told once a direction\n");
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
