// The flow index: rows a second and bytes a row, and how long the questions take that people ask of it.
//
//   store_bench [FOLDER [MILLIONS_OF_ROWS…]]     (default: /var/tmp 1 10)
//   store_bench make FILE MILLIONS               100 takes 17 GB and half an hour, so it can be made before,
//                                                also in parts: it goes on where the file ends
//   store_bench ask FILE                         and asked alone
//
// Yardstick, in the same run: the same records as a plain table of text with two full indexes (time, policy),
// same journal, same batches; and what the rows and indexes of the flow index cost SQLite alone. The records are those
// of a node with 200 pods, 165 a second, a fifth denied; ten millions are 17 hours. What a question costs without
// roll-ups stands beside it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <tuple>

#include "bench/support.h"
#include "store/flow_store.h"
#include "store/groups.h"
#include "store/query.h"
#include "store/rollups.h"
#include "store/row_insertion.h"
#include "store/sqlite.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using namespace tierlog::store;

constexpr std::size_t kBatch = 5000;
constexpr std::int64_t kEveryNs = 6'060'606;  // 165 records a second
constexpr std::int64_t kFirstNs = 1'795'000'000'000'000'000;
constexpr std::size_t kPods = 200, kPeers = 2000, kPartners = 12, kPolicies = 100;
constexpr std::size_t kYardstickRows = 1'000'000;
constexpr int kWarmRounds = 15, kColdRounds = 3;
constexpr std::size_t kPage = 100;

template <typename T>
T need(Result<T> result) {
  if (result) {
    if constexpr (std::is_void_v<T>)
      return;
    else
      return std::move(*result);
  }
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(3);
}

std::string policy_name(std::size_t policy) {
  return "platform/ns-" + std::to_string(policy % 20) + "/policy-" + std::to_string(policy);
}

class Traffic {
 public:
  explicit Traffic(std::int64_t from_ns) : now_(from_ns) {}
  // A few pods make most of the traffic, as everywhere.
  FlowRecord next() {
    const double skew = uniform_(random_);
    const auto pod = static_cast<std::size_t>(skew * skew * kPods);
    const std::size_t partner = random_() % kPartners;
    const bool denied = random_() % 5 == 0;
    const std::size_t peer = (pod * 37 + partner * 101) % kPeers;
    const std::size_t policy = pod % kPolicies;
    FlowRecord record;
    now_ += kEveryNs;
    record.id = id();
    record.end = from_ns(now_ - static_cast<std::int64_t>(random_() % 50'000'000));
    record.start =
        denied || random_() % 2 == 0 ? record.end : record.end - Nanoseconds(random_() % 60'000'000'000);
    record.reporter = Reporter::Destination;
    record.action = denied ? Verdict::Deny : Verdict::Allow;
    record.tier = "platform";
    record.policy = policy_name(policy);
    record.policy_kind = "NetworkPolicy";
    record.policy_namespace = "ns-" + std::to_string(policy % 20);
    record.policy_name = "policy-" + std::to_string(policy);
    record.rule_index = static_cast<int>(partner % 4);
    record.rule = RuleId{static_cast<std::uint32_t>(1000 + policy * 8 + (denied ? 4 : 0) + partner % 4)};
    record.policy_revision = 3;
    record.trace = {
        {Direction::Ingress, "security", "security//quarantine", std::nullopt, "no-match"},
        {Direction::Ingress, "platform", record.policy, record.rule_index, denied ? "deny" : "allow"}};
    record.proto = protocol::kTcp;
    record.src_port = static_cast<std::uint16_t>(32768 + random_() % 28000);
    record.dst_port = static_cast<std::uint16_t>(8000 + partner);
    record.src = of_peer(peer);
    record.dst = of_pod(pod);
    if (!denied) {
      record.connections = random_() % 2;
      record.dst_service = "ns-" + std::to_string(pod % 20) + "/web";
    }
    record.verdict_packets = denied ? 1 + random_() % 20 : 1;
    record.packets_out = denied ? record.verdict_packets : random_() % 200;
    record.packets_in = denied ? 0 : random_() % 200;
    record.bytes_out = *record.packets_out * 60;
    record.bytes_in = denied ? 0 : random_() % 200'000;
    record.tcp_flags = "s";
    record.ct_state = denied ? "new" : "established";
    return record;
  }
  std::vector<FlowRecord> batch(std::size_t count = kBatch) {
    std::vector<FlowRecord> records;
    records.reserve(count);
    while (records.size() < count) records.push_back(next());
    return records;
  }
  std::int64_t now() const { return now_; }

 private:
  static Peer of_pod(std::size_t pod) {
    return {
        *IpAddr::parse("10.244." + std::to_string(pod / 250) + "." + std::to_string(1 + pod % 250)),
        PeerKind::Pod,
        "ns-" + std::to_string(pod % 20),
        "app-" + std::to_string(pod) + "-7c9f8d6b54-x2x1z",
        "app-" + std::to_string(pod),
        {{"app", "app-" + std::to_string(pod)}, {"pod-template-hash", "7c9f8d6b54"}, {"tier", "backend"}}};
  }
  static Peer of_peer(std::size_t peer) {
    Peer made = of_pod(peer);
    made.ip = *IpAddr::parse("10.245." + std::to_string(peer / 250) + "." + std::to_string(1 + peer % 250));
    return made;
  }
  std::string id() {
    char text[64];
    const auto ms = static_cast<unsigned long long>(now_ / 1'000'000);
    const unsigned long long low = random_();
    std::snprintf(text, sizeof text, "%08llx-%04llx-7%03llx-8%03llx-%012llx", ms >> 16, ms & 0xffff,
                  low >> 52, low & 0xfff, (low >> 4) & 0xffffffffffffULL);
    return text;
  }

  std::mt19937_64 random_{20261128};
  std::uniform_real_distribution<double> uniform_{0, 1};
  std::int64_t now_;
};

// As the daemon gives them: what records have in common is shared.
class Entries {
 public:
  std::vector<FlowEntry> of(const std::vector<FlowRecord>& records) {
    std::vector<FlowEntry> entries;
    entries.reserve(records.size());
    for (const FlowRecord& record : records) entries.push_back(entry_of(record));
    return entries;
  }

 private:
  FlowEntry entry_of(const FlowRecord& record) {
    FlowEntry entry;
    entry.like = like(record);
    ++number_;
    std::memcpy(entry.id.data(), &number_, sizeof number_);
    entry.start = record.start;
    entry.end = record.end;
    entry.verdict_packets = record.verdict_packets;
    entry.packets_out = record.packets_out.value_or(0);
    entry.packets_in = record.packets_in.value_or(0);
    entry.bytes_out = record.bytes_out.value_or(0);
    entry.bytes_in = record.bytes_in.value_or(0);
    entry.connections = record.connections;
    entry.src_port = record.src_port;
    entry.dst_port = record.dst_port;
    entry.state = record.action == Verdict::Deny ? FlowState::New : FlowState::Established;
    return entry;
  }
  std::shared_ptr<const FlowRecord> like(const FlowRecord& record) {
    auto& made = likes_[{tierlog::number(record.rule), record.src.ip, record.dst.ip}];
    if (made) return made;
    FlowRecord shared = record;
    shared.id.clear();
    shared.connections.reset();
    made = std::make_shared<const FlowRecord>(std::move(shared));
    return made;
  }

  std::uint64_t number_ = 0;
  std::map<std::tuple<std::uint32_t, IpAddr, IpAddr>, std::shared_ptr<const FlowRecord>> likes_;
};

struct Files {
  enum class Life : std::uint8_t { Removed, Kept };
  Files(std::string name, Life keep) : path(std::move(name)), life(keep) {
    if (life == Life::Removed) remove();
  }
  ~Files() {
    if (life == Life::Removed) remove();
  }
  Files(const Files&) = delete;
  void remove() const {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  }
  double bytes() const {
    double sum = 0;
    for (const char* suffix : {"", "-wal"}) {
      std::error_code error;
      const auto size = std::filesystem::file_size(path + suffix, error);
      if (!error) sum += static_cast<double>(size);
    }
    return sum;
  }
  // Cold: nothing of it is in memory.
  void forget() const {
    for (const char* suffix : {"", "-wal"}) {
      const Fd file(::open((path + suffix).c_str(), O_RDONLY | O_CLOEXEC));
      if (!file) continue;
      ::fdatasync(file.get());
      ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
  }
  std::string path;
  Life life;
};

struct Speed {
  double rows_per_s = 0, cpu_us = 0, bytes_per_row = 0, worst_ms = 0;
};

// Only writing is timed, not the making of records.
class Timed {
 public:
  template <typename Write>
  void time(const Write& write) {
    const auto begun = Stopwatch::now();
    const double cpu_begun = process_cpu_ms();
    write();
    const double took = ms_since(begun);
    cpu_ += process_cpu_ms() - cpu_begun;
    wall_ += took;
    worst_ = std::max(worst_, took);
  }
  Speed of(double rows, double bytes) const { return {rows / wall_ * 1e3, cpu_ / rows * 1e3, bytes / rows, worst_}; }

 private:
  double wall_ = 0, cpu_ = 0, worst_ = 0;
};

Speed ingest(FlowStore& store, Traffic& traffic, std::size_t rows) {
  Timed timed;
  Entries entries;
  for (std::size_t done = 0; done < rows; done += kBatch) {
    const auto batch = entries.of(traffic.batch());
    timed.time([&] { need(store.append(batch, {})); });
    if (rows >= 10'000'000 && done % 1'000'000 == 0)
      std::fprintf(stderr, "\r%zu of %zu million rows", done / 1'000'000, rows / 1'000'000);
  }
  if (rows >= 10'000'000) std::fprintf(stderr, "\r\033[K");
  return timed.of(static_cast<double>(rows), 0);
}

std::vector<std::string> texts_of(const FlowRecord& r) {
  const auto number = [](auto value) { return value ? std::to_string(*value) : std::string(); };
  const std::string labels =
      R"({"app":")" + r.src.workload + R"(","pod-template-hash":"7c9f8d6b54","tier":"backend"})";
  return {r.id,
          format_rfc3339(r.start),
          format_rfc3339(r.end),
          std::string(name(r.reporter)),
          "ingress", std::string(name(r.action)), "policy",
          r.tier, r.policy, r.policy_kind, r.policy_namespace, r.policy_name,
          number(r.rule_index),
          std::to_string(tierlog::number(r.rule)),
          R"([{"tier":"security","policy":"security//quarantine"}])",
          "tcp",
          r.src.ip.to_string(),
          number(r.src_port),
          r.src.peer_namespace,
          r.src.name,
          labels,
          r.dst.ip.to_string(),
          number(r.dst_port),
          r.dst.peer_namespace,
          r.dst.name,
          labels,
          r.dst_service,
          number(r.connections),
          std::to_string(r.verdict_packets),
          number(r.packets_out), number(r.packets_in), number(r.bytes_out), number(r.bytes_in),
          r.tcp_flags, r.ct_state};
}

Speed yardstick(const std::string& folder) {
  const Files files(folder + "/tierlog-bench-text.db", Files::Life::Removed);
  auto database = need(sqlite::Database::open(files.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  const std::size_t columns = texts_of(FlowRecord{}).size();
  std::string names, marks;
  for (std::size_t i = 0; i < columns; ++i) {
    names += (i == 0 ? "" : ", ") + std::string("c") + std::to_string(i) + " TEXT";
    marks += (i == 0 ? "?" : ", ?") + std::to_string(i + 1);
  }
  need(
      database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;"
                       "PRAGMA wal_autocheckpoint = 4000; CREATE TABLE flow(" +
                       names + "); CREATE INDEX by_time ON flow(c2); CREATE INDEX by_policy ON flow(c8)"));
  auto insert = need(database.prepare("INSERT INTO flow VALUES (" + marks + ")"));
  Traffic traffic(kFirstNs);
  Timed timed;
  for (std::size_t done = 0; done < kYardstickRows; done += kBatch) {
    std::vector<std::vector<std::string>> rows;
    for (const FlowRecord& record : traffic.batch()) rows.push_back(texts_of(record));
    timed.time([&] {
      auto transaction = need(sqlite::Transaction::begin(database));
      for (const auto& row : rows) {
        insert.reset();
        for (std::size_t i = 0; i < columns; ++i) insert.bind_at(static_cast<int>(i) + 1, std::string_view(row[i]));
        need(insert.run());
      }
      need(transaction.commit());
    });
  }
  return timed.of(kYardstickRows, files.bytes());
}

// What SQLite needs for such rows and their indexes alone: no sums, no dictionaries, nothing that was told.
Speed bare_rows(const std::string& folder) {
  const Files files(folder + "/tierlog-bench-bare.db", Files::Life::Removed);
  { const auto made = need(FlowStore::open_writer(files.path, {"bench", "node-1"})); }
  auto database = need(sqlite::Database::open(files.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  need(database.execute("PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000"));
  constexpr int kColumns = 22, kRows = 32;
  auto insert = need(RowInsertion::open(
      database,
      "flow(seq, id, end_ns, span_ns, reporter, direction, action, reason, rule, src, dst, proto, src_port, dst_port,"
      " logged_by, trace, staged, verdict_packets, packets_out, bytes_out, ct_state, dst_service)",
      kColumns, kRows));
  Traffic traffic(kFirstNs);
  Entries makes;
  Timed timed;
  std::int64_t sequence = 0;
  const auto put = [&](int row, const FlowEntry& entry) {
    const FlowRecord& like = *entry.like;
    const std::int64_t numbers[] = {to_ns(entry.end), to_ns(entry.end) - to_ns(entry.start), static_cast<int>(like.reporter),
                                    static_cast<int>(like.direction), static_cast<int>(like.action),
                                    static_cast<int>(like.reason), tierlog::number(like.rule),
                                    like.src.ip.bytes[3] + like.src.ip.bytes[2] * 250, like.dst.ip.bytes[3], like.proto,
                                    *entry.src_port, *entry.dst_port, 1, tierlog::number(like.rule), 1,
                                    sqlite::as_int(entry.verdict_packets), sqlite::as_int(entry.packets_out),
                                    sqlite::as_int(entry.bytes_out)};
    insert.put(row, 0, ++sequence);
    insert.put_blob(row, 1, {reinterpret_cast<const char*>(entry.id.data()), entry.id.size()});
    int column = 2;
    for (const std::int64_t value : numbers) insert.put(row, column++, value);
    insert.put_text(row, column++, name(entry.state));
    insert.put_text(row, column, like.dst_service);
  };
  for (std::size_t done = 0; done < kYardstickRows; done += kBatch) {
    const auto entries = makes.of(traffic.batch());
    timed.time([&] {
      auto transaction = need(sqlite::Transaction::begin(database));
      for (std::size_t first = 0; first + kRows <= entries.size(); first += kRows) {
        for (std::size_t row = 0; row < kRows; ++row) put(static_cast<int>(row), entries[first + row]);
        need(insert.run());
      }
      need(transaction.commit());
    });
  }
  return timed.of(static_cast<double>(sequence), files.bytes());
}

// A question: its name and how a command asks it.
struct Question {
  const char* name;
  bool aimed;  // at 20 ms, warm
  std::function<std::size_t(FlowReader&)> ask;
};

using Field = FieldFilter::Field;

FlowQuery denied_by(const std::string& policy, std::optional<WallTime> since = {}) {
  FlowQuery query;
  query.filters = {{Field::Action, {"deny"}, false}};
  if (!policy.empty()) query.filters.push_back({Field::Policy, {policy}, false});
  query.since = since;
  query.limit = kPage;
  return query;
}

std::vector<Question> questions(std::int64_t now_ns) {
  const std::string busy = policy_name(0), quiet = policy_name(99);
  const WallTime hour_ago = from_ns(now_ns - kHourNs), day_ago = from_ns(now_ns - 24 * kHourNs);
  const auto newest = [](const std::string& policy) {
    return [policy](FlowReader& reader) { return need(reader.flows(denied_by(policy))).size(); };
  };
  const auto sums = [](const std::string& policy, WallTime since) {
    return [policy, since](FlowReader& reader) {
      return need(reader.grouped_flows(denied_by(policy, since))).size();
    };
  };
  const auto top = [](WallTime since, bool from_rows, const char* action = "deny") {
    return [since, from_rows, action](FlowReader& reader) {
      GroupQuery query;
      query.flows.filters = {{Field::Action, {action}, false}};
      query.flows.since = since;
      query.fields = need(parse_group_fields("from"));
      query.order = GroupQuery::Order::Packets;
      query.top = 10;
      query.from_rows = from_rows;
      return need(reader.groups(query)).groups.size();
    };
  };
  const auto histogram = [day_ago](bool from_rows) {
    return [day_ago, from_rows](FlowReader& reader) {
      GroupQuery query;
      query.flows.since = day_ago;
      query.fields = need(parse_group_fields("action"));
      query.bin = std::chrono::hours(1);
      query.from_rows = from_rows;
      return need(reader.groups(query)).groups.size();
    };
  };
  return {
      {"newest 100 records denied by the busiest policy", true, newest(busy)},
      {"newest 100 records denied by the quietest policy", true, newest(quiet)},
      {"denied POLICY --since 1h, the busiest policy", true, sums(busy, hour_ago)},
      {"denied POLICY --since 1h, the quietest policy", true, sums(quiet, hour_ago)},
      {"top 10 sources of denials, 1 h", true, top(hour_ago, false)},
      {"top 10 sources of denials, 24 h", true, top(day_ago, false)},
      {"top 10 sources of allowed traffic, 1 h", true, top(hour_ago, false, "allow")},
      {"top 10 sources of allowed traffic, 24 h", true, top(day_ago, false, "allow")},
      {"histogram of 24 h by hour and action", true, histogram(false)},
      {"yardstick: top 10 sources of denials, 24 h, from the rows", false, top(day_ago, true)},
      {"yardstick: top 10 sources of allowed traffic, 24 h, from the rows", false, top(day_ago, true, "allow")},
      {"yardstick: histogram of 24 h, from the rows", false, histogram(true)},
  };
}

FlowReader reader_of(const Files& files) {
  return need(FlowReader::open(files.path));
}

double ask(FlowReader& reader, const Question& question) {
  const auto begun = Stopwatch::now();
  if (question.ask(reader) == 0) {
    std::fprintf(stderr, "%s: no answer\n", question.name);
    std::exit(1);
  }
  return ms_since(begun);
}

void print_questions(const Files& files, std::int64_t now_ns, std::size_t millions) {
  std::printf("\n%-62s %12s %12s\n", ("questions at " + std::to_string(millions) + " million rows").c_str(),
              "warm ms", "cold ms");
  for (const Question& question : questions(now_ns)) {
    std::vector<double> warm, cold;
    for (int i = 0; i < (question.aimed ? kColdRounds : 1); ++i) {
      files.forget();
      auto reader = reader_of(files);
      cold.push_back(ask(reader, question));
    }
    if (!question.aimed) {  // minutes in a large file: once
      std::printf("%-62s %12s %12.2f\n", question.name, "", median(cold));
      std::fflush(stdout);
      continue;
    }
    auto reader = reader_of(files);
    ask(reader, question);
    for (int i = 0; i < kWarmRounds; ++i) warm.push_back(ask(reader, question));
    std::printf("%-62s %12.2f %12.2f\n", question.name, median(warm), median(cold));
    verdict("  warm, aim <= 20 ms", median(warm), 20);
    std::fflush(stdout);
  }
}

// The same while the writer writes as fast as it can, and what that costs the writer.
void print_while_ingesting(FlowStore& store, Traffic& traffic, const Files& files, double alone) {
  constexpr std::size_t kRows = 500'000;
  std::atomic<bool> done = false;
  std::vector<Question> all = questions(traffic.now());
  std::erase_if(all, [](const Question& question) { return !question.aimed; });
  std::vector<std::vector<double>> times(all.size());
  std::thread reading([&] {
    auto reader = reader_of(files);
    while (!done)
      for (std::size_t i = 0; i < all.size(); ++i) {
        times[i].push_back(ask(reader, all[i]));
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
  });
  double wall = 0;
  Entries entries;
  for (std::size_t written = 0; written < kRows; written += kBatch) {
    const auto batch = entries.of(traffic.batch());
    const auto begun = Stopwatch::now();
    need(store.append(batch, {}));
    wall += ms_since(begun);
  }
  done = true;
  reading.join();
  std::printf("\n%-62s %12s %12s %6s\n", "while ingesting", "median ms", "p99 ms", "n");
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!times[i].empty())
      std::printf("%-62s %12.2f %12.2f %6zu\n", all[i].name, median(times[i]), percentile(times[i], 0.99),
                  times[i].size());
  const double rate = kRows / wall * 1e3;
  if (alone > 0)
    std::printf("rows/s with a reader: %.0f, alone %.0f: %.2f\n", rate, alone, rate / alone);
  else
    std::printf("rows/s with a reader: %.0f\n", rate);
}

Speed fill(FlowStore& store, Traffic& traffic, const Files& files, std::size_t millions) {
  Speed speed = ingest(store, traffic, millions * 1'000'000);
  while (need(store.maintain(from_ns(traffic.now()), std::chrono::seconds(10)))) {
  }
  speed.bytes_per_row = files.bytes() / (static_cast<double>(millions) * 1e6);
  return speed;
}

void print_speed(const char* what, const Speed& speed) {
  std::printf("%-40s %12.0f %12.2f %12.1f %14.0f\n", what, speed.rows_per_s, speed.cpu_us,
              speed.bytes_per_row, speed.worst_ms);
}

void run(const std::string& folder, std::size_t millions, const Speed& text, const Speed& bare) {
  const Files files(folder + "/tierlog-bench-flows.db", Files::Life::Removed);
  auto store = need(FlowStore::open_writer(files.path, {"bench", "node-1"}));
  Traffic traffic(kFirstNs);
  const Speed ours = fill(store, traffic, files, millions);
  std::printf("\n=== %zu million rows\n%-40s %12s %12s %12s %14s\n", millions, "", "rows/s", "CPU us/row",
              "bytes/row", "worst batch ms");
  print_speed("flow index", ours);
  print_speed("yardstick: text, two full indexes", text);
  print_speed("the flow index's rows and indexes alone", bare);
  std::printf("rows/s: %.2f times the yardstick (aim >= 2.5); by CPU %.2f; bytes: %.2f of it (aim <= 0.3)\n",
              ours.rows_per_s / text.rows_per_s, text.cpu_us / ours.cpu_us,
              ours.bytes_per_row / text.bytes_per_row);
  std::printf("what SQLite leaves: rows and indexes alone are %.2f times the yardstick\n",
              bare.rows_per_s / text.rows_per_s);
  std::fflush(stdout);
  print_questions(files, traffic.now(), millions);
  print_while_ingesting(store, traffic, files, ours.rows_per_s);
}

// Traffic that goes on after the newest record of a file.
Traffic traffic_after(FlowStore& store, const std::string& path) {
  const auto last = need(store.last_sequence());
  const auto newest = need(need(FlowReader::open(path)).time_of(last));
  return Traffic(to_ns(newest.value_or(from_ns(kFirstNs))));
}

// A file that is made once and asked later.
void make(const std::string& path, std::size_t millions) {
  const Files files(path, Files::Life::Kept);
  auto store = need(FlowStore::open_writer(files.path, {"bench", "node-1"}));
  Traffic traffic = traffic_after(store, path);
  const std::size_t there = store.state().records / 1'000'000;
  if (there >= millions) return;
  Speed speed = fill(store, traffic, files, millions - there);
  speed.bytes_per_row = files.bytes() / static_cast<double>(store.state().records);
  print_speed("flow index", speed);
}

void ask_kept(const std::string& path) {
  const Files files(path, Files::Life::Kept);
  auto store = need(FlowStore::open_writer(files.path, {"bench", "node-1"}));
  Traffic traffic = traffic_after(store, path);
  const auto records = store.state().records;
  std::printf("%.1f bytes/row\n", files.bytes() / static_cast<double>(records));
  print_questions(files, traffic.now(), records / 1'000'000);
  print_while_ingesting(store, traffic, files, 0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 3 && words[0] == "make") {
    make(words[1], std::strtoul(words[2].c_str(), nullptr, 10));
    return 0;
  }
  if (words.size() == 2 && words[0] == "ask") {
    ask_kept(words[1]);
    return 0;
  }
  const std::string folder = words.empty() ? "/var/tmp" : words[0];
  std::vector<std::size_t> sizes;
  for (std::size_t i = 1; i < words.size(); ++i) sizes.push_back(std::strtoul(words[i].c_str(), nullptr, 10));
  if (sizes.empty()) sizes = {1, 10};
  if (std::count(sizes.begin(), sizes.end(), 0u) > 0) {
    std::fprintf(stderr, "store_bench [FOLDER [MILLIONS_OF_ROWS...]] | make FILE MILLIONS | ask FILE\n");
    return 2;
  }
  const Speed text = yardstick(folder), bare = bare_rows(folder);
  for (const std::size_t millions : sizes) run(folder, millions, text, bare);
  return 0;
}
