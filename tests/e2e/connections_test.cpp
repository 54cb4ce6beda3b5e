// Bytes of connections and the books, on a running node: the sum over all records of a connection is what
// conntrack counted, to the byte, also across a killed daemon; and no verdict is lost in silence.
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "dataplane/conntrack.h"
#include "endpoints/control.h"
#include "lab/socket_address.h"
#include "tests/e2e/live_node.h"
#include "tests/e2e/matrix.h"

namespace tierlog::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::uint16_t kPort = 5432;
constexpr std::uint16_t kDeniedPort = 9;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- name: db
  namespace: a
  ips: [10.1.0.6, "fd01::6"]
  ports: [{name: sql, protocol: TCP, port: 5432}, {name: sqlu, protocol: UDP, port: 5432}]
)";

constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: projectcalico.org/name == 'db'
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: UDP, destination: {ports: [9]}}
  - {action: Allow}
)";

// From the client to the server, as both a record and conntrack name it.
struct Name {
  std::string source, destination, proto;
  std::uint16_t source_port = 0, destination_port = 0;
  auto operator<=>(const Name&) const = default;
};
struct Sum {
  std::uint64_t packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0;
  bool operator==(const Sum&) const = default;
  void add(const Sum& other) {
    packets_out += other.packets_out;
    bytes_out += other.bytes_out;
    packets_in += other.packets_in;
    bytes_in += other.bytes_in;
  }
};
void PrintTo(const Sum& s, std::ostream* out) {
  *out << s.packets_out << "/" << s.bytes_out << " out, " << s.packets_in << "/" << s.bytes_in << " in";
}
using Sums = std::map<Name, Sum>;

Fd connect_to(const IpAddr& to, int type) {
  const lab::SocketAddress peer(to, kPort);
  Fd socket(::socket(peer.family(), type | SOCK_CLOEXEC, 0));
  const timeval limit{5, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::connect(socket.get(), peer.get(), peer.size()) != 0) return {};
  return socket;
}

// Sends that many bytes and takes them back.
bool echo(const Fd& socket, std::size_t bytes) {
  std::string data(bytes, 'x');
  std::size_t got = 0;
  for (std::size_t sent = 0; sent < bytes;) {
    const ssize_t n =
        ::send(socket.get(), data.data() + sent, std::min<std::size_t>(bytes - sent, 16'000), 0);
    if (n <= 0) return false;
    sent += static_cast<std::size_t>(n);
    while (got < sent) {
      const ssize_t back = ::recv(socket.get(), data.data(), data.size(), 0);
      if (back <= 0) return false;
      got += static_cast<std::size_t>(back);
    }
  }
  return true;
}

int short_connections(const IpAddr& to, int count) {
  for (int i = 0; i < count; ++i) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
      const Fd socket = connect_to(to, type);
      if (!socket || !echo(socket, 1000)) return 1;
    }
    if (lab::try_ping(to, 1s) != lab::Attempt::Connected) return 2;
  }
  return 0;
}

struct Waiting : LiveNode {
  using LiveNode::becomes;
};

class Connections : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    folder_ = fs::temp_directory_path() / ("tierlog-connections-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    std::ofstream(folder_ / "topology.yaml") << kTopology;
    std::ofstream(folder_ / "policy.yaml") << kPolicy;
    lab::LabOptions options;
    options.name = "e2e-connections-" + std::to_string(::getpid());
    options.policies = {(folder_ / "policy.yaml").string()};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    options.daemon_config = {{"flow_interval", "1s"}, {"deny_interval", "1s"}};
    auto lab = lab::Lab::up((folder_ / "topology.yaml").string(), options);
    ASSERT_TRUE(lab) << lab.error().message;
    lab_.emplace(std::move(*lab));
  }
  void TearDown() override {
    lab_.reset();
    fs::remove_all(folder_);
  }

  IpAddr db(Family family) const { return *lab_->address("a/db", family); }

  nlohmann::json books() const {
    const auto answer = endpoints::call(lab_->socket(), {{"op", "status"}});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? (*answer)["status"]["books"] : nlohmann::json();
  }

  // Ends every connection of the node and gives what conntrack had counted.
  Sums end_all() const {
    const std::string file = (folder_ / "ended").string();
    const auto done = lab_->run_in("node", [&] {
      auto conntrack = dataplane::Conntrack::open();
      if (!conntrack) return 1;
      std::vector<dataplane::Connection> all;
      if (!(*conntrack)->dump([&](const auto& entry) { all.push_back(entry); })) return 2;
      for (const auto& entry : all)
        if (!(*conntrack)->remove(entry)) return 3;
      std::vector<dataplane::Connection> ended;
      for (bool more = true; more;) more = (*conntrack)->drain(ended, 10'000).value_or(false);
      std::ofstream out(file);
      for (const auto& entry : ended) {
        const auto view = forward_view(entry);
        out << view.source.to_string() << ' ' << view.destination.to_string() << ' '
            << protocol::name(view.protocol) << ' ' << view.source_port << ' ' << view.destination_port << ' '
            << entry.packets_out << ' ' << entry.bytes_out << ' ' << entry.packets_in << ' ' << entry.bytes_in
            << '\n';
      }
      return 0;
    });
    EXPECT_EQ(done.value_or(-1), 0);
    Sums sums;
    std::ifstream in(file);
    Name name;
    Sum sum;
    while (in >> name.source >> name.destination >> name.proto >> name.source_port >> name.destination_port >>
           sum.packets_out >> sum.bytes_out >> sum.packets_in >> sum.bytes_in)
      sums[name].add(sum);
    return sums;
  }

  struct Recorded {
    Sums sums;
    std::map<Name, std::uint64_t> connections, intervals;
  };
  Recorded recorded(store::Reporter reporter) const {
    Recorded found;
    const Index index = Index::read(lab_->database());
    for (const store::FlowRecord& r : index.records()) {
      if (r.reporter != reporter || r.action != store::Verdict::Allow || !r.connections) continue;
      const Name name{r.src.ip.to_string(), r.dst.ip.to_string(), protocol::name(r.proto),
                      r.src_port.value_or(0), r.dst_port.value_or(0)};
      found.sums[name].add({r.packets_out.value_or(0), r.bytes_out.value_or(0), r.packets_in.value_or(0),
                            r.bytes_in.value_or(0)});
      found.connections[name] += *r.connections;
      if (r.ct_state == "established") ++found.intervals[name];
    }
    return found;
  }

  void execute(const char* sql) const {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(lab_->database().c_str(), &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 5000);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, &message), SQLITE_OK) << message;
    sqlite3_close(database);
  }

  store::RuleActivity rule(int index) const {
    auto reader = store::FlowReader::open(lab_->database());
    EXPECT_TRUE(reader);
    const auto rules = reader->rules("db");
    EXPECT_TRUE(rules);
    for (const store::RuleActivity& activity : *rules)
      if (activity.rule.rule_index == index) return activity;
    ADD_FAILURE() << "no rule " << index;
    return {};
  }

  fs::path folder_;
  std::optional<lab::Lab> lab_;
};

TEST_F(Connections, EveryByteOfEveryConnectionIsInItsRecordsOnceAView) {
  constexpr std::size_t kBurst = 100'000;
  constexpr int kBursts = 3;
  constexpr int kShort = 5;
  for (const Family family : {Family::V4, Family::V6}) {
    const IpAddr to = db(family);
    const auto went = lab_->run_in("a/web", [&] {
      const Fd stream = connect_to(to, SOCK_STREAM);
      for (int i = 0; i < kBursts; ++i) {
        if (!stream || !echo(stream, kBurst)) return 10;
        if (const int failed = short_connections(to, kShort); failed != 0) return failed;
        std::this_thread::sleep_for(1100ms);
      }
      return 0;
    });
    EXPECT_EQ(went.value_or(-1), 0);
    EXPECT_EQ(lab_->run_in("outside", [&] { return short_connections(to, kShort); }).value_or(-1), 0);
  }
  flush(*lab_);
  const Sums counted = end_all();
  flush(*lab_);
  ASSERT_GE(counted.size(), 2u * (1 + 4 * kShort * 2));
  const Recorded ingress = recorded(store::Reporter::Destination);
  const Recorded egress = recorded(store::Reporter::Source);
  std::size_t long_ones = 0;
  std::size_t of_web = 0;
  for (const auto& [name, sum] : counted) {
    if (name.destination != db(Family::V4).to_string() && name.destination != db(Family::V6).to_string())
      continue;
    const auto found = ingress.sums.find(name);
    ASSERT_NE(found, ingress.sums.end()) << name.source << " " << name.proto << " " << name.source_port;
    EXPECT_EQ(found->second, sum) << name.source << " " << name.proto << " " << name.source_port;
    if (name.source_port != 0) {
      EXPECT_EQ(ingress.connections.at(name), 1u);
    }
    const bool from_web = name.source == lab_->address("a/web", Family::V4)->to_string() ||
                          name.source == lab_->address("a/web", Family::V6)->to_string();
    ASSERT_EQ(egress.sums.count(name), from_web ? 1u : 0u);
    if (from_web) {
      ++of_web;
      EXPECT_EQ(egress.sums.at(name), sum) << "both views tell the same amounts";
    }
    if (sum.bytes_out < kBurst) continue;
    ++long_ones;
    EXPECT_GE(sum.bytes_out, kBurst * kBursts);
    EXPECT_LE(sum.bytes_out, kBurst * kBursts * 12 / 10) << "payload and headers";
    EXPECT_GE(sum.bytes_in, kBurst * kBursts);
    EXPECT_GE(ingress.intervals.at(name), 2u) << "a long one is told while it lives";
  }
  EXPECT_EQ(long_ones, 2u);
  EXPECT_GT(of_web, 20u);
  const auto told = books();
  EXPECT_EQ(told["kernel"], told["recorded"]) << told.dump();
  EXPECT_EQ(told["unattributed"], 0) << told.dump();
}

TEST_F(Connections, TheBooksBalanceAfterAKilledDaemon) {
  const IpAddr to = db(Family::V4);
  const std::string stop = (folder_ / "stop").string();
  const auto stopped = [&] { return ::access(stop.c_str(), F_OK) == 0; };
  const auto flood = lab_->start_in("a/web", [&] {
    const lab::SocketAddress denied(to, kDeniedPort);
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    for (; !stopped(); std::this_thread::sleep_for(2ms))
      ::sendto(socket.get(), "x", 1, 0, denied.get(), denied.size());
    return 0;
  });
  const auto one_long = lab_->start_in("a/web", [&] {
    const Fd stream = connect_to(to, SOCK_STREAM);
    for (; !stopped(); std::this_thread::sleep_for(20ms))
      if (!stream || !echo(stream, 5000)) return 1;
    return 0;
  });
  const auto many_short = lab_->start_in("a/web", [&] {
    for (; !stopped(); std::this_thread::sleep_for(5ms))
      if (short_connections(to, 1) != 0) return 1;
    return 0;
  });
  ASSERT_TRUE(flood && one_long && many_short);
  for (int kill = 0; kill < 2; ++kill) {
    std::this_thread::sleep_for(2500ms);
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    std::this_thread::sleep_for(700ms);
    const auto again = lab_->start_daemon();
    ASSERT_TRUE(again) << again.error().message;
  }
  std::this_thread::sleep_for(2500ms);
  std::ofstream(stop).put('x');
  for (const pid_t child : {*flood, *one_long, *many_short}) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  flush(*lab_);
  const Sums counted = end_all();
  flush(*lab_);
  flush(*lab_);

  const auto told = books();
  EXPECT_EQ(told["waiting"], 0) << told.dump();
  EXPECT_EQ(told["undeclared"], 0) << told.dump();
  EXPECT_EQ(told["kernel"].get<std::uint64_t>(),
            told["recorded"].get<std::uint64_t>() + told["unattributed"].get<std::uint64_t>())
      << told.dump();
  EXPECT_EQ(told["causes"].value("unknown", 0), 0) << told.dump();
  const store::RuleActivity denied = rule(0);
  EXPECT_GT(denied.kernel_packets, 500u);
  EXPECT_EQ(denied.recorded_packets, denied.kernel_packets) << "the kernel kept what nobody watched";
  EXPECT_EQ(denied.unattributed, 0u);
  const store::RuleActivity allowed = rule(1);
  EXPECT_GT(allowed.kernel_packets, 100u);
  EXPECT_EQ(allowed.recorded_packets + allowed.unattributed, allowed.kernel_packets);

  const Recorded ingress = recorded(store::Reporter::Destination);
  std::size_t long_ones = 0;
  for (const auto& [name, sum] : counted)
    if (name.proto == "tcp" && sum.packets_out > 100) {
      ++long_ones;
      EXPECT_EQ(ingress.sums.at(name), sum) << "across two deaths";
    }
  EXPECT_EQ(long_ones, 1u);

  // The control: a record that is not there is missed.
  execute(
      "UPDATE recorded SET packets = packets - 3 WHERE rule_id = (SELECT rule_id FROM rules WHERE"
      " policy = 'default/a/db' AND rule_index = 0)");
  EXPECT_EQ(books()["undeclared"], 3);
  flush(*lab_);
  flush(*lab_);
  EXPECT_EQ(books()["undeclared"], 0) << "declared by now";
  EXPECT_EQ(rule(0).unattributed, 3u) << books().dump();
}

// The next daemon comes with other policies: what was denied meanwhile has the rule, the trace and the time of
// then, and a connection that began meanwhile is told from its beginning, if the kernel still knows it.
TEST_F(Connections, WhatHappensWhileNoDaemonRunsIsToldByTheRulesOfThen) {
  constexpr std::uint64_t kDenied = 7;
  const IpAddr to = db(Family::V4);
  const std::string stop = (folder_ / "stop").string();
  constexpr int kEndedMeanwhile = 6;  // TCP, UDP and ping, in both views
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  const WallTime killed = SystemClock().wall();
  ASSERT_EQ(lab_->run_in("a/web", [&] { return short_connections(to, 1); }).value_or(-1), 0);
  end_all();
  const auto meanwhile = lab_->start_in("a/web", [&] {
    const lab::SocketAddress denied(to, kDeniedPort);
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    for (std::uint64_t i = 0; i < kDenied; ++i) ::sendto(socket.get(), "x", 1, 0, denied.get(), denied.size());
    const Fd stream = connect_to(to, SOCK_STREAM);
    if (!stream || !echo(stream, 50'000)) return 1;
    std::ofstream(folder_ / "spoke").put('x');
    while (::access(stop.c_str(), F_OK) != 0) std::this_thread::sleep_for(20ms);
    return echo(stream, 5000) ? 0 : 2;
  });
  ASSERT_TRUE(meanwhile);
  ASSERT_TRUE(Waiting::becomes([&] { return fs::exists(folder_ / "spoke"); }));
  std::string policy = kPolicy;
  policy.replace(policy.find("UDP, destination: {ports: [9]}"), 30, "TCP, destination: {ports: [1]}");
  std::ofstream(folder_ / "policy.yaml") << policy;
  std::this_thread::sleep_for(500ms);
  const WallTime started = SystemClock().wall();
  const auto again = lab_->start_daemon();
  ASSERT_TRUE(again) << again.error().message;
  flush(*lab_);
  std::ofstream(stop).put('x');
  int status = 0;
  ::waitpid(*meanwhile, &status, 0);
  EXPECT_EQ(status, 0);
  flush(*lab_);
  const Sums counted = end_all();
  flush(*lab_);

  const Index index = Index::read(lab_->database());
  std::uint64_t denied = 0;
  for (const store::FlowRecord& record : index.records()) {
    if (record.action != store::Verdict::Deny) continue;
    denied += record.verdict_packets;
    EXPECT_EQ(record.policy, "default/a/db");
    EXPECT_EQ(record.rule_index, 0);
    EXPECT_EQ(record.dst_port, kDeniedPort);
    EXPECT_FALSE(record.trace.empty()) << "judged by the policies of then";
    EXPECT_LE(record.start, record.end);
    EXPECT_GE(record.end, killed);
    EXPECT_LT(record.end, started) << "when it happened";
  }
  EXPECT_EQ(denied, kDenied);
  const auto answer = endpoints::call(lab_->socket(), {{"op", "status"}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ((*answer)["status"]["mismatch_cases"].size(), 0u) << answer->dump();

  const Recorded ingress = recorded(store::Reporter::Destination);
  std::size_t long_ones = 0;
  for (const auto& [name, sum] : counted) {
    if (name.proto != "tcp" || name.destination_port != kPort) continue;
    ++long_ones;
    EXPECT_GT(sum.bytes_in, 55'000u);
    ASSERT_EQ(ingress.sums.count(name), 1u);
    EXPECT_EQ(ingress.sums.at(name), sum) << "from its beginning";
    EXPECT_EQ(ingress.connections.at(name), 1u);
  }
  EXPECT_EQ(long_ones, 1u);
  const auto told = books();
  EXPECT_EQ(told["undeclared"], 0) << told.dump();
  EXPECT_EQ(told["unattributed"], kEndedMeanwhile) << told.dump();
  EXPECT_EQ(told["causes"].value("not-running", 0), kEndedMeanwhile) << "what the kernel forgot is declared";
}

}  // namespace
}  // namespace tierlog::testing
