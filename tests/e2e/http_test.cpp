// The daemon of a real node over HTTP: probes, metrics and the query API beside its flow index; counters over
// a kill; and Debian's Prometheus, which scrapes it and answers PromQL with what the index holds.
#include <sys/wait.h>

#include <csignal>
#include <set>

#include "exporters/prometheus/metric.h"
#include "store/groups.h"
#include "tests/e2e/live_node.h"
#include "tests/http/client.h"
#include "tests/prometheus/programs.h"
#include "tests/prometheus/samples.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
using http::testing_client::Answer;

constexpr std::uint16_t kPort = 9477;
constexpr const char* kTopology = R"(
namespaces: [{name: a}, {name: b}]
pods:
- {name: web, namespace: a, labels: {role: web}, ips: [10.1.0.5]}
- {name: batch, namespace: b, labels: {role: batch}, ips: [10.1.0.7]}
- name: db
  namespace: a
  labels: {role: db}
  ips: [10.1.0.6]
  ports: [{name: sql, protocol: TCP, port: 5432}, {name: http, protocol: TCP, port: 8080}]
)";
constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: role == 'db'
  ingress:
  - {action: Allow, source: {selector: role == 'web'}}
  - {action: Deny, protocol: TCP, destination: {ports: [5432]}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: tighten, namespace: a}
spec: {selector: role == 'db', ingress: [{action: Deny}]}
)";
constexpr const char* kDisplay = "default/a/db";

class HttpNode : public LiveNode {
 protected:
  void SetUp() override {
    start(kTopology, kPolicies,
          {{"deny_interval", "1s"},
           {"flow_interval", "1s"},
           {"metrics.rules", "true"},
           {"exports", exports()}});
  }
  // Something to count: a file that takes all, and nobody who listens.
  static std::string exports() {
    const auto folder =
        std::filesystem::temp_directory_path() / ("tierlog-lines-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    return "[{type: file, name: lines, path: " + (folder / "flows.jsonl").string() +
           "}, {name: nobody, socket: " + (folder / "nobody.sock").string() + "}]";
  }
  void TearDown() override {
    LiveNode::TearDown();
    std::filesystem::remove_all(std::filesystem::temp_directory_path() /
                                ("tierlog-lines-" + std::to_string(::getpid())));
  }

  void traffic() const {
    const auto connect = [&](const char* from, std::uint16_t port) {
      const IpAddr to = *lab_->address("a/db", Family::V4);
      const auto result = lab_->run_in(from, [&] { return static_cast<int>(lab::try_tcp(to, port, 300ms)); });
      ASSERT_TRUE(result);
    };
    for (int i = 0; i < 3; ++i) connect("a/web", 8080);
    connect("a/web", 5432);
    connect("b/batch", 5432);
    connect("b/batch", 8080);
    flush(*lab_);
    // The ends of the connections come with the next interval, records are summed every second, counts are
    // published every two.
    std::this_thread::sleep_for(1500ms);
    const Labels allow{{"policy", kDisplay}, {"action", "allow"}},
        deny{{"policy", kDisplay}, {"action", "deny"}};
    EXPECT_TRUE(becomes(
        [&] {
          const Samples now = scrape();
          return now.value("tierlog_policy_connections_total", allow) == sums("allow").second &&
                 now.value("tierlog_policy_packets_total", deny) == sums("deny").first &&
                 now.value("tierlog_policy_packets_total", allow) == sums("allow").first &&
                 now.value("tierlog_policy_verdicts_total", deny) == sums("deny").first;
        },
        15s));
  }

  // Asked from inside the node, where loopback is.
  Answer get(const std::string& target, std::uint16_t port = kPort, const std::string& headers = {}) const {
    const std::string file = (folder_ / "answer").string();
    std::ofstream(file, std::ios::trunc);
    const auto done = lab_->run_in("node", [&] {
      const Answer answer = http::testing_client::ask(port, target, headers);
      std::ofstream(file) << answer.status << "\n" << answer.head << "\r\n\r\n" << answer.body;
      return 0;
    });
    EXPECT_TRUE(done);
    const std::string text = read_text(file);
    const auto line = text.find('\n'), end = text.find("\r\n\r\n");
    if (end == std::string::npos) return {};
    return {std::atoi(text.c_str()), text.substr(line + 1, end - line - 1), text.substr(end + 4)};
  }
  Samples scrape() const { return Samples(get("/metrics").body); }

  void expect_the_nodes_metrics() const;
  void expect_what_dashboards_ask_for() const;

  // What the flow index says of each action of the policy: packets as /metrics counts them, connections.
  std::pair<double, double> sums(const char* action) const {
    auto reader = store::FlowReader::open(lab_->database());
    EXPECT_TRUE(reader);
    store::FlowQuery query;
    query.filters = {{store::FieldFilter::Field::Policy, {kDisplay}, false},
                     {store::FieldFilter::Field::Action, {action}, false}};
    query.limit = 0;
    const auto records = reader->flows(query);
    EXPECT_TRUE(records);
    double packets = 0, connections = 0;
    for (const store::StoredRecord& stored : *records) {
      const store::FlowRecord& record = stored.record;
      const bool denied = record.action == store::Verdict::Deny;
      packets += static_cast<double>(denied ? record.verdict_packets
                                            : record.packets_out.value_or(0) + record.packets_in.value_or(0));
      connections += static_cast<double>(denied ? 0 : record.connections.value_or(0));
    }
    return {packets, connections};
  }
};

TEST_F(HttpNode, TellsWhatTheIndexHolds) {
  if (!lab_) return;
  EXPECT_EQ(get("/healthz").status, 200);
  EXPECT_EQ(get("/readyz").body, "ready\n");
  traffic();
  const Samples samples = scrape();
  const auto [denied, none] = sums("deny");
  const auto [moved, connections] = sums("allow");
  ASSERT_GE(denied, 2.0) << "there was something to tell";
  ASSERT_EQ(connections, 4.0);
  const Labels deny{{"policy", kDisplay}, {"action", "deny"}},
      allow{{"policy", kDisplay}, {"action", "allow"}};
  EXPECT_EQ(samples.value("tierlog_policy_packets_total", deny), denied);
  EXPECT_EQ(samples.value("tierlog_policy_packets_total", allow), moved);
  EXPECT_EQ(samples.value("tierlog_policy_connections_total", allow), connections);
  EXPECT_EQ(samples.value("tierlog_policy_verdicts_total", allow), connections);
  EXPECT_EQ(samples.value("tierlog_policy_verdicts_total", deny), denied);
  EXPECT_EQ(samples.value("tierlog_denied_packets_total", {{"from_namespace", "b"}, {"to_namespace", "a"}}),
            denied);
  EXPECT_EQ(samples.value("tierlog_pod_drop_packets_total", {{"pod", "db"}, {"direction", "ingress"}}),
            denied);
  EXPECT_EQ(samples.value("tierlog_pod_connections_total", {{"pod", "web"}, {"direction", "egress"}}), 4.0);
  EXPECT_GT(samples.value("tierlog_policy_staged_denied_packets_total").value_or(0), 0.0);
  EXPECT_EQ(samples.value("tierlog_books_kernel_packets_total"),
            *samples.value("tierlog_books_recorded_packets_total") +
                samples.value("tierlog_books_unattributed_packets_total").value_or(0) +
                *samples.value("tierlog_books_open_packets"));
  EXPECT_EQ(samples.value("tierlog_endpoints", {{"state", "enforced"}}), 3.0);
  const auto api = nlohmann::json::parse(get("/api/v1/denied/db?from-namespace=b").body);
  double told = 0;
  for (const auto& item : api["items"]) told += item["verdict_packets"].get<double>();
  EXPECT_EQ(told, denied);
  const auto status = nlohmann::json::parse(get("/api/v1/status").body);
  EXPECT_TRUE(status["seccomp"].get<bool>()) << "all of this under the filter of system calls";
  EXPECT_EQ(status["endpoints"], 3);
  EXPECT_GT(status["books"]["kernel"].get<int>(), 0);
  expect_the_nodes_metrics();
  expect_what_dashboards_ask_for();
}

TEST_F(HttpNode, CountersGoOnAfterAKill) {
  if (!lab_) return;
  traffic();
  const Samples before = scrape();
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_TRUE(becomes([&] { return get("/readyz").status == 200; }));
  traffic();
  const Samples after = scrape();
  for (const char* name :
       {"tierlog_policy_packets_total", "tierlog_policy_bytes_total", "tierlog_policy_connections_total",
        "tierlog_policy_verdicts_total", "tierlog_denied_packets_total", "tierlog_pod_connections_total"})
    for (const Sample& sample : before.find(name)) {
      const auto now = after.value(name, sample.labels);
      ASSERT_TRUE(now) << name;
      EXPECT_GE(*now, sample.value) << name << " " << sample.labels.begin()->second;
    }
  const Labels allow{{"policy", kDisplay}, {"action", "allow"}};
  EXPECT_EQ(before.value("tierlog_policy_connections_total", allow), 4.0);
  EXPECT_EQ(after.value("tierlog_policy_connections_total", allow), 8.0) << "none lost, none twice";
  EXPECT_EQ(after.value("tierlog_policy_packets_total", {{"policy", kDisplay}, {"action", "deny"}}),
            sums("deny").first);
}

// Counters that are ours, told before and after: those that got smaller or went, and how many were looked at.
struct Compared {
  std::vector<std::string> smaller;
  std::size_t all = 0;
};
Compared compare(const Samples& before, const Samples& after) {
  Compared result;
  for (const prometheus::Spec& spec : prometheus::specs()) {
    if (spec.type != prometheus::Type::Counter || spec.life == prometheus::Life::Kernel) continue;
    for (const Sample& sample : before.find(spec.name)) {
      if (sample.value == 0) continue;
      ++result.all;
      const double now = after.value(spec.name, sample.labels).value_or(0);
      if (now < sample.value)
        result.smaller.push_back(std::string(spec.name) + " " + std::to_string(sample.value) + " -> " +
                                 std::to_string(now));
    }
  }
  return result;
}

TEST_F(HttpNode, NoCounterOfOursStepsBack) {
  if (!lab_) return;
  traffic();
  const auto again = [&](int signal, bool forgets) {
    const Samples before = scrape();
    EXPECT_TRUE(lab_->stop_daemon(signal));
    if (forgets)
      for (const char* name : {"counters.json", "metrics.json"})
        std::filesystem::remove(std::filesystem::path(lab_->database()).parent_path() / name);
    EXPECT_TRUE(lab_->start_daemon());
    // The first answer of all: what is not complete must not be told.
    Answer answer;
    EXPECT_TRUE(becomes([&] { return (answer = get("/metrics")).status == 200; }, 15s));
    return compare(before, Samples(answer.body));
  };
  const Samples counted = scrape();
  for (const char* name :
       {"tierlog_policy_syncs_total", "tierlog_export_sent_records_total", "tierlog_export_failures_total",
        "tierlog_policy_verdicts_total", "tierlog_rule_recorded_packets_total", "kappie_drop_count",
        "tierlog_store_records_total"})
    ASSERT_GT(counted.value(name).value_or(0), 0.0) << name << ": nothing to compare";
  for (const int signal : {SIGKILL, SIGTERM, SIGKILL}) {
    const Compared compared = again(signal, false);
    EXPECT_GE(compared.all, 30u);
    EXPECT_TRUE(compared.smaller.empty()) << signal << ": " << compared.smaller.front();
  }
  EXPECT_FALSE(again(SIGTERM, true).smaller.empty()) << "the control: without what was written down";
}

TEST_F(HttpNode, SaysWhenThePoliciesAreNotInForce) {
  if (!lab_) return;
  std::ofstream(folder_ / "policies" / "bad.yaml") << "kind: Nonsense\n";
  static_cast<void>(endpoints::call(lab_->socket(), {{"op", "reload"}}, 20s));
  const Samples samples = scrape();
  EXPECT_EQ(samples.value("tierlog_policy_sync_failed"), 1.0);
  EXPECT_GE(samples.value("tierlog_policy_sync_failures_total").value_or(0), 1.0);
  EXPECT_EQ(get("/readyz").status, 200) << "the last good set is in force";
  std::filesystem::remove(folder_ / "policies" / "bad.yaml");
  ASSERT_TRUE(endpoints::call(lab_->socket(), {{"op", "reload"}}, 20s));
  EXPECT_EQ(scrape().value("tierlog_policy_sync_failed"), 0.0);
}

void HttpNode::expect_the_nodes_metrics() const {
  // Interfaces as `ip` sees them, read just before and just after.
  const auto links = [&] {
    const std::string file = (folder_ / "links").string();
    const auto told = lab_->exec("node", {"/bin/sh", "-c", "ip -s -s -j link >" + file});
    EXPECT_EQ(told.value_or(1), 0);
    return nlohmann::json::parse(read_text(file));
  };
  const auto before = links();
  const Samples samples = scrape();
  const auto after = links();
  for (std::size_t i = 0; i < before.size(); ++i)
    for (const char* way : {"rx", "tx"}) {
      const auto value = samples.value(
          "kappie_interface_stats",
          {{"InterfaceName", before[i]["ifname"]}, {"Statistic", std::string(way) + "_packets"}});
      ASSERT_TRUE(value) << before[i]["ifname"];
      EXPECT_GE(*value, before[i]["stats64"][way]["packets"].get<double>());
      EXPECT_LE(*value, after[i]["stats64"][way]["packets"].get<double>());
    }
  const auto denied =
      samples.value("tierlog_policy_verdicts_total", {{"action", "deny"}, {"policy", kDisplay}});
  ASSERT_GE(denied.value_or(0), 2.0);
  EXPECT_EQ(samples.value("kappie_drop_count", {{"Reason", "policy"}, {"Direction", "ingress"}}), denied);
  EXPECT_EQ(
      samples.value("tierlog_node_drop_packets_total", {{"reason", "policy"}, {"direction", "ingress"}}),
      denied);
  for (const char* name :
       {"kappie_forward_count", "kappie_forward_bytes", "kappie_drop_count", "kappie_drop_bytes",
        "kappie_tcp_state", "kappie_tcp_connection_remote", "kappie_tcp_connection_stats",
        "kappie_ip_connection_stats", "kappie_udp_connection_stats", "kappie_udp_active_sockets",
        "kappie_interface_stats"})
    EXPECT_FALSE(samples.find(name).empty()) << name;
}

void HttpNode::expect_what_dashboards_ask_for() const {
  const auto check = [&](const std::string& scrape) {
    std::ofstream(folder_ / "scrape") << scrape;
    return run_shell("python3 " TIERLOG_SOURCE_DIR "/tests/check/dashboards.py " +
                     (folder_ / "scrape").string());
  };
  std::string text = get("/metrics").body;
  const Told told = check(text);
  EXPECT_EQ(told.code, 0) << told.text;
  // The control: without one label, it is missed.
  for (std::size_t at = 0; (at = text.find("from_namespace=", at)) != std::string::npos;)
    text.replace(at, 15, "from_nothing__=");
  EXPECT_NE(check(text).code, 0);
}

class Prometheus {
 public:
  Prometheus(const lab::Lab& lab, const std::filesystem::path& folder) {
    const std::string program = prometheus_program("prometheus");
    std::ofstream(folder / "prometheus.yml")
        << "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n- job_name: tierlog\n"
           "  static_configs: [{targets: ['127.0.0.1:9477']}]\n";
    const auto started = lab.start_in("node", [program, folder] {
      const std::string config = "--config.file=" + (folder / "prometheus.yml").string();
      const std::string data = "--storage.tsdb.path=" + (folder / "prometheus").string();
      static_cast<void>(std::freopen((folder / "prometheus.log").c_str(), "w", stderr));
      ::execl(program.c_str(), program.c_str(), config.c_str(), data.c_str(),
              "--web.listen-address=127.0.0.1:9090", nullptr);
      return 127;
    });
    if (started) pid_ = *started;
  }
  ~Prometheus() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  bool runs() const { return pid_ > 0; }

 private:
  pid_t pid_ = -1;
};

TEST_F(HttpNode, PrometheusAnswersWhatTheIndexHolds) {
  if (!lab_) return;
  if (prometheus_program("prometheus").empty())
    GTEST_SKIP() << "needs prometheus (scripts/install-deps --test)";
  const Prometheus prometheus(*lab_, folder_);
  ASSERT_TRUE(prometheus.runs());
  traffic();
  const auto ask = [&](const std::string& query) -> std::map<std::string, double> {
    const Answer answer = get("/api/v1/query?query=" + query, 9090);
    const auto json = nlohmann::json::parse(answer.body, nullptr, false);
    std::map<std::string, double> values;
    if (json.is_discarded() || !json.contains("data")) return values;
    for (const auto& one : json["data"]["result"])
      values[one["metric"].value("action", "")] = std::stod(one["value"][1].get<std::string>());
    return values;
  };
  const std::string by_action =
      "sum%20by(action)(tierlog_policy_packets_total%7Bpolicy=%22default/a/db%22%7D)";
  const double denied = sums("deny").first, moved = sums("allow").first;
  EXPECT_TRUE(becomes([&] { return ask(by_action)["deny"] == denied; }, 20s))
      << ask(by_action)["deny"] << " instead of " << denied << "\n"
      << read_text((folder_ / "prometheus.log").string());
  EXPECT_EQ(ask(by_action)["allow"], moved);
  EXPECT_EQ(ask("tierlog_ready")[""], 1.0);
  EXPECT_EQ(ask("up")[""], 1.0);
}

}  // namespace
}  // namespace tierlog::testing
