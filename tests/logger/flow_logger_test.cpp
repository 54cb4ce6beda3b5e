// Events and counts in, records out: attribution, the other end's view, what a restart tells. No kernel.
#include "tests/logger/flow_logger_pods.h"

namespace tierlog::logger {
namespace {

TEST_F(FlowLoggerTest, ADenialNamesTierPolicyRuleAndPods) {
  const auto records = give(event(EventKind::Denied, rule_of(2), "192.0.2.9", "10.0.0.1", 5432, 1));
  ASSERT_EQ(records.size(), 1u);
  const FlowRecord& r = records[0];
  EXPECT_EQ(r.action, store::Verdict::Deny);
  EXPECT_EQ(r.reporter, store::Reporter::Destination);
  EXPECT_EQ(r.reason, Reason::Policy);
  EXPECT_EQ(r.tier, "platform");
  EXPECT_EQ(r.policy, "platform/a/restrict");
  EXPECT_EQ(r.policy_kind, "NetworkPolicy");
  EXPECT_EQ(r.rule_index, 2);
  EXPECT_EQ(r.rule, rule_of(2));
  EXPECT_EQ(r.policy_revision, 1u);
  EXPECT_EQ(r.dst.name, "db");
  EXPECT_EQ(r.src.kind, store::PeerKind::Public);
  EXPECT_EQ(r.src_port, 40'000);
  EXPECT_EQ(r.tcp_flags, "s");
  EXPECT_EQ(r.connections, std::nullopt);
  EXPECT_EQ(r.verdict_packets, 1u);
  EXPECT_EQ(r.bytes_out, 60u);
  EXPECT_EQ(r.id.size(), 36u);
  ASSERT_EQ(r.logged_by.size(), 1u);
  EXPECT_EQ(r.logged_by[0].rule_index, 0);
  ASSERT_EQ(r.staged.size(), 1u);
  EXPECT_EQ(r.staged[0].policy, "platform/a/tighten");
  EXPECT_EQ(r.staged[0].action, store::Verdict::Deny);
  ASSERT_FALSE(r.trace.empty());
  EXPECT_EQ(r.trace.back().result, "deny");
  EXPECT_EQ(logger_.counts().mismatches, 0u);
}

TEST_F(FlowLoggerTest, TheEndOfATierIsItsOwnRule) {
  const auto records = give(event(EventKind::Denied, end_of_platform(), "192.0.2.9", "10.0.0.1", 80, 1));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].reason, Reason::EndOfTier);
  EXPECT_EQ(records[0].rule_index, -1);
  EXPECT_EQ(records[0].policy, "platform/a/restrict");
}

TEST_F(FlowLoggerTest, AnAllowedConnectionIsOneRecordAnEnd) {
  const auto records = give(event(EventKind::Allowed, rule_of(1), "10.0.0.2", "10.0.0.1", 5432, 1));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].action, store::Verdict::Allow);
  EXPECT_EQ(records[0].connections, 1u);
  EXPECT_EQ(records[0].verdict_packets, 1u);
  EXPECT_EQ(records[0].packets_out, 1u);
  EXPECT_EQ(records[0].bytes_out, 60u);
  EXPECT_EQ(records[0].packets_in, 0u);
  EXPECT_EQ(records[0].bytes_in, 0u);
  EXPECT_EQ(logger_.counts().mismatches, 0u);
}

TEST_F(FlowLoggerTest, ALocalPairDeniedAtIngressHasTheSourcesViewToo) {
  const auto records = give(event(EventKind::Denied, rule_of(2), "10.0.0.3", "10.0.0.1", 5432, 1));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].reporter, store::Reporter::Destination);
  EXPECT_EQ(records[1].reporter, store::Reporter::Source);
  EXPECT_EQ(records[1].action, store::Verdict::Allow);
  EXPECT_EQ(records[1].policy, "default//out");
  EXPECT_EQ(records[1].verdict_packets, 1u);
  EXPECT_EQ(records[1].connections, std::nullopt);
  ASSERT_FALSE(records[0].trace.empty());
  EXPECT_EQ(records[0].trace.front().direction, Direction::Egress) << "the way there comes first";
  EXPECT_EQ(records[0].trace.back().direction, Direction::Ingress);
  for (const store::TraceEntry& entry : records[1].trace) EXPECT_EQ(entry.direction, Direction::Egress);
}

// By a Service's address and by its own, a pod dials one backend: the kernel counts the two apart, and only the second
// where it left its source as well.
TEST_F(FlowLoggerTest, WhatItsSourceToldByItselfIsApartAlsoAfterARestart) {
  const RuleId rule = rule_of(2);
  VerdictEvent by_service = event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1);
  by_service.alone = true;
  EXPECT_EQ(give(by_service).size(), 1u);
  EXPECT_EQ(give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1)).size(), 2u);
  const auto counted = [&](std::uint64_t by_service_packets, std::uint64_t packets) {
    std::vector<DeniedCount> counts{count(rule, by_service_packets), count(rule, packets)};
    counts[0].alone = true;
    return counts;
  };
  const auto packets_of = [](const std::vector<FlowRecord>& records, store::Reporter reporter) {
    std::uint64_t sum = 0;
    for (const FlowRecord& record : records)
      if (record.reporter == reporter) sum += record.verdict_packets;
    return sum;
  };
  const auto more = read(counted(3, 5), 10);
  EXPECT_EQ(packets_of(more, store::Reporter::Destination), 6u);
  EXPECT_EQ(packets_of(more, store::Reporter::Source), 4u);
  EXPECT_EQ(logger_.waiting_by_rule(counted(13, 6))[rule], 11u);
  EXPECT_EQ(logger_.waiting(counted(13, 6)), 12u);
  const store::ToldChanges told = logger_.take_changes();
  ASSERT_EQ(told.denied.size(), 2u);
  FlowLogger next(std::chrono::seconds(60), 1000);
  next.set_program(program_, {}, at(0));
  next.set_denied_baseline(counted(3, 5), at(20), told.denied, {{rule, 100}});
  EXPECT_TRUE(next.take_records().empty());
  next.on_denied_counts(counted(13, 6), at(30), FlowLogger::Reading::Regular);
  const auto later = next.take_records();
  EXPECT_EQ(packets_of(later, store::Reporter::Destination), 11u);
  EXPECT_EQ(packets_of(later, store::Reporter::Source), 1u);
}

// Two policy sets may have the rule that decided; the way to it is that of the set in force then.
TEST_F(FlowLoggerTest, ALateEventIsTracedByThePoliciesOfItsTime) {
  auto changed = std::make_shared<policy::Program>(*program_);
  for (policy::ProgramTier& tier : changed->tiers)
    if (tier.name == "platform") tier.name = "renamed";
  logger_.set_program(changed, {}, at(100));
  const auto last_tier = [&](const char* from, int when) {
    const auto records = give(event(EventKind::Denied, rule_of(2), from, "10.0.0.1", 5432, when));
    EXPECT_EQ(records.size(), 1u);
    return records.empty() || records[0].trace.empty() ? "" : records[0].trace.back().tier;
  };
  EXPECT_EQ(last_tier("192.0.2.1", 99), "platform");
  EXPECT_EQ(last_tier("192.0.2.2", 101), "renamed");
  EXPECT_EQ(logger_.counts().mismatches, 0u);
}

// The rules and the names of then, the time of its packets, and nothing twice.
TEST_F(FlowLoggerTest, WhatWasDeniedWhileNobodyWatchedIsToldByTheRulesOfThen) {
  const RuleId old_rule = rule_of(2);
  FlowLogger next(std::chrono::seconds(60), 1000);
  next.set_program(program_, {}, at(0));
  auto changed = std::make_shared<policy::Program>(*program_);
  for (policy::ProgramRule& rule : changed->rules) rule.id = RuleId{number(rule.id) + 1000};
  changed->by_id.clear();
  next.set_program(changed, {}, at(100));
  DeniedCount entry = count(old_rule, 5);
  entry.idle = std::chrono::seconds(20);
  DeniedCount one = entry;
  one.source = *IpAddr::parse("192.0.2.9");
  one.packets = 1;
  const auto news = next.set_denied_baseline(std::vector{entry, one}, at(101), {}, {{old_rule, 100}}, at(70));
  ASSERT_EQ(news.at(old_rule), 6u);
  const auto records = next.take_records();
  ASSERT_EQ(records.size(), 3u) << "and the source's view of one";
  for (const FlowRecord& record : records) {
    EXPECT_EQ(record.end, at(81));
    EXPECT_FALSE(record.trace.empty());
    EXPECT_EQ(record.start, record.src.ip == entry.source ? at(70) : at(81));
  }
  EXPECT_EQ(next.counts().mismatches, 0u);
  next.on_denied_counts(std::vector{entry, one}, at(102), FlowLogger::Reading::Regular);
  EXPECT_TRUE(next.take_records().empty());

  // The control: by the new rules alone the kernel would seem to have been wrong; of a time before them nobody knows.
  for (const auto& [since, mismatches] : {std::pair{0, 2u}, {90, 0u}}) {
    FlowLogger other(std::chrono::seconds(60), 1000);
    other.learn(std::vector{*logger_.rule(old_rule)});
    other.set_program(changed, {}, at(since));
    other.set_denied_baseline(std::vector{entry, one}, at(101), {}, {{old_rule, 100}}, at(70));
    EXPECT_EQ(other.counts().mismatches, mismatches);
  }
}

// The reading before the start may be seconds old when its turn comes, or the last touch was never told: only
// half a lifetime says that the entry was made again.
TEST_F(FlowLoggerTest, ARestartTellsNothingTwiceHoweverLateItReads) {
  const RuleId rule = rule_of(2);
  for (const int touched : {0, 3, 20}) {
    SCOPED_TRACE(touched);
    FlowLogger next(std::chrono::seconds(60), 1000);
    next.set_program(program_, {}, at(0));
    const DeniedCount entry = count(rule, 1);
    const store::ToldDenied told{1, rule, entry.source, entry.destination, entry.protocol, entry.port_or_icmp, 1, entry.bytes, at(100)};
    DeniedCount found = entry;
    found.idle = {};
    next.set_denied_baseline(std::vector{found}, at(100 + touched), std::vector{told}, {{rule, 100}});
    next.on_denied_counts(std::vector{found}, at(101 + touched), FlowLogger::Reading::Regular);
    EXPECT_TRUE(next.take_records().empty());
  }
  FlowLogger next(std::chrono::seconds(60), 1000);
  next.set_program(program_, {}, at(0));
  const DeniedCount entry = count(rule, 1);
  const store::ToldDenied told{1, rule, entry.source, entry.destination, entry.protocol, entry.port_or_icmp, 1, entry.bytes, at(100)};
  DeniedCount found = entry;
  found.idle = {};
  next.set_denied_baseline(std::vector{found}, at(170), std::vector{told}, {{rule, 100}});
  next.on_denied_counts(std::vector{found}, at(171), FlowLogger::Reading::Regular);
  EXPECT_FALSE(next.take_records().empty()) << "the old entry expired: this is another packet";
}

// Its connection was counted at the egress rule when it began, and is not again.
TEST_F(FlowLoggerTest, APacketDeniedInALivingConnectionHasNoEgressRecord) {
  VerdictEvent denied = event(EventKind::Denied, rule_of(2), "10.0.0.3", "10.0.0.1", 5432, 1);
  ASSERT_EQ(give(denied).size(), 2u) << "one of a new connection has";
  denied.in_connection = true;
  for (int packet = 0; packet < 2; ++packet) {
    const auto records = give(denied);
    ASSERT_EQ(records.size(), 1u) << "each packet is told by itself";
    EXPECT_EQ(records[0].verdict_packets, 1u);
    EXPECT_EQ(records[0].action, store::Verdict::Deny);
  }
}

// The control of all attribution: a kernel that names the wrong rule is noticed.
TEST_F(FlowLoggerTest, APlantedWrongIdIsCountedAsAMismatch) {
  give(event(EventKind::Denied, rule_of(2), "10.0.0.2", "10.0.0.1", 5432, 1));  // rule 1 allows this one
  EXPECT_EQ(logger_.counts().mismatches, 1u);
  give(event(EventKind::Allowed, rule_of(1), "10.0.0.3", "10.0.0.1", 5432, 1));  // rule 2 denies this one
  EXPECT_EQ(logger_.counts().mismatches, 2u);
}

TEST_F(FlowLoggerTest, AnIdThatNobodyKnowsIsCounted) {
  EXPECT_TRUE(give(event(EventKind::Allowed, RuleId{0xdead}, "10.0.0.3", "10.0.0.1", 5432, 1)).empty());
  EXPECT_EQ(logger_.counts().unknown_rules, 1u);
}

TEST_F(FlowLoggerTest, AnEventThatComesAfterAReplacementKeepsItsRule) {
  const RuleId old_rule = rule_of(2);
  std::string changed = kPolicies;
  changed.replace(changed.find("[5432]}}\n---"), 6, "[5433]");
  logger_.set_program(compile(changed.c_str()), {}, at(5));
  const auto records = give(event(EventKind::Denied, old_rule, "192.0.2.9", "10.0.0.1", 5432, 4));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].rule, old_rule);
  EXPECT_EQ(records[0].policy_revision, 1u);
  EXPECT_FALSE(records[0].trace.empty());
  EXPECT_EQ(logger_.counts().mismatches, 0u);
}

// The deny rule stays, the rule that let it leave does not; nor does the pod behind the address.
TEST_F(FlowLoggerTest, ALivingDeniedFlowIsDescribedAnewAfterAChange) {
  const RuleId rule = rule_of(2);
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  std::string changed = kPolicies;
  changed.replace(changed.find("name: out"), 9, "name: new");
  logger_.set_program(compile(changed.c_str()), {}, at(5));
  const auto records = read({count(rule, 3)}, 10);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].verdict_packets, 2u);
  EXPECT_EQ(records[0].src_port, 40'000) << "what the first packet told stays";
  EXPECT_EQ(records[1].policy, "default//new");
}

TEST_F(FlowLoggerTest, AnUnaskedIcmpReplyIsCountedByBothRulesLikeAnyOther) {
  VerdictEvent e = event(EventKind::Denied, end_of_platform(), "10.0.0.3", "10.0.0.1", 0, 1);
  e.protocol = protocol::kIcmp;
  e.tcp_flags = 0;
  e.icmp_type = 0;
  EXPECT_EQ(give(e).size(), 2u);
  e.icmp_type = 8;
  EXPECT_EQ(give(e).size(), 2u);
}

TEST_F(FlowLoggerTest, WhatHasNoRecordYetIsWaiting) {
  const RuleId rule = rule_of(2);
  EXPECT_EQ(logger_.waiting(std::vector{count(rule, 4)}), 8u) << "both ends' rules counted each";
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  EXPECT_EQ(logger_.waiting(std::vector{count(rule, 1)}), 0u);
  EXPECT_EQ(logger_.waiting(std::vector{count(rule, 5)}), 8u);
  read({count(rule, 5)}, 10);
  EXPECT_EQ(logger_.waiting(std::vector{count(rule, 5)}), 0u);
}

// No entry of the kernel counts them: each message is a packet, told at once and then once per reading.
TEST_F(FlowLoggerTest, PacketsThatFoundTheSetFullAreCountedFlowByFlow) {
  const RuleId rule = rule_of(2);
  std::vector<VerdictEvent> flood;
  for (int i = 0; i < 1000; ++i)
    flood.push_back(event(EventKind::Overflow, rule, i % 4 == 0 ? "10.0.0.3" : "192.0.2.9", "10.0.0.1", 5432, 1));
  logger_.on_events(flood);
  auto records = logger_.take_records();
  ASSERT_EQ(records.size(), 3u) << "two flows, one of them told by both ends";
  EXPECT_EQ(logger_.waiting({}), 999u - 1 + 249) << "the rest is on its way";
  for (FlowRecord& record : read({}, 10)) records.push_back(std::move(record));
  std::uint64_t packets = 0, bytes = 0;
  for (const FlowRecord& record : records)
    if (record.reporter == store::Reporter::Destination) {
      packets += record.verdict_packets;
      bytes += record.bytes_out.value();
    }
  EXPECT_EQ(packets, 1000u);
  EXPECT_EQ(bytes, 60'000u);
  EXPECT_TRUE(read({}, 20).empty()) << "told once";
  EXPECT_EQ(logger_.waiting({}), 0u);
}

// One evaluation for all packets alike; a wrong one is counted at each, and kept to be seen again.
TEST_F(FlowLoggerTest, EachDisagreementIsCountedAndCanBeSeenAgain) {
  for (int i = 0; i < 3; ++i) give(event(EventKind::Allowed, rule_of(1), "10.0.0.3", "10.0.0.1", 5432, i + 1));
  EXPECT_EQ(logger_.counts().mismatches, 3u);
  const auto found = logger_.take_disagreements();
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].event.destination_port, 5432);
  EXPECT_NE(found[0].kernel.find("platform/a/restrict"), std::string::npos) << found[0].kernel;
  EXPECT_NE(found[0].kernel, found[0].evaluator);
  EXPECT_EQ(found[0].program, program_);
}

// The answer of the pod that had the address is not given to the one that has it now.
TEST_F(FlowLoggerTest, AKeptAnswerDoesNotOutliveTheAddressItIsAbout) {
  EXPECT_EQ(give(event(EventKind::Denied, rule_of(2), "192.0.2.9", "10.0.0.1", 5432, 1)).at(0).dst.name, "db");
  pods_[0].name = "other";
  logger_.set_program(compile(kPolicies), {}, at(5));
  EXPECT_EQ(give(event(EventKind::Overflow, rule_of(2), "192.0.2.9", "10.0.0.1", 5432, 6)).at(0).dst.name, "other");
  EXPECT_EQ(give(event(EventKind::Allowed, rule_of(1), "10.0.0.2", "10.0.0.1", 5432, 4)).at(0).dst.name, "db")
      << "a late message is told by the names of its time";
}

TEST_F(FlowLoggerTest, AFirstPacketNamesTheServiceThatItWasSentTo) {
  logger_.set_services({{*IpAddr::parse("10.96.0.9"), protocol::kTcp, 443, "a/db"}});
  VerdictEvent e = event(EventKind::Allowed, rule_of(1), "10.0.0.2", "10.0.0.1", 5432, 1);
  e.addressed = dataplane::Addressed{*IpAddr::parse("10.96.0.9"), 443};
  const auto records = give(e);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].dst_service, "a/db");
  ASSERT_TRUE(records[0].translation);
  EXPECT_EQ(records[0].translation->destination, IpAddr::parse("10.96.0.9"));
  EXPECT_EQ(records[0].translation->destination_port, 443);
  EXPECT_EQ(records[0].dst_port, 5432) << "the real one";
}

TEST_F(FlowLoggerTest, ManyRulesThatDenyOneAddressAreToldApart) {
  give(event(EventKind::Denied, rule_of(2), "192.0.2.9", "10.0.0.1", 5432, 1));
  give(event(EventKind::Denied, end_of_platform(), "192.0.2.9", "10.0.0.1", 80, 1));
  DeniedCount other = count(end_of_platform(), 7, "192.0.2.9");
  other.port_or_icmp = 80;
  const auto records = read({count(rule_of(2), 3, "192.0.2.9"), other}, 10);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].rule, rule_of(2));
  EXPECT_EQ(records[0].verdict_packets, 2u);
  EXPECT_EQ(records[1].rule, end_of_platform());
  EXPECT_EQ(records[1].verdict_packets, 6u);
}

TEST_F(FlowLoggerTest, IcmpHasTypeAndCodeAndNoPorts) {
  VerdictEvent e = event(EventKind::Denied, end_of_platform(), "192.0.2.9", "10.0.0.1", 0, 1);
  e.protocol = protocol::kIcmp;
  e.icmp_type = 8;
  e.tcp_flags = 0;
  const auto records = give(e);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].icmp_type, 8);
  EXPECT_EQ(records[0].dst_port, std::nullopt);
  DeniedCount counted{e.rule, e.source, e.destination, protocol::kIcmp, 0x0800, 3, 252};
  const auto rest = read({counted}, 10);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].verdict_packets, 2u);
}

}  // namespace
}  // namespace tierlog::logger
