#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/ebpf_bench.h"
#include "bench/programs.h"
#include "bench/way.h"

namespace tierlog::bench {
namespace {

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

}  // namespace

bool beside_nftables(int rounds) {
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
  std::printf("the whole way through a node, %d rounds by turns:\n", rounds);
  const auto [established, fresh, sound] = measure_packets(ways, rounds, kEstablishedPackets, kNewFlows);
  verdict("established: eBPF / nftables", paired(established[kPrograms], established[kTables]).median, 1.0);
  verdict("established: eBPF beside conntrack / nftables", paired(established[kBeside], established[kTables]).median, 1.0);
  verdict("established, pod -> pod: eBPF / nftables", paired(established[kProgramsPair], established[kTablesPair]).median, 1.0);
  verdict("first packet: eBPF / nftables", paired(fresh[kPrograms], fresh[kTables]).median, 1.0);
  verdict("first packet, eBPF: 10,000 rules / 10", paired(fresh[kMany], fresh[kPrograms]).median, 1.3);
  return sound;
}

}  // namespace tierlog::bench
