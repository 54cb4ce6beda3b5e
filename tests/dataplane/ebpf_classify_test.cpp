// The rules in the kernel's maps say what the evaluator says: verdict, rule, Log rules and passes, for random
// tuples by the thousand, by running the program that asks the classifier alone.
//
// TIERLOG_EBPF_RULES: the largest size of a shape (./test --full: 10000).
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "dataplane/ebpf/backend.h"
#include "lab/cases.h"
#include "policy/compile.h"
#include "policy/evaluate.h"
#include "tests/dataplane/question.h"
#include "tests/dataplane/shapes.h"
#include "tests/lab/random_case.h"

namespace tierlog::dataplane::test {
namespace {

using ebpf::EbpfBackend;
using policy::Action;
using policy::Packet;
using policy::Program;

constexpr std::size_t kQuestions = 8192 + 1024;
constexpr std::size_t kAgain = 9;  // each ninth comes again
constexpr std::size_t kTuples = kQuestions - kQuestions / kAgain;
static_assert(kTuples == 8192);

// What the evaluator expects; empty: the kernel says the same.
std::string difference(const Program& program, std::uint32_t endpoint_class, const Packet& packet,
                       const tl_answer& answer) {
  const auto verdict = policy::walk_class(program, endpoint_class, packet);
  if (!verdict) return "the evaluator decides nothing";
  std::size_t passes = 0, logs = 0;
  std::set<std::uint32_t> logged;
  for (const policy::TraceStep& step : verdict->trace) {
    if (step.staged) continue;
    if (step.result == policy::StepResult::Passed) ++passes;
    if (step.result == policy::StepResult::Logged) ++logs, logged.insert(number(step.rule));
  }
  const auto text = [&](const std::string& what) {
    return what + ": " + packet.source.to_string() + ":" + std::to_string(packet.source_port) + " > " +
           packet.destination.to_string() + ":" + std::to_string(packet.destination_port) + " protocol " +
           std::to_string(packet.protocol) + " kernel " + std::to_string(answer.id) + " evaluator " +
           std::to_string(number(verdict->rule));
  };
  if (answer.id != number(verdict->rule)) return text("another rule");
  if (answer.action != static_cast<std::uint32_t>(verdict->action)) return text("another verdict");
  if (answer.pass_count != passes) return text("another number of passes");
  if (answer.log_count != logs) return text("another number of Log rules");
  for (std::size_t i = 0; i < std::min<std::size_t>(answer.log_count, 4); ++i)
    if (!logged.contains(answer.logs[i])) return text("another Log rule");
  return {};
}

struct Compared {
  std::size_t differing = 0, allowed = 0, decided_by_rule = 0, cached = 0;
  std::string first;
};

Compared compare(EbpfBackend& backend, const ShapedProgram& shaped, unsigned seed) {
  Compared compared;
  std::mt19937 engine(seed);
  Packet packet;
  for (std::size_t i = 0; i < kQuestions; ++i) {
    // To many rules hardly any two tuples are the same: some come again, for the tuple cache to answer.
    if (i % kAgain != kAgain - 1) packet = shaped_packet(shaped, engine);
    const auto answer =
        backend.programs().ask(question_of(packet, backend.root(), backend.installed().class_reference(0)));
    if (!answer) {
      compared.first = answer.error().message;
      ++compared.differing;
      return compared;
    }
    const std::string differs = difference(shaped.program, 0, packet, *answer);
    if (!differs.empty() && compared.differing++ == 0) compared.first = differs;
    compared.allowed += answer->action == 0 ? 1 : 0;
    compared.cached += answer->cached;
    compared.decided_by_rule += answer->id >= kFirstPolicyRuleId ? 1 : 0;
  }
  return compared;
}

std::vector<std::size_t> sizes() {
  const char* given = std::getenv("TIERLOG_EBPF_RULES");
  const std::size_t largest = given != nullptr ? std::strtoul(given, nullptr, 10) : 100;
  std::vector<std::size_t> all;
  for (const std::size_t size : {10u, 100u, 1000u, 10'000u})
    if (size <= largest) all.push_back(size);
  return all;
}

class Classify : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_BPF and CAP_NET_ADMIN (run as root)";
    auto opened = EbpfBackend::open({});
    ASSERT_TRUE(opened) << opened.error().message;
    backend_ = std::move(*opened);
  }
  std::unique_ptr<EbpfBackend> backend_;
};

TEST_P(Classify, SaysWhatTheEvaluatorSays) {
  for (const std::size_t size : sizes()) {
    SCOPED_TRACE(size);
    const ShapedProgram shaped = shaped_program(GetParam(), size, 7);
    const auto applied = backend_->apply(std::make_shared<const Program>(shaped.program));
    ASSERT_TRUE(applied) << applied.error().message;
    const Compared compared = compare(*backend_, shaped, 11);
    EXPECT_EQ(compared.differing, 0u) << compared.first;
    EXPECT_GT(compared.cached, 0u);
    EXPECT_LT(compared.cached, kQuestions);
    std::cout << name(GetParam()) << " " << size << " rules: " << kQuestions << " questions, " << compared.allowed
              << " allowed, " << compared.cached << " from the tuple cache\n";
  }
}

// A proof must be able to fail.
TEST_P(Classify, APlantedErrorIsSeen) {
  ShapedProgram shaped = shaped_program(GetParam(), 100, 7);
  std::mt19937 engine(11);
  RuleId met{};
  for (std::size_t i = 0; i < kTuples && met == RuleId::None; ++i) {
    const auto verdict = policy::walk_class(shaped.program, 0, shaped_packet(shaped, engine));
    for (const policy::ProgramRule& rule : shaped.program.rules)
      if (rule.id == verdict->rule) met = rule.id;
  }
  auto spoiled = std::make_shared<Program>(shaped.program);
  if (met == RuleId::None) {
    spoiled->ends.front().action = Action::Pass;  // S6: no rule ever matches
  } else {
    for (policy::ProgramRule& rule : spoiled->rules)
      if (rule.id == met) rule.any_of.front().never = true, rule.any_of.resize(1);
  }
  ASSERT_TRUE(backend_->apply(spoiled));
  EXPECT_GT(compare(*backend_, shaped, 11).differing, 0u);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Classify, testing::ValuesIn(kShapes),
                         [](const auto& about) { return name(about.param); });

// Everything that rules can say, as users write it: named ports, services, negations, ICMP.
TEST(ClassifyWorlds, RandomPoliciesSayWhatTheEvaluatorSays) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_BPF and CAP_NET_ADMIN (run as root)";
  auto opened = EbpfBackend::open({});
  ASSERT_TRUE(opened) << opened.error().message;
  EbpfBackend& backend = **opened;
  std::size_t asked = 0, in_place = 0;
  policy::MemoryRuleIds ids;
  for (unsigned seed = 1; seed <= 12 && !testing::Test::HasFailure(); ++seed) {
    lab::test::Dice dice(seed);
    const auto topology = lab::test::random_topology(dice);
    for (int i = 0; i < 4; ++i) {
      const auto file = lab::test::random_case(dice, topology, "random", 80);
      const auto loaded = lab::load_cases_text(file.dump(), "random.json");
      if (loaded.cases.size() != 1) continue;
      auto cluster = std::make_shared<policy::Cluster>(loaded.cases[0].topology.cluster);
      for (policy::Endpoint& pod : cluster->endpoints) pod.local = !pod.host_network;
      cluster->host_endpoints.clear();
      const auto compiled =
          policy::compile(loaded.cases[0].policies, cluster, ids, {policy::CompileOptions::Scope::Local, 1});
      ASSERT_TRUE(compiled) << compiled.error().message;
      const auto ask = [&](const Program& program) {
        for (const lab::Check& check : loaded.cases[0].checks) {
          const auto packet = lab::packet_of(*cluster, check);
          if (!packet) continue;
          for (std::uint32_t klass = 0; klass < program.classes.size(); ++klass) {
            const std::uint32_t reference = backend.installed().class_reference(klass);
            if (reference == 0) continue;
            const auto answer = backend.programs().ask(question_of(*packet, backend.root(), reference));
            ASSERT_TRUE(answer) << answer.error().message;
            EXPECT_EQ(difference(program, klass, *packet, *answer), "") << "seed " << seed << " case " << i;
            ++asked;
          }
        }
      };
      const auto program = std::make_shared<const Program>(*compiled);
      const auto applied = backend.apply(program);
      ASSERT_TRUE(applied) << applied.error().message;
      ask(*program);
      // One pod after the other gets the labels of another one.
      for (int change = 0; change < 3; ++change) {
        auto changed = std::make_shared<policy::Cluster>(*cluster);
        const auto endpoint = [&]() -> policy::Endpoint& {
          return changed->endpoints[static_cast<std::size_t>(dice.below(static_cast<int>(changed->endpoints.size())))];
        };
        policy::Endpoint& pod = endpoint();
        pod.labels = endpoint().labels;
        cluster = changed;
        const auto next =
            policy::compile(loaded.cases[0].policies, cluster, ids, {policy::CompileOptions::Scope::Local, 1});
        ASSERT_TRUE(next) << next.error().message;
        const auto with_change = std::make_shared<const Program>(*next);
        const std::uint64_t used = backend.installed().arena().used();
        const auto again = backend.apply(with_change);
        ASSERT_TRUE(again) << again.error().message;
        in_place += backend.installed().arena().used() == used ? 1 : 0;
        ask(*with_change);
      }
    }
  }
  EXPECT_GE(asked, 8192u);
  EXPECT_GT(in_place, 10u);
  std::cout << asked << " questions, " << in_place << " changes that moved nothing\n";
}

}  // namespace
}  // namespace tierlog::dataplane::test
