// Policy test cases with real packets through a data plane: upstream's where they are at hand, our own, and
// random ones. Each packet is judged three times: by the kernel, whose rule ids the flow index resolves,
// by the evaluator, and in random worlds by a second, naive evaluator.
//
// TIERLOG_VIA: nftables (default) or ebpf.
// TIERLOG_CONFORMANCE_DIR: upstream's cases, else shared/conformance beside the sources; skipped without.
// TIERLOG_PACKETS_SECONDS: how long random worlds are tried; with it all of upstream's cases run, not a
// sample.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "lab/case_ebpf.h"
#include "lab/case_nftables.h"
#include "lab/cases.h"
#include "tests/engine/naive.h"
#include "tests/lab/random_case.h"
#include "tests/lab/shrink.h"
#include "tests/policy/conformance.h"

namespace tierlog::lab::test {
namespace {

using Clock = std::chrono::steady_clock;
using policy::Action;

// ---- what every run shares

const char* whole() {
  return std::getenv("TIERLOG_PACKETS_SECONDS");
}

std::string via() {
  const char* given = std::getenv("TIERLOG_VIA");
  return given != nullptr ? given : "nftables";
}

Result<std::vector<CaseResult>> run_real(const std::vector<PolicyCase>& cases, const PacketRun& run = {}) {
  return via() == "ebpf" ? run_ebpf(cases, run) : run_nftables(cases, run);
}

std::string problems(const CaseResult& result) {
  std::string text;
  for (const CheckResult& check : result.checks)
    for (const std::string& problem : check.problems)
      text += "\n  check " + std::to_string(check.index) + " " + check.check.from.text() + " -> " +
              check.check.to.text() + " " + protocol::name(check.check.protocol) + " " +
              std::to_string(check.check.port) + ": " + problem;
  return text;
}

std::size_t sent(const std::vector<CaseResult>& results) {
  std::size_t count = 0;
  for (const CaseResult& result : results)
    for (const CheckResult& check : result.checks) count += check.skipped ? 0 : 1;
  return count;
}

class Packets : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
  }
};

// ---- upstream's cases

std::string folder() {
  return conformance::file("cases");
}

// What no kernel forwards, as docs/limits.md has it: every other reason is a failure.
bool is_known_refusal(const std::string& reason) {
  for (const char* known :
       {"is no address of a host, which no kernel forwards",
        "is a loopback address, which no kernel forwards", "is a multicast address, which no kernel forwards",
        "is reserved, which no kernel forwards", "is a link-local address, which no kernel forwards",
        "is an extension header of IPv6: kernels look for the protocol behind it",
        "is behind a host endpoint, which only the evaluator judges"})
    if (reason.ends_with(known)) return true;
  return false;
}

// Cases of which checks cannot be sent, and how many of them.
const std::map<std::string, std::size_t> kCannotBeSent{{"calico-checker-match-l4-notprotocol-58", 1},
                                                       {"calico-checker-match-l4-protocol-58", 1},
                                                       {"calico-polprog-allow-ff01-1-128", 8},
                                                       {"calico-polprog-allow-from-cidrs-v6-2", 8},
                                                       {"calico-polprog-allow-from-cidrs-v6", 8},
                                                       {"calico-polprog-allow-from-ffe2-1-8", 11},
                                                       {"calico-polprog-allow-from-ffe2-112", 7},
                                                       {"calico-polprog-allow-tcp-v6-2", 6},
                                                       {"calico-polprog-allow-tcp-v6", 6},
                                                       {"calico-polprog-allow-to-0-2", 4},
                                                       {"calico-polprog-allow-to-0", 4},
                                                       {"calico-polprog-allow-to-cidrs-v6-2", 8},
                                                       {"calico-polprog-allow-to-cidrs-v6", 8},
                                                       {"calico-polprog-allow-to-ff00-1-128", 6},
                                                       {"calico-polprog-allow-to-ff00-1-16", 6},
                                                       {"calico-polprog-allow-to-ff00-1-64", 6},
                                                       {"calico-polprog-allow-to-ff00-64", 6},
                                                       {"calico-polprog-allow-to-tcp-ranges-v6-2", 10},
                                                       {"calico-polprog-allow-to-tcp-ranges-v6", 10},
                                                       {"calico-polprog-empty-tier-has-no-impact-v6", 4},
                                                       {"calico-polprog-explicit-allow-v6", 6},
                                                       {"calico-polprog-explicit-deny-v6", 6},
                                                       {"calico-polprog-pass-to-deny-v6", 4}};

// A prime, so that the sample meets every family and every odd member of one.
constexpr std::size_t kSampleStride = 5;

// Every `stride`-th file, by name.
std::vector<std::string> upstreams_files(std::size_t stride) {
  std::vector<std::string> all, some;
  for (const auto& entry : std::filesystem::directory_iterator(folder()))
    all.push_back(entry.path().string());
  std::sort(all.begin(), all.end());
  for (std::size_t i = 0; i < all.size(); i += stride) some.push_back(all[i]);
  return some;
}

TEST_F(Packets, UpstreamsCasesPassWithRealPackets) {
  if (!std::filesystem::is_directory(folder())) GTEST_SKIP() << conformance::missing(folder());
  const LoadedCases loaded = load_cases(upstreams_files(whole() != nullptr ? 1 : kSampleStride));
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  const auto begin = Clock::now();
  const auto results = run_real(loaded.cases);
  ASSERT_TRUE(results) << results.error().message;
  const std::chrono::duration<double> took = Clock::now() - begin;
  std::map<std::string, std::size_t> left_out;
  for (std::size_t i = 0; i < results->size(); ++i) {
    const CaseResult& result = (*results)[i];
    for (const CheckResult& check : result.checks)
      if (check.skipped) {
        EXPECT_TRUE(is_known_refusal(*check.skipped)) << result.id << ": " << *check.skipped;
        ++left_out[result.id];
      }
    if (result.skipped && result.checks.empty()) {
      EXPECT_EQ(*result.skipped, "requires anp-sameLabels") << result.id;
    } else if (!result.skipped) {
      EXPECT_TRUE(result.passed) << result.id << problems(result);
    }
  }
  // Other cases may be given than those of this list; a new skip among these is a failure.
  for (const auto& [id, count] : left_out) {
    const auto known = kCannotBeSent.find(id);
    EXPECT_EQ(count, known == kCannotBeSent.end() ? 0 : known->second) << id;
  }
  EXPECT_GE(sent(*results), 1000u);
  std::cout << sent(*results) << " packets judged in " << took.count() << " s\n";
}

// ---- the project's own cases

TEST_F(Packets, OwnCasesPassWithRealPackets) {
  const LoadedCases loaded =
      load_cases({TIERLOG_SOURCE_DIR "/examples/cases", TIERLOG_SOURCE_DIR "/tests/lab/cases"});
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  const auto results = run_real(loaded.cases);
  ASSERT_TRUE(results) << results.error().message;
  for (const CaseResult& result : *results) EXPECT_TRUE(result.passed) << result.id << problems(result);
  EXPECT_GE(sent(*results), 50u);
}

TEST(OwnCases, PassInTheEvaluator) {
  const LoadedCases loaded =
      load_cases({TIERLOG_SOURCE_DIR "/examples/cases", TIERLOG_SOURCE_DIR "/tests/lab/cases"});
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  for (const PolicyCase& one : loaded.cases) {
    const CaseResult result = run_model(one);
    EXPECT_TRUE(result.passed) << result.id << problems(result);
  }
}

// ---- random worlds

// The case of that file, with what the evaluator says as its expectation; nothing when it is no good case.
std::optional<PolicyCase> expected_by_evaluator(const Json& json) {
  LoadedCases loaded = load_cases_text(json.dump(), "random.json");
  if (loaded.findings.has_errors() || loaded.cases.size() != 1 || loaded.cases[0].skipped)
    return std::nullopt;
  PolicyCase& one = loaded.cases[0];
  const CaseResult model = run_model(one);
  for (std::size_t i = 0; i < one.checks.size(); ++i) {
    const Observed& observed = model.checks[i].observed;
    if (observed.verdict == CheckVerdict::Error) return std::nullopt;  // no packet goes there
    one.checks[i].expect = observed.verdict == CheckVerdict::Deny ? Action::Deny : Action::Allow;
  }
  return std::move(one);
}

// Ends of different families only: such a check is no packet.
Json with_common_families(Json json) {
  const LoadedCases loaded = load_cases_text(json.dump(), "random.json");
  if (loaded.cases.size() != 1) return json;
  Json kept = Json::array();
  for (std::size_t i = 0; i < loaded.cases[0].checks.size(); ++i)
    if (packet_of(loaded.cases[0].topology.cluster, loaded.cases[0].checks[i]))
      kept.push_back(json["checks"][i]);
  json["checks"] = kept;
  return json;
}

// Where the naive evaluator disagrees with the engine's; empty: nowhere.
std::string naive_disagreement(const PolicyCase& one) {
  const CaseResult model = run_model(one);
  for (std::size_t i = 0; i < one.checks.size(); ++i) {
    const auto packet = packet_of(one.topology.cluster, one.checks[i]);
    if (!packet) continue;
    for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
      const auto naive = policy::test::naive(one.policies, one.topology.cluster, *packet, direction);
      const Action expected = naive.judged ? naive.action : Action::Allow;
      const Observed& observed = model.checks[i].observed;
      if (expected != (direction == Direction::Egress ? observed.egress : observed.ingress))
        return "check " + std::to_string(i) + ": the naive evaluator says " + std::string(name(direction)) +
               " is decided by " + naive.decider;
    }
  }
  return {};
}

std::string disagreement(const Json& json, const PacketRun& run) {
  const auto one = expected_by_evaluator(json);
  if (!one) return {};
  if (const std::string naive = naive_disagreement(*one); !naive.empty()) return naive;
  const auto results = run_real({*one}, run);
  if (!results || results->front().passed || results->front().skipped) return {};
  return problems(results->front());
}

// Smaller, kept as a file, and told.
Json report(const Json& found, const PacketRun& run, unsigned seed) {
  const Json small = shrink(
      found, [&](const Json& json) { return !disagreement(json, run).empty(); }, std::chrono::seconds(60));
  const std::string path = std::string(TIERLOG_BINARY_DIR) + "/random-" + std::to_string(seed) + ".json";
  std::ofstream(path) << small.dump(2) << "\n";
  std::cout << "kept as " << path << ", to be run by `tierlog test --via " << via() << "`:\n"
            << small.dump(1) << "\n";
  return small;
}

constexpr int kCasesPerTopology = 10, kChecksPerCase = 80;
constexpr unsigned kTopologies = 4;

struct RandomWorld {
  std::vector<Json> files;
  std::vector<PolicyCase> cases;
};

RandomWorld random_world(unsigned seed) {
  RandomWorld world;
  Dice dice(seed);
  const Json topology = random_topology(dice);
  for (int i = 0; i < kCasesPerTopology; ++i) {
    Json file = with_common_families(random_case(
        dice, topology, "random-" + std::to_string(seed) + "-" + std::to_string(i), kChecksPerCase));
    auto one = expected_by_evaluator(file);
    EXPECT_TRUE(one) << load_cases_text(file.dump(), "random.json").findings.to_string();
    if (!one) continue;
    world.files.push_back(std::move(file));
    world.cases.push_back(std::move(*one));
  }
  return world;
}

TEST_F(Packets, RandomWorldsAreJudgedAlikeByKernelAndEvaluators) {
  const auto seconds = std::chrono::seconds(whole() != nullptr ? std::atoi(whole()) : 0);
  const auto end = Clock::now() + seconds;
  std::size_t packets = 0, denied = 0;
  for (unsigned seed = 1; (seed <= kTopologies || Clock::now() < end) && !HasFailure(); ++seed) {
    const RandomWorld world = random_world(seed);
    for (std::size_t i = 0; i < world.cases.size(); ++i)
      if (const std::string text = naive_disagreement(world.cases[i]); !text.empty()) {
        ADD_FAILURE() << "seed " << seed << ": " << text;
        report(world.files[i], {}, seed);
      }
    if (HasFailure()) break;
    const auto results = run_real(world.cases);
    ASSERT_TRUE(results) << results.error().message;
    packets += sent(*results);
    for (std::size_t i = 0; i < results->size(); ++i) {
      for (const CheckResult& check : (*results)[i].checks)
        denied += check.observed.verdict == CheckVerdict::Deny ? 1 : 0;
      if ((*results)[i].passed || HasFailure()) continue;
      ADD_FAILURE() << "seed " << seed << problems((*results)[i]);
      report(world.files[i], {}, seed);
    }
  }
  EXPECT_GE(packets, 2000u);
  EXPECT_GE(denied, packets / 10);
  EXPECT_GE(packets - denied, packets / 10);
  std::cout << packets << " packets, " << denied << " of them denied\n";
}

// ---- planted errors: a run that cannot fail proves nothing

// The kernel gets another verdict from the first enforced rule that allows.
void turn_a_verdict(policy::Program& program) {
  for (policy::ProgramRule& rule : program.rules)
    if (rule.action == Action::Allow && !program.policies[rule.policy].staged) {
      rule.action = Action::Deny;
      return;
    }
}

// The kernel names one rule for the other.
void swap_ids(policy::Program& program) {
  for (policy::ProgramRule& a : program.rules)
    for (policy::ProgramRule& b : program.rules)
      if (&a != &b && a.action == Action::Allow && b.action == Action::Allow) {
        std::swap(a.id, b.id);
        return;
      }
}

const char* const kTwoRules = R"({"id": "two-rules",
  "topology": {"namespaces": [{"name": "a"}], "pods": [
    {"name": "p", "namespace": "a", "ips": ["10.1.0.1"]}, {"name": "q", "namespace": "a", "ips": ["10.1.0.2"]}]},
  "policies": [{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
    "metadata": {"name": "n", "namespace": "a"}, "spec": {"ingress": [
      {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}},
      {"action": "Allow", "protocol": "TCP", "destination": {"ports": [81]}}]}}],
  "checks": [
    {"from": {"pod": "a/p"}, "to": {"pod": "a/q"}, "protocol": "TCP", "port": 80, "expect": "allow"},
    {"from": {"pod": "a/p"}, "to": {"pod": "a/q"}, "protocol": "TCP", "port": 81, "expect": "allow"},
    {"from": {"pod": "a/p"}, "to": {"pod": "a/q"}, "protocol": "TCP", "port": 82, "expect": "deny"}]})";

struct Planted {
  const char* name;
  void (*plant)(policy::Program&);
  const char* problem;
};
const Planted kPlanted[] = {{"Verdict", turn_a_verdict, "expected allow, got "},
                            {"Attribution", swap_ids, "the kernel decided ingress by rule 0x"}};

TEST_F(Packets, PlantedErrorsAreSeen) {
  const LoadedCases loaded = load_cases_text(kTwoRules, "two-rules.json");
  ASSERT_EQ(loaded.findings.to_string(), "");
  const auto good = run_real(loaded.cases);
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_TRUE(good->front().passed) << problems(good->front());
  for (const Planted& planted : kPlanted) {
    SCOPED_TRACE(planted.name);
    PacketRun run;
    run.plant = planted.plant;
    run.patience = std::chrono::milliseconds(300);
    const auto results = run_real(loaded.cases, run);
    ASSERT_TRUE(results) << results.error().message;
    EXPECT_FALSE(results->front().passed);
    EXPECT_NE(problems(results->front()).find(planted.problem), std::string::npos)
        << problems(results->front());
  }
}

TEST_F(Packets, AFailureShrinksToWhatItIsAbout) {
  const LoadedCases loaded = load_cases_text(kTwoRules, "two-rules.json");
  PacketRun run;
  run.plant = turn_a_verdict;
  run.patience = std::chrono::milliseconds(300);
  Json file = Json::parse(kTwoRules);
  ASSERT_NE(disagreement(file, run), "");
  const Json small = shrink(
      file, [&](const Json& json) { return !disagreement(json, run).empty(); }, std::chrono::seconds(30));
  EXPECT_EQ(small["checks"].size(), 1u) << small.dump(1);
  ASSERT_EQ(small["policies"].size(), 1u) << small.dump(1);
  EXPECT_EQ(small["policies"][0]["spec"]["ingress"].size(), 1u) << small.dump(1);
  EXPECT_EQ(small["topology"]["pods"].size(), 2u) << small.dump(1);
}

TEST(Shrinking, LeavesWhatCannotBeLeftOut) {
  const Json value = Json::parse(R"({"a": [1, 2, 3, {"b": 4, "c": [5, 6]}], "d": 7})");
  const Json small = shrink(
      value, [](const Json& json) { return json.dump().find('6') != std::string::npos; },
      std::chrono::seconds(5));
  EXPECT_EQ(small.dump(), R"({"a":[{"c":[6]}]})");
}

}  // namespace
}  // namespace tierlog::lab::test
