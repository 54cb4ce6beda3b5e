// Allowed connections over time: what each record adds, and that the sum is what conntrack counted.
#include "logger/connections.h"

#include <gtest/gtest.h>
#include <linux/netfilter/nf_conntrack_common.h>

namespace tierlog::logger {
namespace {

using dataplane::Connection;
using dataplane::ConnectionTuple;
using store::FlowRecord;

constexpr RuleId kOut{0x201};
constexpr RuleId kIn{0x202};
constexpr RuleId kNobodys{0xdead};
const IpAddr kClient = *IpAddr::parse("10.0.0.2");
const IpAddr kServer = *IpAddr::parse("10.0.0.1");
const IpAddr kService = *IpAddr::parse("10.96.0.9");
const IpAddr kMasquerade = *IpAddr::parse("192.0.2.7");

constexpr auto at = [](int seconds) { return WallTime(std::chrono::seconds(1'700'000'000 + seconds)); };

struct Sum {
  std::uint64_t packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0, connections = 0, verdicts = 0;
  bool operator==(const Sum&) const = default;
};
void PrintTo(const Sum& s, std::ostream* out) {
  *out << s.packets_out << "/" << s.bytes_out << " " << s.packets_in << "/" << s.bytes_in << " of "
       << s.connections << ", " << s.verdicts << " verdicts";
}

class ConnectionsTest : public ::testing::Test {
 protected:
  static std::optional<FlowRecord> describe(RuleId rule, const ConnectionTuple& view, WallTime) {
    if (rule == kNobodys) return std::nullopt;
    FlowRecord record;
    record.rule = rule;
    record.direction =
        rule == kOut || rule == reserved::kPreexistingEgress ? Direction::Egress : Direction::Ingress;
    record.src.ip = view.source;
    record.dst.ip = view.destination;
    record.proto = view.protocol;
    if (protocol::has_ports(view.protocol)) record.dst_port = view.destination_port;
    return record;
  }

  static Description share(const FlowRecord& record) { return std::make_shared<const FlowRecord>(record); }
  static Description description(RuleId rule, const ConnectionTuple& view, WallTime when) {
    const auto record = describe(rule, view, when);
    return record ? share(*record) : nullptr;
  }
  static std::string service(const IpAddr& address, std::uint8_t, std::uint16_t port) {
    return address == kService && port == 443 ? "shop/web" : "";
  }

  static ConnectionTuple tuple(std::uint16_t port, std::uint8_t proto = protocol::kTcp) {
    return {kClient, kServer, proto, port, 80, 0, 0, 0};
  }
  static ConnectionTuple echo(std::uint16_t id) {
    return {kClient, kServer, protocol::kIcmp, 0, 0, 8, 0, id};
  }

  static Connection entry(const ConnectionTuple& view, std::uint32_t id, std::uint64_t out,
                          std::uint64_t in = 0) {
    Connection connection;
    connection.original = view;
    connection.reply = {
        view.destination, view.source, view.protocol, view.destination_port, view.source_port, 0, 0,
        view.icmp_id};
    connection.id = id;
    connection.packets_out = out;
    connection.bytes_out = out * 100;
    connection.packets_in = in;
    connection.bytes_in = in * 1000;
    connection.has_labels = true;
    connection.labels = {kOut, kIn, 0};
    return connection;
  }

  // The first packet as FlowLogger records it, 100 bytes long.
  void begin(const ConnectionTuple& view, int when, std::initializer_list<RuleId> rules = {kOut, kIn}) {
    for (const RuleId rule : rules) {
      FlowRecord record = *describe(rule, view, at(when));
      record.start = record.end = at(when);
      record.connections = 1;
      record.verdict_packets = 1;
      record.packets_out = 1;
      record.bytes_out = 100;
      record.packets_in = record.bytes_in = 0;
      store::FlowEntry first;
      first.like = share(record);
      first.start = first.end = record.start;
      first.packets_out = 1;
      first.bytes_out = 100;
      connections_.begin(view, first);
      made_.push_back(record);
    }
  }
  void end(const Connection& connection, int when) {
    connections_.on_ended({&connection, 1}, at(when));
    settle(when);
  }
  void settle(int when) {
    connections_.settle(at(when));
    take();
  }
  void dump(const std::vector<Connection>& entries, int when,
            Connections::Dump kind = Connections::Dump::Interval) {
    connections_.on_dump(entries, at(when), kind);
    take();
  }
  PacketsOfRules tell_unheard(PacketsOfRules room, int when) {
    auto told = connections_.tell_unheard(std::move(room), at(when));
    take();
    std::erase_if(told, [](const auto& entry) { return entry.second == 0; });
    return told;
  }
  void take() {
    for (const store::FlowEntry& entry : connections_.take_entries()) made_.push_back(to_record(entry));
  }
  store::ToldChanges changes() {
    store::ToldChanges changes;
    connections_.take_changes(changes);
    return changes;
  }

  Sum sum(RuleId rule) const {
    Sum sum;
    for (const FlowRecord& record : made_) {
      if (record.rule != rule) continue;
      sum.packets_out += record.packets_out.value_or(0);
      sum.bytes_out += record.bytes_out.value_or(0);
      sum.packets_in += record.packets_in.value_or(0);
      sum.bytes_in += record.bytes_in.value_or(0);
      sum.connections += record.connections.value_or(0);
      sum.verdicts += record.verdict_packets;
    }
    return sum;
  }

  Connections connections_{{description, [](const IpAddr& address) { return address == kServer; }, service}};
  std::vector<FlowRecord> made_;
};

TEST_F(ConnectionsTest, BothViewsAddUpToWhatConntrackCounted) {
  const ConnectionTuple view = tuple(40'000);
  begin(view, 1);
  dump({entry(view, 7, 5, 3)}, 60);
  dump({entry(view, 7, 5, 3)}, 120);
  dump({entry(view, 7, 9, 9)}, 180);
  end(entry(view, 7, 11, 10), 200);
  for (const RuleId rule : {kOut, kIn}) EXPECT_EQ(sum(rule), (Sum{11, 1100, 10, 10'000, 1, 1}));
  EXPECT_EQ(connections_.open(), 0u);
  ASSERT_EQ(made_.size(), 8u) << "two first packets, two intervals and an end in two views";
  EXPECT_EQ(made_[2].ct_state, "established");
  EXPECT_EQ(made_[2].start, at(1));
  EXPECT_EQ(made_[2].end, at(60));
  EXPECT_EQ(made_[2].src_port, 40'000);
  EXPECT_EQ(made_[4].start, at(60)) << "nothing moved in between";
  EXPECT_EQ(made_.back().ct_state, "closed");
}

// How it ended is what conntrack knew last.
TEST_F(ConnectionsTest, AnEndHasItsReason) {
  struct Case {
    const char* name;
    std::uint8_t proto;
    std::uint8_t tcp_state;  // TCP_CONNTRACK_…
    std::uint64_t answered;
    store::EndReason wanted;
  };
  constexpr std::uint8_t kEstablished = 3, kTimeWait = 7, kClosed = 8, kSynSent = 1;
  const Case cases[] = {{"finished", protocol::kTcp, kTimeWait, 4, store::EndReason::Finished},
                        {"reset", protocol::kTcp, kClosed, 4, store::EndReason::Reset},
                        {"silent for too long", protocol::kTcp, kEstablished, 4, store::EndReason::TimedOut},
                        {"nobody there", protocol::kTcp, kSynSent, 0, store::EndReason::Unanswered},
                        {"answered datagram", protocol::kUdp, 0, 1, store::EndReason::TimedOut},
                        {"lost datagram", protocol::kUdp, 0, 0, store::EndReason::Unanswered}};
  std::uint16_t port = 40'000;
  for (const Case& c : cases) {
    const ConnectionTuple view = tuple(++port, c.proto);
    begin(view, 1, {kIn});
    EXPECT_EQ(made_.back().end_reason, store::EndReason::None);
    Connection ended = entry(view, port, 5, c.answered);
    ended.tcp_state = c.tcp_state;
    end(ended, 10);
    EXPECT_EQ(made_.back().end_reason, c.wanted) << c.name;
  }
}

// Where the way out of a pod to a Service and the way into the backend are two entries, each tells of its own side,
// also to a daemon that comes later.
TEST_F(ConnectionsTest, WhatIsApartIsToldOfItsOwnSideOnly) {
  const ConnectionTuple in = tuple(40'000);
  ConnectionTuple out = in;
  out.apart = true;
  const auto entries = [&](std::uint64_t packets) {
    std::vector<Connection> both{entry(out, 7, packets, packets), entry(in, 8, packets, packets)};
    both[0].labels.ingress = both[1].labels.egress = RuleId::None;
    return both;
  };
  begin(out, 1, {kOut});
  begin(in, 1, {kIn});
  const auto told_before_any_dump = changes().connections;
  dump(entries(5), 60);
  dump(entries(9), 120);
  dump(entries(9), 180);
  for (const RuleId rule : {kOut, kIn}) EXPECT_EQ(sum(rule), (Sum{9, 900, 9, 9'000, 1, 1}));
  EXPECT_EQ(connections_.open(), 2u);
  for (const auto& told : {told_before_any_dump, changes().connections}) {
    Connections next({description, [](const IpAddr& address) { return address == kServer; }, service});
    next.restore(told);
    auto later = entries(11);
    later[1].packets_out = 12;
    next.on_dump(later, at(200), Connections::Dump::Start);
    std::map<RuleId, std::uint64_t> packets;
    for (const store::FlowEntry& made : next.take_entries()) {
      packets[made.like->rule] += made.packets_out;
      EXPECT_FALSE(made.connections > 0u);
    }
    const std::uint64_t before = told[0].egress.amounts.packets_out + told[0].ingress.amounts.packets_out;
    EXPECT_EQ(packets, (std::map<RuleId, std::uint64_t>{{kOut, 11 - before}, {kIn, 12 - before}}));
  }
}

// Where errors about a connection are counted with it, what came back is not yet an answer.
TEST_F(ConnectionsTest, AnErrorAboutADatagramIsNoAnswer) {
  const ConnectionTuple view = tuple(40'001, protocol::kUdp);
  begin(view, 1, {kIn});
  Connection ended = entry(view, 7, 1, 1);
  ended.status = IPS_CONFIRMED;
  end(ended, 10);
  EXPECT_EQ(made_.back().end_reason, store::EndReason::Unanswered);
  EXPECT_EQ(made_.back().packets_in, 1u);
}

// The first message knows no translation; what conntrack tells later knows both.
TEST_F(ConnectionsTest, ATranslatedConnectionNamesItsServiceAndItsMasquerade) {
  const ConnectionTuple view = tuple(40'000);
  Connection translated = entry(view, 7, 5, 3);
  translated.original.destination = kService;
  translated.original.destination_port = 443;
  translated.reply.destination = kMasquerade;
  translated.reply.destination_port = 61'000;
  begin(view, 1, {kIn});
  end(translated, 5);
  const FlowRecord& last = made_.back();
  ASSERT_TRUE(last.translation);
  EXPECT_EQ(last.dst.ip, kServer);
  EXPECT_EQ(last.translation->destination, kService);
  EXPECT_EQ(last.translation->destination_port, 443);
  EXPECT_EQ(last.dst_service, "shop/web");
  EXPECT_EQ(last.translation->source, kMasquerade);
  EXPECT_EQ(last.translation->source_port, 61'000);
}

TEST_F(ConnectionsTest, TheEndMayBeKnownBeforeTheBeginning) {
  const ConnectionTuple view = tuple(40'000);
  const Connection ended = entry(view, 7, 4, 2);
  connections_.on_ended({&ended, 1}, at(1));
  begin(view, 1);
  settle(1);
  EXPECT_EQ(sum(kIn), (Sum{4, 400, 2, 2000, 1, 1}));
  EXPECT_EQ(connections_.open(), 0u);
}

TEST_F(ConnectionsTest, PortsThatComeAgainAreAnotherConnection) {
  const ConnectionTuple view = tuple(40'000);
  begin(view, 1);
  const std::vector ended{entry(view, 7, 4), entry(view, 8, 6)};
  connections_.on_ended(ended, at(2));
  begin(view, 2);
  settle(2);
  EXPECT_EQ(sum(kIn), (Sum{10, 1000, 0, 0, 2, 2}));
  EXPECT_EQ(connections_.open(), 0u);
  EXPECT_EQ(connections_.counts().unattributed_packets, 0u);
}

TEST_F(ConnectionsTest, APacketJudgedTwiceBeforeItWasConfirmedIsOneConnection) {
  const ConnectionTuple view = tuple(40'000, protocol::kUdp);
  begin(view, 1);
  begin(view, 1);
  end(entry(view, 7, 5), 40);
  EXPECT_EQ(sum(kOut).packets_out, 5u);
  EXPECT_EQ(connections_.open(), 0u);
}

TEST_F(ConnectionsTest, AnEndThatNobodyKnowsIsCountedWhereItConcernsUs) {
  end(entry(tuple(40'000), 7, 5, 2), 1);
  EXPECT_EQ(connections_.counts().unattributed_packets, 0u) << "its first packet may still come";
  settle(10);
  EXPECT_EQ(connections_.counts().unattributed_packets, 7u);
  Connection other = entry(tuple(40'000), 8, 5, 2);
  other.original.destination = other.reply.source = kClient;
  end(other, 11);
  settle(20);
  EXPECT_EQ(connections_.counts().unattributed_packets, 7u) << "none of ours";
}

TEST_F(ConnectionsTest, PingsAreToldApartByTheirId) {
  begin(echo(100), 1);
  begin(echo(101), 5);
  end(entry(echo(101), 8, 4, 4), 40);
  EXPECT_EQ(connections_.open(), 1u);
  EXPECT_EQ(made_.back().start, at(5));
  end(entry(echo(100), 7, 3, 3), 41);
  EXPECT_EQ(sum(kIn), (Sum{7, 700, 7, 7000, 2, 2}));
  EXPECT_EQ(made_.back().src_port, std::nullopt);
}

TEST_F(ConnectionsTest, WhatWasThereAtTheStartCountsFromThen) {
  Connection labelled = entry(tuple(40'000), 7, 100, 50);
  Connection older = entry(tuple(40'001), 8, 10, 10);
  older.has_labels = false;
  older.labels = {};
  Connection strange = entry(tuple(40'002), 9, 10, 10);
  strange.labels = {kNobodys, kNobodys, 0};
  dump({labelled, older, strange}, 0, Connections::Dump::Start);
  EXPECT_TRUE(made_.empty());
  tell_unheard({{kIn, 5}}, 1);
  EXPECT_EQ(sum(kIn), (Sum{100, 10'000, 50, 50'000, 1, 1})) << "its label says that nobody watched it begin";
  labelled.packets_out += 2;
  labelled.bytes_out += 200;
  dump({labelled, older, strange}, 60);
  EXPECT_EQ(sum(kIn), (Sum{102, 10'200, 50, 50'000, 1, 1}));
  older.packets_in += 1;
  older.bytes_in += 1000;
  end(older, 70);
  EXPECT_EQ(sum(reserved::kPreexistingIngress), (Sum{0, 0, 1, 1000, 0, 0}));
  EXPECT_EQ(sum(reserved::kPreexistingEgress), Sum{}) << "the client is not enforced";
}

// Counters judge how many of them the books still miss; what a message tells is not told again.
TEST_F(ConnectionsTest, WhatBeganWhileNobodyLookedIsToldFromItsBeginning) {
  const ConnectionTuple quiet = tuple(40'000), heard = tuple(40'001), ended = tuple(40'002), late = tuple(40'003);
  Connection unheard = entry(quiet, 7, 10, 5);
  unheard.started = at(3);
  dump({unheard, entry(heard, 8, 4, 2), entry(ended, 9, 3, 3), entry(late, 10, 6, 6)}, 20, Connections::Dump::Start);
  EXPECT_TRUE(made_.empty()) << "messages may be on the way";
  begin(heard, 20);
  end(entry(ended, 9, 5, 5), 20);
  EXPECT_EQ(sum(kIn), (Sum{1 + 5, 600, 5, 5000, 2, 1})) << "a message's, and one that ended";
  const auto told = tell_unheard({{kIn, 1}, {kOut, 9}}, 21);
  EXPECT_EQ(told, (PacketsOfRules{{kIn, 1}, {kOut, 2}}));
  EXPECT_EQ(sum(kIn), (Sum{1 + 5 + 10 + 6, 2200, 5 + 5 + 6, 16'000, 4, 2})) << "there was room for one";
  EXPECT_EQ(sum(kOut).verdicts, 3u);
  const auto first = std::find_if(made_.begin(), made_.end(), [](const FlowRecord& record) {
    return record.src_port == 40'000 && record.rule == kIn;
  });
  ASSERT_NE(first, made_.end());
  EXPECT_EQ(first->start, at(3)) << "the kernel knows when it began";
  tell_unheard({{kIn, 9}}, 30);
  dump({entry(quiet, 7, 12, 5), entry(heard, 8, 4, 2), entry(late, 10, 6, 6)}, 60);
  EXPECT_EQ(sum(kIn), (Sum{12 + 4 + 5 + 6, 2700, 5 + 2 + 5 + 6, 18'000, 4, 2})) << "to the byte, and once";
  EXPECT_EQ(sum(kOut).packets_out, 27u);
}

TEST_F(ConnectionsTest, ARestartGoesOnWhereTheRecordsEnded) {
  const ConnectionTuple known = tuple(40'000);
  const ConnectionTuple fresh = tuple(40'001);
  const ConnectionTuple ended = tuple(40'002);
  begin(known, 1);
  begin(ended, 1);
  dump({entry(known, 7, 5, 3), entry(ended, 9, 2, 2)}, 60);
  begin(fresh, 61);
  store::Told told;
  told.connections = changes().connections;
  ASSERT_EQ(told.connections.size(), 3u);

  Connections second({description, [](const IpAddr&) { return true; }, service});
  second.restore(told.connections);
  const std::vector now{entry(known, 7, 9, 4), entry(fresh, 8, 6, 6)};
  second.on_dump(now, at(90), Connections::Dump::Start);
  for (const store::FlowEntry& entry : second.take_entries()) made_.push_back(to_record(entry));
  EXPECT_EQ(sum(kIn), (Sum{9 + 6 + 2, 1700, 4 + 6 + 2, 12'000, 3, 3}));
  EXPECT_EQ(second.counts().ends_unseen, 1u);
  store::ToldChanges after;
  second.take_changes(after);
  EXPECT_EQ(after.ended.size(), 1u) << "the one that ended meanwhile";
  for (const store::ToldConnection& row : after.connections) EXPECT_GT(row.ingress.amounts.packets_out, 5u);
  const Connection last = entry(known, 7, 10, 4);
  second.on_ended({&last, 1}, at(99));
  for (const store::FlowEntry& entry : second.take_entries()) made_.push_back(to_record(entry));
  EXPECT_EQ(sum(kIn).packets_out, 18u);
}

TEST_F(ConnectionsTest, AfterARebootTheSameNameIsAnotherConnection) {
  const ConnectionTuple view = tuple(40'000);
  begin(view, 1);
  dump({entry(view, 7, 50, 30)}, 60);
  Connections second({description, [](const IpAddr&) { return true; }, service});
  second.restore(changes().connections);
  const std::vector now{entry(view, 7, 2, 1)};
  second.on_dump(now, at(90), Connections::Dump::Start);
  EXPECT_FALSE(second.has_records());
  const Connection last = entry(view, 7, 4, 1);
  second.on_ended({&last, 1}, at(99));
  const auto records = second.take_entries();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].packets_out, 4u) << "all of it, nothing below zero";
  EXPECT_EQ(records[0].connections, 1u);
}

TEST_F(ConnectionsTest, ALabelWhoseMessageWasLostIsTaken) {
  Connection unknown = entry(tuple(40'000), 7, 5, 5);
  unknown.started = at(2);
  dump({unknown}, 60);
  EXPECT_TRUE(made_.empty()) << "its message may be on the way";
  dump({unknown}, 120);
  EXPECT_EQ(sum(kIn), (Sum{5, 500, 5, 5000, 1, 0})) << "its verdict is in the books as lost";
  EXPECT_EQ(made_.at(0).start, at(2));
}

TEST_F(ConnectionsTest, WhatIsInNoDumpAnyMoreIsForgotten) {
  begin(tuple(40'000), 1);
  dump({entry(tuple(40'000), 7, 1)}, 60);
  begin(tuple(40'001), 61);
  EXPECT_EQ(changes().connections.size(), 2u);
  dump({}, 120);
  EXPECT_EQ(connections_.open(), 2u) << "a dump may miss one";
  dump({}, 180);
  EXPECT_EQ(connections_.open(), 0u);
  EXPECT_EQ(connections_.counts().ends_unseen, 1u) << "the other was never confirmed";
  EXPECT_EQ(changes().ended.size(), 2u);
}

TEST_F(ConnectionsTest, ShortConnectionsLeaveNothingInTheIndex) {
  const ConnectionTuple view = tuple(40'000);
  begin(view, 1);
  end(entry(view, 7, 5, 5), 2);
  EXPECT_TRUE(changes().empty());
}

}  // namespace
}  // namespace tierlog::logger
