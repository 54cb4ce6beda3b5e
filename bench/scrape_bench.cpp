// How long a scrape of 10,000 series takes, made from a flow index as large as that, beside the time that
// printing the same lines by snprintf takes.
//
//   build/release/bin/scrape_bench [RULES]       default 2,600: four series each and those of their policies
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support.h"
#include "exporters/prometheus/collector.h"
#include "store/flow_store.h"

namespace tierlog {
namespace {

constexpr int kRounds = 30;
constexpr std::size_t kRulesOfAPolicy = 13;

store::Catalog catalog_of(std::size_t rules) {
  store::Catalog catalog;
  catalog.tiers.push_back({"default", 1'000'000.0, "Deny", 0});
  for (std::size_t i = 0; i < rules; ++i) {
    const std::string name = "policy-" + std::to_string(i / kRulesOfAPolicy);
    const std::string space = "namespace-" + std::to_string(i / kRulesOfAPolicy % 50);
    if (i % kRulesOfAPolicy == 0) {
      store::PolicyRow policy;
      policy.display = "default/" + space + "/" + name;
      policy.tier = "default";
      policy.kind = "NetworkPolicy";
      policy.short_kind = "NP";
      policy.policy_namespace = space;
      policy.name = name;
      policy.position = static_cast<int>(i / kRulesOfAPolicy);
      catalog.policies.push_back(policy);
    }
    store::RuleRow rule;
    rule.id = RuleId{static_cast<std::uint32_t>(i + 1)};
    rule.policy = catalog.policies.back().display;
    rule.policy_kind = "NetworkPolicy";
    rule.tier = "default";
    rule.policy_namespace = space;
    rule.policy_name = name;
    rule.rule_index = static_cast<int>(i % kRulesOfAPolicy);
    rule.action = i % 2 == 0 ? "Allow" : "Deny";
    rule.reason = "policy";
    catalog.rules.push_back(rule);
  }
  return catalog;
}

struct Times {
  double median_ms = 0, worst_ms = 0;
};

template <typename Work>
Times time_of(const Work& work) {
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = bench::Stopwatch::now();
    work();
    times.push_back(bench::ms_since(start));
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.back()};
}

int run(std::size_t rules) {
  namespace fs = std::filesystem;
  const std::string folder =
      (fs::temp_directory_path() / ("tierlog-scrape-" + std::to_string(::getpid()))).string();
  fs::create_directories(folder);
  auto store = store::FlowStore::open_writer(folder + "/flows.db", {"cluster", "node"});
  if (!store || !store->put_catalog(catalog_of(rules))) return 3;
  std::vector<store::RuleCount> counts;
  for (std::uint32_t i = 1; i <= rules; ++i) counts.push_back({RuleId{i}, 1000 + i, 64'000 + i});
  if (!store->put_counts(counts, {}, SystemClock().wall())) return 3;
  prometheus::Options options;
  options.version = "bench";
  options.node = "node-1";
  options.cluster = "cluster-1";
  options.flows_path = folder + "/flows.db";
  options.tally_file = folder + "/metrics.json";
  options.rules = true;
  SystemClock clock;
  const auto health = std::make_shared<const prometheus::Health>();
  prometheus::Collector collector(
      options, [&] { return health; }, nullptr, clock);
  std::string body;
  const Times scrape = time_of([&] {
    auto answer = collector.scrape("");
    if (answer) body = std::move(answer->body);
  });
  std::size_t series = 0;
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t end = std::min(body.find('\n', at), body.size());
    if (body[at] != '#') {
      ++series;
      lines.push_back(body.substr(at, end - at));
    }
    at = end + 1;
  }
  std::string printed;
  const Times plain = time_of([&] {
    printed.clear();
    char line[1024];
    for (const std::string& one : lines) {
      const int length = std::snprintf(line, sizeof line, "%s %d\n", one.c_str(), 1);
      printed.append(line, static_cast<std::size_t>(length));
    }
  });
  std::printf("scrape of %zu series (%zu bytes): median %.1f ms, worst %.1f ms of %d (aim: below 50 ms)\n",
              series, body.size(), scrape.median_ms, scrape.worst_ms, kRounds);
  std::printf("yardstick, the same lines by snprintf: median %.1f ms; ratio %.1f\n", plain.median_ms,
              scrape.median_ms / plain.median_ms);
  fs::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace tierlog

int main(int argc, char** argv) {
  return tierlog::run(argc > 1 ? static_cast<std::size_t>(std::atoi(argv[1])) : 2600);
}
