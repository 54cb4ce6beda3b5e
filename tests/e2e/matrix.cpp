#include "tests/e2e/matrix.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "endpoints/control.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

// Below the first retransmission of a SYN.
constexpr auto kPatience = 800ms;
constexpr std::size_t kSideBySide = 24;

lab::Attempt attempt(const Try& t) {
  const lab::Sender sender{t.from, 0};
  if (t.protocol == protocol::kTcp) return lab::try_tcp(t.to, t.port, kPatience, sender);
  if (t.protocol == protocol::kUdp) return lab::try_udp(t.to, t.port, kPatience, sender);
  return lab::try_ping(t.to, kPatience, sender);
}

// In the child, inside the host: outcomes go to memory that both processes share.
int attempt_side_by_side(const std::vector<Try>& tries, const std::vector<std::size_t>& mine,
                         lab::Attempt* outcomes) {
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min(kSideBySide, mine.size()); ++i)
    threads.emplace_back([&] {
      for (std::size_t at = next++; at < mine.size(); at = next++)
        outcomes[mine[at]] = attempt(tries[mine[at]]);
    });
  for (std::thread& thread : threads) thread.join();
  return 0;
}

Decision decision_of(const policy::Program& program, const policy::DirectionVerdict& verdict) {
  Decision decision;
  decision.direction = verdict.direction;
  decision.allows = verdict.action == policy::Action::Allow;
  const policy::RuleRef ref = program.by_id.at(verdict.rule);
  if (ref.kind == policy::RuleRef::Kind::Rule) {
    const policy::ProgramRule& rule = program.rules[ref.index];
    decision.policy = program.policies[rule.policy].display;
    decision.rule_index = rule.index;
    decision.reason = Reason::Policy;
  } else if (ref.kind == policy::RuleRef::Kind::EndOfTier) {
    decision.policy = program.policies[program.ends[ref.index].policies.back()].display;
    decision.rule_index = -1;
    decision.reason = Reason::EndOfTier;
  } else {
    decision.reason = find_reserved(verdict.rule)->reason;
  }
  return decision;
}

bool is_of(const store::FlowRecord& record, const Try& t) {
  if (record.src.ip != t.from || record.dst.ip != t.to || record.proto != t.protocol) return false;
  return protocol::is_icmp(t.protocol) || record.dst_port == t.port;
}

}  // namespace

std::string Try::title() const {
  const std::string what = protocol::is_icmp(protocol)
                               ? protocol::name(protocol)
                               : std::to_string(port) + "/" + protocol::name(protocol);
  return from_host + " " + from.to_string() + " -> " + to.to_string() + " " + what;
}

policy::Packet Try::packet() const {
  policy::Packet packet{from, to, protocol, 0, port, 0, 0};
  packet.source_port = protocol::has_ports(protocol) ? 40'000 : 0;
  if (protocol == protocol::kIcmp) packet.icmp_type = 8;
  if (protocol == protocol::kIcmpV6) packet.icmp_type = 128;
  return packet;
}

void attempt_all(const lab::Lab& lab, std::vector<Try>& tries) {
  std::map<std::string, std::vector<std::size_t>> by_host;
  for (std::size_t i = 0; i < tries.size(); ++i) by_host[tries[i].from_host].push_back(i);
  void* shared = ::mmap(nullptr, tries.size() * sizeof(lab::Attempt), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* outcomes = static_cast<lab::Attempt*>(shared);
  std::vector<pid_t> children;
  for (const auto& [host, mine] : by_host) {
    const auto child = lab.start_in(host, [&] { return attempt_side_by_side(tries, mine, outcomes); });
    ASSERT_TRUE(child) << child.error().message;
    children.push_back(*child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  for (std::size_t i = 0; i < tries.size(); ++i) tries[i].outcome = outcomes[i];
  ::munmap(shared, tries.size() * sizeof(lab::Attempt));
}

void flush(const lab::Lab& lab) {
  const auto done = endpoints::call(lab.socket(), {{"op", "flush"}}, std::chrono::seconds(60));
  ASSERT_TRUE(done) << done.error().message;
}

std::vector<Decision> expected_decisions(const policy::Program& program, const policy::Packet& packet) {
  const policy::Evaluation evaluation = policy::evaluate(program, packet);
  std::vector<Decision> decisions;
  for (const auto* verdict : {&evaluation.egress, &evaluation.ingress})
    if (*verdict) decisions.push_back(decision_of(program, **verdict));
  return decisions;
}

Index Index::read(const std::string& database) {
  Index index;
  auto reader = store::FlowReader::open(database);
  EXPECT_TRUE(reader) << reader.error().message;
  if (!reader) return index;
  store::FlowQuery everything;
  everything.limit = 0;
  auto records = reader->flows(everything);
  EXPECT_TRUE(records) << records.error().message;
  for (store::StoredRecord& stored : *records) index.records_.push_back(std::move(stored.record));
  auto rules = reader->rules({}, true);
  EXPECT_TRUE(rules) << rules.error().message;
  index.rules_ = std::move(*rules);
  return index;
}

std::string Index::disagreement(const Try& t, const Decision& decision) const {
  const auto wanted =
      decision.direction == Direction::Egress ? store::Reporter::Source : store::Reporter::Destination;
  std::vector<const store::FlowRecord*> found;
  for (const store::FlowRecord& record : records_)
    // Later records of a connection tell its bytes, no verdict.
    if (record.reporter == wanted && record.verdict_packets > 0 && is_of(record, t)) found.push_back(&record);
  if (found.size() != 1) return std::to_string(found.size()) + " records instead of one";
  const store::FlowRecord& r = *found.front();
  const auto said = [](bool allows, const std::string& policy, std::optional<int> index,
                       std::string_view reason) {
    return std::string(allows ? "allow" : "deny") + " by " + policy + "[" +
           (index ? std::to_string(*index) : "-") + "] " + std::string(reason);
  };
  const std::string expected =
      said(decision.allows, decision.policy, decision.rule_index, name(decision.reason));
  const std::string recorded =
      said(r.action == store::Verdict::Allow, r.policy, r.rule_index, name(r.reason));
  if (recorded != expected) return "recorded " + recorded + ", expected " + expected;
  const std::string tier = r.policy.substr(0, r.policy.find('/'));
  if (r.tier != tier) return "tier " + r.tier + " of policy " + r.policy;
  for (const store::RuleActivity& known : rules_)
    if (known.rule.id == r.rule) {
      if (known.rule.policy == decision.policy && known.rule.rule_index == decision.rule_index &&
          known.rule.direction == decision.direction && known.rule.reason == name(decision.reason))
        return {};
      return "rule id " + to_hex(r.rule) + " is " + known.rule.policy + "[" +
             std::to_string(known.rule.rule_index.value_or(-2)) + "] " + known.rule.reason;
    }
  return "rule id " + to_hex(r.rule) + " is unknown";
}

}  // namespace tierlog::testing
