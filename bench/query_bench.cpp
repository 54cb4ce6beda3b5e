// How fast recorded flows are judged again: `tierlog diff` and `tierlog explain`, from one flow index.
//
//   query_bench [RECORDS]     (no root; default 1,000,000 records of 200 pods in a temporary folder)
//
// Yardstick of the same run: plain SQLite that groups the same records by pair, port and rule, which is the
// least that any answer about distinct flows must read.
#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "bench/support.h"
#include "logger/rule_names.h"
#include "policy/explain.h"
#include "policy/load.h"
#include "query/moment.h"
#include "query/replay.h"
#include "store/flow_store.h"

namespace {

namespace fs = std::filesystem;
using namespace tierlog;
using bench::ms_since;
using bench::Stopwatch;

constexpr int kPods = 200, kTenants = 20, kDistinct = 20'000;
constexpr std::size_t kBatch = 10'000;

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(3);
}

// A policy for each tenant: its own pods on 5432 and 8080, everybody on 9100.
std::string policies(const char* port) {
  std::string text;
  for (int tenant = 0; tenant < kTenants; ++tenant)
    text +=
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: t" +
        std::to_string(tenant) +
        "}\nspec:\n  selector: all()\n  types: [Ingress]\n  ingress:\n"
        "  - {action: Allow, protocol: TCP, source: {selector: all()}, destination: {ports: [5432, 8080]}}\n"
        "  - {action: Allow, protocol: TCP, destination: {ports: [" +
        std::string(port) + "]}}\n  - {action: Deny, source: {selector: role == 'batch'}}\n";
  return text;
}

std::shared_ptr<policy::Cluster> cluster() {
  auto made = std::make_shared<policy::Cluster>();
  for (int i = 0; i < kPods; ++i) {
    policy::Endpoint pod;
    pod.endpoint_namespace = "t" + std::to_string(i % kTenants);
    pod.name = "web-" + std::to_string(i);
    pod.workload = "web";
    pod.labels = {{"role", i % 7 == 0 ? "batch" : "web"}, {"app", "a" + std::to_string(i % 5)}};
    pod.addresses = {IpAddr::v4(0x0a000000u + static_cast<std::uint32_t>(i + 1))};
    pod.local = true;
    made->endpoints.push_back(std::move(pod));
  }
  return made;
}

class NotedIds final : public policy::RuleIdRegistry {
 public:
  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override {
    auto given = ids_.identify(keys);
    for (std::size_t i = 0; i < keys.size(); ++i)
      noted.push_back({store::key_hash(keys[i].text()), (*given)[i]});
    return given;
  }
  std::vector<store::KnownRule> noted;

 private:
  policy::MemoryRuleIds ids_;
};

store::Peer peer_of(const policy::Endpoint& pod) {
  return {pod.addresses.front(),  store::PeerKind::Pod,
          pod.endpoint_namespace, pod.name,
          pod.workload,           pod.labels};
}

// What the logger would have written of a connection's ingress.
store::FlowRecord record_of(const policy::Program& program, const std::vector<store::RuleRow>& rows,
                            const policy::Endpoint& from, const policy::Endpoint& to, std::uint16_t port) {
  const policy::Packet packet{
      from.addresses.front(), to.addresses.front(), protocol::kTcp, 40000, port, 0, 0};
  const auto verdict =
      policy::evaluate_direction(program, *program.enforced(packet.destination), Direction::Ingress, packet);
  store::FlowRecord record;
  record.reporter = store::Reporter::Destination;
  record.action = verdict.action == policy::Action::Allow ? store::Verdict::Allow : store::Verdict::Deny;
  record.rule = verdict.rule;
  record.reason = Reason::Policy;
  for (const store::RuleRow& row : rows)
    if (row.id == verdict.rule) {
      record.tier = row.tier;
      record.policy = row.policy;
      record.policy_kind = row.policy_kind;
      record.rule_index = row.rule_index;
    }
  record.proto = protocol::kTcp;
  record.dst_port = port;
  record.src = peer_of(from);
  record.dst = peer_of(to);
  record.verdict_packets = 1;
  record.connections = 1;
  record.bytes_out = 1000;
  record.bytes_in = 5000;
  return record;
}

void fill(const std::string& path, std::size_t records) {
  auto store = store::FlowStore::open_writer(path, {"bench", "node"});
  if (!store) die(store.error().message);
  const auto pods = cluster();
  const std::string text = policies("9100");
  policy::Loaded loaded = policy::load_text(text, "bench.yaml");
  if (loaded.findings.has_errors()) die(loaded.findings.to_string());
  NotedIds ids;
  auto program = policy::compile(loaded.set, pods, ids, {.scope = policy::CompileOptions::Scope::Local});
  if (!program) die(program.error().message);
  const WallTime begin = SystemClock().wall() - std::chrono::hours(24);
  const auto rows = logger::rule_rows(*program);
  if (auto done = store->put_catalog(logger::make_catalog(*program, begin)); !done) die(done.error().message);
  if (auto done = store->put_moment({begin, 1, true, {{"bench.yaml", text}}, {}}, *pods, ids.noted); !done)
    die(done.error().message);
  std::mt19937 random(1);
  std::vector<store::FlowRecord> kinds;
  for (int i = 0; i < kDistinct; ++i) {
    constexpr std::uint16_t kPorts[] = {5432, 8080, 9100, 22};
    kinds.push_back(record_of(*program, rows, pods->endpoints[random() % kPods],
                              pods->endpoints[random() % kPods], kPorts[random() % 4]));
  }
  std::vector<store::FlowRecord> batch;
  for (std::size_t i = 0; i < records; ++i) {
    store::FlowRecord record = kinds[random() % kDistinct];
    record.id = "b" + std::to_string(i);
    record.src_port = static_cast<std::uint16_t>(1024 + random() % 60000);
    record.start = record.end = begin + std::chrono::microseconds(1) +
                                std::chrono::milliseconds(80) * static_cast<std::int64_t>(i) * 1'000'000 /
                                    static_cast<std::int64_t>(records);
    batch.push_back(std::move(record));
    if (batch.size() < kBatch && i + 1 < records) continue;
    if (auto done = store->insert(batch); !done) die(done.error().message);
    batch.clear();
  }
}

double plain_sqlite_ms(const std::string& path) {
  sqlite3* database = nullptr;
  sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READONLY, nullptr);
  sqlite3_stmt* statement = nullptr;
  const auto start = Stopwatch::now();
  sqlite3_prepare_v2(database,
                     "SELECT src, dst, dst_port, proto, rule, count(*), sum(bytes_out), max(seq) FROM flow"
                     " GROUP BY 1, 2, 3, 4, 5",
                     -1, &statement, nullptr);
  std::size_t rows = 0;
  while (sqlite3_step(statement) == SQLITE_ROW) ++rows;
  const double ms = ms_since(start);
  sqlite3_finalize(statement);
  sqlite3_close(database);
  if (rows == 0) die("the yardstick read nothing");
  return ms;
}

void measure_diff(const std::string& path, std::size_t records) {
  auto reader = store::FlowReader::open(path);
  if (!reader) die(reader.error().message);
  const policy::Loaded proposed = policy::load_text(policies("9101"), "new.yaml");
  std::vector<double> ours, plain;
  std::size_t groups = 0;
  for (int round = 0; round < 5; ++round) {
    plain.push_back(plain_sqlite_ms(path));
    const auto start = Stopwatch::now();
    const auto replayed = query::replay(*reader, proposed.set, {});
    ours.push_back(ms_since(start));
    if (!replayed) die(replayed.error().message);
    if (replayed->coverage.replayed != records || !replayed->changes_a_verdict())
      die("diff did not judge what it was given: " + std::to_string(replayed->coverage.replayed));
    groups = replayed->changes.size();
  }
  const double ms = bench::median(ours);
  std::printf("diff: %zu records, %d distinct flows, %zu groups change: median %.0f ms = %.0f records/s\n",
              records, kDistinct, groups, ms, static_cast<double>(records) / ms * 1000);
  std::printf("yardstick: plain SQLite groups the same records: median %.0f ms\n", bench::median(plain));
  std::printf("diff / yardstick: %s\n", bench::to_text(bench::paired(ours, plain)).c_str());
}

void measure_explain(const std::string& path) {
  auto reader = store::FlowReader::open(path);
  const WallTime now = SystemClock().wall();
  constexpr int kMoments = 20, kPackets = 20'000;
  auto start = Stopwatch::now();
  std::optional<policy::Program> program;
  for (int i = 0; i < kMoments; ++i) {
    const auto past = query::past_at(*reader, now);
    if (!past) die(past.error().message);
    auto made = query::program_of(*reader, *past);
    if (!made) die(made.error().message);
    program = std::move(*made);
  }
  std::printf("explain --at: policies and pods of a moment (%d policies, %d pods) made again in %.1f ms\n",
              kTenants, kPods, ms_since(start) / kMoments);
  std::size_t steps = 0;
  start = Stopwatch::now();
  for (int i = 0; i < kPackets; ++i) {
    const policy::Packet packet{IpAddr::v4(0x0a000001u + static_cast<std::uint32_t>(i % kPods)),
                                IpAddr::v4(0x0a000001u + static_cast<std::uint32_t>(i * 7 % kPods)),
                                protocol::kTcp,
                                40000,
                                static_cast<std::uint16_t>(i % 3 == 0 ? 22 : 8080),
                                0,
                                0};
    const auto explained = policy::explain(*program, packet);
    if (explained.ingress) steps += explained.ingress->steps.size();
  }
  std::printf("explain: %.0f explanations/s, %zu steps in all\n", kPackets / ms_since(start) * 1000, steps);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t records = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
  std::string folder = (fs::temp_directory_path() / "tierlog-query-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr || records == 0) die("usage: query_bench [RECORDS]");
  const std::string path = folder + "/flows.db";
  const auto start = Stopwatch::now();
  fill(path, records);
  std::printf("filled %zu records in %.0f ms, %.0f bytes a record\n", records, ms_since(start),
              static_cast<double>(fs::file_size(path)) / static_cast<double>(records));
  measure_diff(path, records);
  measure_explain(path);
  fs::remove_all(folder);
  return 0;
}
