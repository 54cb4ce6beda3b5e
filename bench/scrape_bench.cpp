// How long a scrape of 10,000 series takes: over HTTP from a listener as the daemon has it, made from a flow
// index as large as that, alone and while records are being written; beside the time that printing the same
// lines by snprintf takes, and beside what writing takes when nobody scrapes.
//
//   build/release/bin/scrape_bench [RULES]       default 2,800: series each and those of their policies
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "bench/support.h"
#include "exporters/prometheus/collector.h"
#include "http/server.h"
#include "store/flow_store.h"
#include "tests/http/client.h"

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

// Batches of 100 records, 50 a second, as the daemon's writer brings them; how long each took.
std::vector<double> write_for(store::FlowStore& store, std::size_t rules, std::chrono::seconds time) {
  static std::uint64_t next = 0;
  std::vector<double> times;
  const auto end = bench::Stopwatch::now() + time;
  while (bench::Stopwatch::now() < end) {
    std::vector<store::FlowRecord> batch(100);
    for (store::FlowRecord& record : batch) {
      char id[40];
      std::snprintf(id, sizeof id, "018f0000-0000-7000-8000-%012llx",
                    static_cast<unsigned long long>(++next));
      record.id = id;
      record.start = record.end = SystemClock().wall();
      record.action = store::Verdict::Deny;
      record.rule = RuleId{static_cast<std::uint32_t>(next % rules + 1)};
      record.src.ip = IpAddr::v4(static_cast<std::uint32_t>(0x0a000000 + next % 5000));
      record.dst.ip = IpAddr::v4(0x0a010001);
      record.proto = protocol::kTcp;
      record.verdict_packets = 1;
    }
    const auto began = bench::Stopwatch::now();
    if (!store.insert(batch)) std::abort();
    times.push_back(bench::ms_since(began));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return times;
}

template <typename Ask>
void measure_beside(store::FlowStore& store, std::size_t rules, const Ask& ask) {
  constexpr std::chrono::seconds kTime{10};
  const auto alone = write_for(store, rules, kTime);
  std::vector<double> beside, scrapes;
  std::thread writer([&] { beside = write_for(store, rules, kTime); });
  const auto end = bench::Stopwatch::now() + kTime;
  while (bench::Stopwatch::now() < end) {
    const auto began = bench::Stopwatch::now();
    if (ask().status != 200) std::abort();
    scrapes.push_back(bench::ms_since(began));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  writer.join();
  std::printf("while 5,000 records/s are written: median %.1f ms, worst %.1f ms of %zu\n",
              bench::median(scrapes), bench::percentile(scrapes, 1), scrapes.size());
  std::printf(
      "a batch of 100 records beside these scrapes: median %.2f ms, p99 %.2f ms; yardstick, without: %.2f, "
      "%.2f\n",
      bench::median(beside), bench::percentile(beside, 0.99), bench::median(alone),
      bench::percentile(alone, 0.99));
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
  collector.start();
  http::Options free_port;
  free_port.listen = "127.0.0.1:0";
  auto server = http::Server::listen(free_port);
  if (!server) return 3;
  const auto answer = [&](const http::Request& request) {
    auto made = collector.scrape(request.accept);
    return made ? http::Response{200, made->type, std::move(made->body)}
                : http::refusal(503, made.error().message);
  };
  if (!(*server)->start({{"/metrics", answer}})) return 3;
  const auto ask = [&] { return http::testing_client::ask((*server)->port(), "/metrics"); };
  if (ask().status != 200) return 3;
  std::string body;
  const Times scrape = time_of([&] { body = ask().body; });
  const Times made = time_of([&] { static_cast<void>(collector.scrape("")); });
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
  std::printf(
      "scrape of %zu series (%zu bytes) over HTTP: median %.1f ms, worst %.1f ms of %d (aim: below 50 ms)\n",
      series, body.size(), scrape.median_ms, scrape.worst_ms, kRounds);
  std::printf("of that making the answer: median %.1f ms, worst %.1f ms\n", made.median_ms, made.worst_ms);
  std::printf("yardstick, the same lines by snprintf: median %.1f ms; ratio %.1f\n", plain.median_ms,
              scrape.median_ms / plain.median_ms);
  measure_beside(*store, rules, ask);
  server->reset();
  fs::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace tierlog

int main(int argc, char** argv) {
  return tierlog::run(argc > 1 ? static_cast<std::size_t>(std::atoi(argv[1])) : 2800);
}
