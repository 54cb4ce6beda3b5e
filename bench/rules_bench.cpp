// What the number of rules in one class costs the first packet of a connection, by look-ups and one by one.
//
//   rules_bench [ROUNDS [SHAPE]]      (root; makes network namespaces of its own and leaves nothing)
//
// Five shapes of policy, or the one whose title begins so; the packet is allowed by the last rule of each. Every
// rule has its own id and counter, and the program ends with 1 when a packet was lost or not counted by that
// last rule.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "bench/programs.h"
#include "bench/way.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace std::chrono_literals;

constexpr std::size_t kNewFlows = 10'000;
constexpr std::size_t kFewFlows = 500;  // where each costs half a millisecond
constexpr int kSizes[] = {10, 100, 1000, 10'000};
constexpr int kApps = 100;
constexpr int kPods = 2000;

// Numbers that look random and are the same in every run.
class Spread {
 public:
  explicit Spread(int seed) : state_(static_cast<std::uint64_t>(seed) + 42) {}
  unsigned below(unsigned n) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<unsigned>(state_ >> 33) % n;
  }

 private:
  std::uint64_t state_;
};

std::string net_of(unsigned number, unsigned prefix) {
  return "172." + std::to_string(16 + number / 65536) + "." + std::to_string(number / 256 % 256) + "." +
         std::to_string(number % 256) + "/" + std::to_string(prefix);
}

std::string to_nets(const std::string& action, const std::string& nets, const std::string& ports) {
  return "  - {action: " + action + ", protocol: UDP, destination: {nets: [" + nets + "], ports: [" + ports + "]}}\n";
}
std::string to_app(const std::string& action, unsigned app, const std::string& ports) {
  return "  - {action: " + action + ", protocol: UDP, destination: {selector: \"app == 'app-" +
         std::to_string(app) + "'\", ports: [" + ports + "]}}\n";
}

// Each writes rules [from, to) that the packet does not match; the last one, which it does, comes behind.
using Rules = std::string (*)(int from, int to);

std::string distinct(int from, int to) {
  std::string text;
  for (int i = from; i < to; ++i)
    text += to_nets("Deny", net_of(static_cast<unsigned>(i) * 16, 28), std::to_string(10'000 + i));
  return text;
}

std::string by_selector(int from, int to) {
  std::string text;
  Spread spread(from);
  for (int i = from; i < to; ++i)
    text += to_app(i % 4 == 0 ? "Deny" : "Allow", spread.below(kApps), std::to_string(9'000 + spread.below(100)));
  return text;
}

std::string overlapping(int from, int to) {
  std::string text;
  Spread spread(from);
  for (int i = from; i < to; ++i)
    text += to_nets(i % 2 == 0 ? "Deny" : "Allow", net_of(spread.below(1 << 20), 14 + spread.below(19)), "9000");
  return text;
}

std::string mix(int from, int to) {
  std::string text;
  Spread spread(from);
  for (int i = from; i < to; ++i) {
    const unsigned kind = spread.below(20);
    const unsigned first = 1024 + spread.below(60'000);
    if (kind < 11)
      text += to_app("Allow", spread.below(kApps), std::to_string(8'990 + spread.below(100)));
    else if (kind < 14)
      text += to_nets("Deny", net_of(spread.below(1 << 20), 24), std::to_string(8'990 + spread.below(100)));
    else if (kind < 16)
      text += to_app("Allow", spread.below(kApps), "\"" + std::to_string(first) + ":" +
                                                      std::to_string(std::min(65'535u, first + spread.below(2000))) + "\"");
    else if (kind < 17)
      text += to_app("Log", spread.below(kApps), std::to_string(8'990 + spread.below(100)));
    else if (kind < 18)
      text += "  - {action: Deny, protocol: UDP, source: {ports: [" + std::to_string(100 + spread.below(900)) +
              "]}, destination: {selector: \"app == 'app-" + std::to_string(spread.below(kApps)) + "'\"}}\n";
    else if (kind < 19)
      text += "  - {action: Deny, protocol: TCP, destination: {notPorts: [80, 443], selector: \"app == 'app-" +
              std::to_string(spread.below(kApps)) + "'\"}}\n";
    else
      text += "  - {action: Deny, protocol: UDP, destination: {nets: [" + net_of(spread.below(1 << 20), 22) +
              "], notNets: [" + net_of(spread.below(1 << 20), 26) + "]}}\n";
  }
  return text;
}

// Each range of ports has its own idea of each net: what look-ups are worst at.
std::string tangled(int from, int to) {
  std::string text;
  Spread spread(from);
  for (int i = from; i < to; ++i) {
    const unsigned first = 9'101 + spread.below(50'000);
    text += to_nets(i % 2 == 0 ? "Deny" : "Allow", net_of(spread.below(1 << 20), 14 + spread.below(15)),
                    "\"" + std::to_string(first) + ":" + std::to_string(std::min(65'535u, first + spread.below(20'000))) + "\"");
  }
  return text;
}

struct Shape {
  const char* title;
  Rules rules;
  double aim;         // 10,000 rules / 10 rules
  double aim_linear;  // 10,000 rules / the same one by one
};
constexpr Shape kShapes[] = {{"distinct nets and ports", distinct, 1.2, 0.1},
                             {"selectors and ports", by_selector, 1.2, 0.1},
                             {"nets that overlap, one port", overlapping, 1.5, 0.1},
                             {"a mix", mix, 1.5, 0.1},
                             // No class of n*n outcomes is flat: here the bound is what counts.
                             {"tangled nets and port ranges", tangled, 0, 0.25}};

std::vector<policy::Endpoint> pods_elsewhere() {
  std::vector<policy::Endpoint> pods;
  for (int i = 0; i < kPods; ++i) {
    policy::Endpoint pod = local_pod("b", "pod-" + std::to_string(i),
                                     "10.8." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1),
                                     {{"app", "app-" + std::to_string(i % kApps)}});
    pods.push_back(std::move(pod));
  }
  pods.push_back(local_pod("a", "sink", kSink, {{"app", "sink"}}));
  for (policy::Endpoint& pod : pods) pod.local = false;
  return pods;
}

std::string policy_of(const Shape& shape, int count) {
  constexpr int kInOne = 500;  // rules of one policy
  std::string text;
  for (int from = 0; from < count; from += kInOne) {
    const int to = std::min(from + kInOne, count);
    text += "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p-" +
            std::to_string(from) + "}\nspec:\n  order: " + std::to_string(from) +
            "\n  selector: \"projectcalico.org/name == 'source'\"\n  types: [Egress]\n  egress:\n" +
            shape.rules(from, std::min(to, count - 1));
    if (to == count)
      text +=
          "  - {action: Allow, protocol: UDP, destination: {selector: \"app == 'sink'\", ports: [\"9000:9100\"]}}\n";
  }
  return text;
}

struct Measured {
  double flat = 0, linear_at_1000 = 0, of_linear = 0;
  bool sound = true;
};

Measured measure(const Shape& shape, int rounds, const SenderCpu& cpu) {
  const auto others = pods_elsewhere();
  dataplane::nftables::TableOptions one_by_one;
  one_by_one.classes.plain_matches = 1'000'000;
  Ways ways;
  for (const int count : kSizes)
    ways.push_back(std::make_unique<Way>(WaySetup{"look-ups, " + std::to_string(count) + " rules", true, false, false,
                                                  false, policy_of(shape, count), others, {}}));
  for (const int count : kSizes)
    ways.push_back(std::make_unique<Way>(WaySetup{"one by one, " + std::to_string(count) + " rules", true, false, false,
                                                  false, policy_of(shape, count), others, one_by_one}));
  std::vector<std::uint64_t> wanted(ways.size());
  const auto flows_of = [&](std::size_t i) { return i == ways.size() - 1 ? kFewFlows : kNewFlows; };
  const Figures figures = take_turns(ways, rounds, [&](Way& way) {
    const auto i = static_cast<std::size_t>(
        std::find_if(ways.begin(), ways.end(), [&](const auto& other) { return other.get() == &way; }) - ways.begin());
    way.forget_flows();
    wanted[i] += flows_of(i);
    return way.send(cpu, flows_of(i), flows_of(i));
  });
  Measured result;
  std::printf("%s\n", shape.title);
  for (std::size_t i = 0; i < ways.size(); ++i) {
    std::printf("  %-28s %8.0f ns CPU/packet   / look-ups at 10: %s   put into the kernel in %.0f ms\n",
                ways[i]->setup().name.c_str(), median(figures[i]), to_text(paired(figures[i], figures[0])).c_str(),
                ways[i]->apply_ms());
    if (ways[i]->judged() == wanted[i] && ways[i]->lost() == 0) continue;
    result.sound = false;
    std::printf("  NOT SOUND: %lu counted by policies of %lu, %lu packets lost\n", ways[i]->judged(), wanted[i],
                ways[i]->lost());
  }
  result.flat = paired(figures[3], figures[0]).median;
  result.linear_at_1000 = paired(figures[6], figures[0]).median;
  result.of_linear = paired(figures[3], figures[7]).median;
  return result;
}

int run(int rounds, std::string_view wanted) {
  pin_to_cpu(kSenderCpu);
  const SenderCpu cpu(kSenderCpu);
  bool sound = true;
  for (const Shape& shape : kShapes) {
    if (!std::string_view(shape.title).starts_with(wanted)) continue;
    const Measured measured = measure(shape, rounds, cpu);
    sound = sound && measured.sound;
    if (shape.aim > 0) verdict("10,000 rules / 10 rules", measured.flat, shape.aim);
    verdict("10,000 rules / the same one by one", measured.of_linear, shape.aim_linear);
    std::printf("  control: 1,000 rules one by one / 10 rules by look-ups = %.1f\n", measured.linear_at_1000);
  }
  return sound ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("rules_bench");
  return run(argc > 1 ? std::max(3, std::atoi(argv[1])) : 7, argc > 2 ? argv[2] : "");
}
