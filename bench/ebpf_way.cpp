#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "bench/ebpf_bench.h"
#include "bench/programs.h"
#include "bench/way.h"

namespace tierlog::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kEstablishedPackets = 40'000;
constexpr std::size_t kNewFlows = 20'000;

// `rules` that do not match, before the one that allows, in each direction; each policy has at most 1,000.
std::string policies(int rules) {
  std::string text;
  for (const char* direction : {"Egress", "Ingress"}) {
    const bool out = direction[0] == 'E';
    for (int from = 0; from < rules; from += 1000) {
      text += policy_head("a", std::string("p") + (out ? "e" : "i") + std::to_string(10'000 + from), "all()", direction);
      for (int i = from; i < std::min(rules, from + 1000); ++i)
        text += std::string("  - {action: Deny, protocol: UDP, ") + (out ? "destination" : "source") + ": {nets: [172." +
                std::to_string(16 + i / 256) + "." + std::to_string(i % 256) + ".0/24]}}\n";
    }
    text += policy_head("a", std::string("q") + (out ? "e" : "i"), "all()", direction);
    text += "  - {action: Allow, protocol: UDP, destination: {ports: [\"9000:9100\"]}}\n  - {action: Deny}\n";
  }
  return text;
}

WaySetup setup(const char* name, bool programs, bool both_local, int rules, bool tracks = false) {
  WaySetup made;
  made.name = name;
  made.programs = programs;
  made.both_local = both_local;
  made.tracks = tracks;
  made.policies = policies(rules);
  return made;
}

void print(const char* what, const Ways& ways, const Figures& figures) {
  std::printf("%s\n", what);
  for (std::size_t i = 0; i < ways.size(); ++i)
    std::printf("  %-44s %7.0f ns CPU/packet   / conntrack alone %s\n", ways[i]->setup().name.c_str(), median(figures[i]),
                to_text(paired(figures[i], figures[0])).c_str());
}

}  // namespace

void beside_nftables(int rounds) {
  enum { kAlone, kTables, kPrograms, kBeside, kMany, kTablesPair, kProgramsPair };
  Ways ways;
  WaySetup alone;
  alone.name = "conntrack alone";
  alone.tierlog = false;
  ways.push_back(std::make_unique<Way>(alone));
  for (const WaySetup& one :
       {setup("nftables, pod -> outside, 10 rules", false, false, 10), setup("eBPF, pod -> outside, 10 rules", true, false, 10),
        setup("eBPF beside conntrack, 10 rules", true, false, 10, true),
        setup("eBPF, pod -> outside, 10,000 rules", true, false, 10'000),
        setup("nftables, pod -> pod, 10 rules", false, true, 10), setup("eBPF, pod -> pod, 10 rules", true, true, 10)})
    ways.push_back(std::make_unique<Way>(one));
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
  std::printf("the whole way through a node, %d rounds by turns:\n", rounds);
  print("established packet, 1,000 flows in turn", ways, established);
  print("first packet of a connection, allowed and told", ways, fresh);
  std::this_thread::sleep_for(100ms);
  bool sound = true;
  for (std::size_t i = 0; i < ways.size(); ++i) {
    const std::uint64_t directions = !ways[i]->setup().tierlog ? 0 : ways[i]->setup().both_local ? 2 : 1;
    const std::uint64_t wanted = directions * kNewFlows * static_cast<std::uint64_t>(rounds + 1);
    const std::uint64_t told = ways[i]->events() - events[i], new_ones = ways[i]->judged() - judged[i];
    if (new_ones == wanted && told == wanted && ways[i]->lost() == 0) continue;
    sound = false;
    std::printf("  NOT SOUND: %s: %llu judged of %llu, %llu told, %llu packets lost\n", ways[i]->setup().name.c_str(),
                static_cast<unsigned long long>(new_ones), static_cast<unsigned long long>(wanted),
                static_cast<unsigned long long>(told), static_cast<unsigned long long>(ways[i]->lost()));
  }
  if (sound) std::printf("every packet arrived, every first packet was judged and told once a direction\n");
  verdict("established: eBPF / nftables", paired(established[kPrograms], established[kTables]).median, 1.0);
  verdict("established: eBPF beside conntrack / nftables", paired(established[kBeside], established[kTables]).median, 1.0);
  verdict("established, pod -> pod: eBPF / nftables", paired(established[kProgramsPair], established[kTablesPair]).median, 1.0);
  verdict("first packet: eBPF / nftables", paired(fresh[kPrograms], fresh[kTables]).median, 1.0);
  verdict("first packet, eBPF: 10,000 rules / 10", paired(fresh[kMany], fresh[kPrograms]).median, 1.3);
}

}  // namespace tierlog::bench
