// status and explain against a daemon that says what the test wants: one answer on a real socket.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/handle.h"
#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::Words;
using Json = nlohmann::json;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Answers one request and keeps it.
class OneAnswer {
 public:
  OneAnswer(const std::string& path, Json answer)
      : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::thread([this, text = answer.dump() + "\n"] { serve(text); });
  }
  ~OneAnswer() { join(); }

  Json request() {
    join();
    return Json::parse(request_);
  }

 private:
  void serve(const std::string& text) {
    const Fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char c = 0;
    while (::read(peer.get(), &c, 1) == 1 && c != '\n') request_ += c;
    ::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }
  void join() {
    ::shutdown(listener_.get(), SHUT_RDWR);  // a program that never asked must not hold the test
    if (thread_.joinable()) thread_.join();
  }

  Fd listener_;
  std::string request_;
  std::thread thread_;
};

class Daemon : public testing::Test {
 protected:
  Outcome ask(const Words& words, Json answer) {
    const std::string path = folder_.file("d.sock");
    OneAnswer daemon(path, std::move(answer));
    Outcome outcome = testing_program::run(words, {{"TIERLOG_SOCKET", path}, {"TIERLOG_DB", database_}});
    request_ = daemon.request();
    ::unlink(path.c_str());
    return outcome;
  }

  store::sample::Folder folder_;
  std::string database_ = "/nonexistent";
  Json request_;
};

Json good_status() {
  return {{"version", "0.1.0"},
          {"node", "node-1"},
          {"dataplane", "nftables"},
          {"uptime_ns", 273'600'000'000'000},
          {"policies", 7},
          {"rules", 41},
          {"revision", 19},
          {"in_sync", true},
          {"sync_error", ""},
          {"endpoints", 212},
          {"programmed", 212},
          {"books", {{"kernel", 1204332}, {"recorded", 1204330}, {"unattributed", 2}}},
          {"verdicts", {{"per_second", 1203.4}, {"behind_ns", 40'000'000}}},
          {"store",
           {{"path", "/var/lib/tierlog/flows.db"},
            {"bytes", 2040109466},
            {"max_bytes", 8589934592},
            {"records", 19200000},
            {"problem", ""}}},
          {"exports",
           {{{"name", "fluentbit"},
             {"target", "tcp://127.0.0.1:24224"},
             {"delivered_sequence", 5},
             {"delivered_time", "2026-11-21T20:14:07.000000123Z"},
             {"waiting", 0},
             {"error", ""}}}},
          {"warnings", Json::array()}};
}

TEST_F(Daemon, StatusFitsOneScreen) {
  const Outcome outcome = ask({"status"}, {{"v", 1}, {"ok", true}, {"status", good_status()}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(request_["op"], "status");
  EXPECT_EQ(
      outcome.out,
      "tierlogd 0.1.0 on node-1 · up 3 d 4 h · dataplane nftables · policies in sync (7 policies, 41 rules, "
      "revision "
      "19)\n"
      "endpoints    212 (212 programmed)\n"
      "verdicts     1.2 k/s now · behind by 40 ms\n"
      "books        1,204,332 verdicts counted by the kernel = 1,204,330 recorded + 2 unattributed       "
      "MISSING: see `tierlog rules`\n"
      "store        /var/lib/tierlog/flows.db  1.9 GiB of 8.0 GiB · 19.2 M records\n"
      "exports      fluentbit tcp://127.0.0.1:24224   delivered up to 2026-11-21 20:14:07 UTC (record 5), 0 "
      "waiting\n"
      "warnings     none\n");
}

TEST_F(Daemon, StatusSaysWhatIsWrong) {
  Json status = good_status();
  status["in_sync"] = false;
  status["sync_error"] = "30.yaml:1:2: unknown action";
  status["books"]["recorded"] = 1204000;
  status["exports"][0]["error"] = "refused";
  status["warnings"] = {"bridge netfilter was off"};
  const Outcome outcome = ask({"status"}, {{"v", 1}, {"ok", true}, {"status", status}});
  for (const char* part : {"policies NOT IN SYNC", "sync error   30.yaml:1:2: unknown action",
                           "330 on their way", "FAILING: refused", "warnings     bridge netfilter was off"})
    EXPECT_TRUE(has(outcome.out, part)) << part << "\n" << outcome.out;
}

TEST_F(Daemon, StatusSaysTooManyOnlyWhereCountsAreOfNow) {
  Json status = good_status();
  status["books"]["recorded"] = 1204400;
  const auto told = [&] { return ask({"status"}, {{"v", 1}, {"ok", true}, {"status", status}}).out; };
  EXPECT_TRUE(has(told(), "70 TOO MANY")) << told();
  status["store"]["problem"] = "flows.db: database or disk is full";
  EXPECT_FALSE(has(told(), "TOO MANY")) << told();
  EXPECT_TRUE(has(told(), "the kernel's counts are older: the flow index refuses them")) << told();
}

TEST_F(Daemon, StatusAsJsonIsTheAnswer) {
  const Outcome outcome = ask({"status", "-o", "json"}, {{"v", 1}, {"ok", true}, {"status", good_status()}});
  EXPECT_EQ(Json::parse(outcome.out), good_status());
}

struct Refusal {
  const char* code;
  int exit_code;
};

class Refusals : public Daemon, public testing::WithParamInterface<Refusal> {};

TEST_P(Refusals, BecomeExitCodes) {
  const Outcome outcome =
      ask({"explain", "--from", "a/b", "--to", "c/d", "--port", "1"},
          {{"v", 1}, {"ok", false}, {"code", GetParam().code}, {"error", "no pod \"a/b\""}});
  EXPECT_EQ(outcome.code, GetParam().exit_code) << outcome.err;
  EXPECT_TRUE(has(outcome.err, "no pod \"a/b\"")) << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(Codes, Refusals,
                         testing::Values(Refusal{"invalid", 2}, Refusal{"not-found", 1},
                                         Refusal{"unavailable", 3}, Refusal{"refused", 3}));

Json step(const char* tier, const char* policy, int index, const char* action, const char* result,
          bool decides) {
  return {{"tier", tier},           {"policy", policy},     {"policy_kind", "NP"}, {"rule_index", index},
          {"rule_id", 0x102},       {"policy_revision", 3}, {"action", action},    {"result", result},
          {"staged", false},        {"decides", decides},   {"why", "matched"},    {"text", ""},
          {"source", "a.yaml:18:5"}};
}

Json explanation() {
  const char* policy = "platform/tenant-01/tenant-01-restrict";
  return {{"action", "deny"},
          {"proto", "tcp"},
          {"src_ip", "10.244.1.7"},
          {"src_port", 0},
          {"src_name", "tenant-02/web"},
          {"dst_ip", "10.244.1.9"},
          {"dst_port", 5432},
          {"dst_name", "tenant-01/db"},
          {"icmp_type", nullptr},
          {"icmp_code", nullptr},
          {"decides", nullptr},
          {"egress", nullptr},
          {"ingress",
           {{"direction", "ingress"},
            {"endpoint", "tenant-01/db"},
            {"action", "deny"},
            {"reason", "policy"},
            {"tiers", {"platform"}},
            {"skipped_tiers", Json::array()},
            {"trace", {step("platform", policy, 2, "deny", "deny", true)}}}}};
}

TEST_F(Daemon, ExplainAsksForThePairAndShowsTheAnswer) {
  const Outcome outcome =
      ask({"explain", "--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "5432"},
          {{"v", 1}, {"ok", true}, {"explanation", explanation()}});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(request_["op"], "explain");
  EXPECT_EQ(request_["from"], "tenant-02/web");
  EXPECT_EQ(request_["protocol"], "tcp");
  EXPECT_EQ(request_["port"], 5432);
  EXPECT_TRUE(has(outcome.out, "<- decides, a.yaml:18\n")) << outcome.out;
  EXPECT_FALSE(has(outcome.out, "Last seen")) << outcome.out;
}

TEST_F(Daemon, ExplainAsksForAnEchoRequestUnlessTold) {
  const Json answer = {{"v", 1}, {"ok", true}, {"explanation", explanation()}};
  ask({"explain", "--from", "a/b", "--to", "c/d", "--protocol", "icmp"}, answer);
  EXPECT_EQ(request_["icmp_type"], 8);
  EXPECT_FALSE(request_.contains("port"));
  ask({"explain", "--from", "a/b", "--to", "c/d", "--protocol", "icmpv6"}, answer);
  EXPECT_EQ(request_["icmp_type"], 128);
  ask({"explain", "--from", "a/b", "--to", "c/d", "--protocol", "icmp", "--icmp-type", "3", "--icmp-code",
       "1"},
      answer);
  EXPECT_EQ(request_["icmp_type"], 3);
  EXPECT_EQ(request_["icmp_code"], 1);
}

TEST_F(Daemon, ExplainSaysWhenItWasLastSeen) {
  database_ = folder_.file("flows.db");
  {
    store::FlowStore store = store::sample::open_store(database_);
    ASSERT_TRUE(store.put_catalog(store::sample::catalog()));
    ASSERT_TRUE(
        store.insert(std::vector<store::FlowRecord>{store::sample::denied(), store::sample::denied()}));
    store::FlowRecord by_service = store::sample::denied();
    by_service.dst_port = 8080;
    by_service.end += std::chrono::seconds(1);
    by_service.translation = store::Translation{IpAddr::parse("10.96.0.9"), std::nullopt, 5432, 0, "tenant-01/db"};
    ASSERT_TRUE(store.insert(std::vector<store::FlowRecord>{by_service}));
  }
  const Outcome outcome =
      ask({"explain", "--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "5432"},
          {{"v", 1}, {"ok", true}, {"explanation", explanation()}});
  EXPECT_TRUE(has(
      outcome.out,
      "\nLast seen: 2 packets, latest 2026-11-21 20:14:07 · rule id 102, revision 3 (policies in force since "
      "2026-11-21 19:14)\n"))
      << outcome.out;
}

}  // namespace
}  // namespace tierlog::cli
