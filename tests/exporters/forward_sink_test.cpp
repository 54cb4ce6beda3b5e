// Delivery: what the sink says when the receiver is right, wrong, slow or gone.
#include "exporters/fluentbit/forward_sink.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

#include "tests/exporters/ack_server.h"
#include "tests/exporters/sample_records.h"
#include "tests/exporters/sender.h"

namespace tierlog::exporters::fluentbit {
namespace {

using namespace std::chrono_literals;
using testing::AckServer;
using testing::Answer;
using testing::denied_records;
using testing::kOrigin;
using testing::Received;
using testing::Sender;

Answer right(const Received& message) {
  return {.bytes = testing::ack_of(message.chunk)};
}

ForwardOptions to(const AckServer& server) {
  return {.port = server.port(), .timeout = 10s};
}

void expect_sent(Sender& sink, const std::vector<store::StoredRecord>& records) {
  const Outcome<std::size_t> sent = sink.send(records);
  ASSERT_TRUE(sent) << sent.error().error.message;
  EXPECT_EQ(*sent, records.size());
}

struct HostCase {
  const char* name;
  const char* host;
  Family family;
};

class ForwardHosts : public ::testing::TestWithParam<HostCase> {};

TEST_P(ForwardHosts, Receive) {
  AckServer server(right, GetParam().family);
  ForwardOptions options = to(server);
  options.host = GetParam().host;
  Sender sink(options);
  expect_sent(sink, denied_records(2));
  expect_sent(sink, denied_records(3));
  EXPECT_EQ(server.connections(), 1);
  EXPECT_EQ(server.received().size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Table, ForwardHosts,
                         ::testing::Values(HostCase{"v4", "127.0.0.1", Family::V4},
                                           HostCase{"v6", "::1", Family::V6},
                                           // A name with an address of the family that nobody listens on.
                                           HostCase{"name", "localhost", Family::V4}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(ForwardSink, FillsChunksToTheirLimit) {
  AckServer server(right);
  ForwardOptions options = to(server);
  options.max_chunk_bytes = 5000;
  Sender sink(options);
  const auto records = denied_records(20);
  expect_sent(sink, records);
  EXPECT_GT(server.received().size(), 4u);
  std::size_t at = 0;
  for (const Received& message : server.received()) {
    EXPECT_LE(message.message.size(), options.max_chunk_bytes);
    // Exactly the next records, none twice: the message is what encoding them again gives.
    std::size_t count = 1;
    const auto encoded = [&] {
      return encode_packed_forward(std::span(records).subspan(at, count), kOrigin, options.tag,
                                   message.chunk);
    };
    while (at + count < records.size() && encoded().size() < message.message.size()) ++count;
    EXPECT_EQ(encoded(), message.message);
    at += count;
  }
  EXPECT_EQ(at, records.size());
  EXPECT_EQ(sink.counts().records, records.size());
  EXPECT_EQ(sink.counts().messages, server.received().size());
}

// One record among others that are small enough: it alone is left out.
TEST(ForwardSink, LeavesOutAndCountsARecordThatNeverFits) {
  AckServer server(right);
  ForwardOptions options = to(server);
  options.max_chunk_bytes = 5000;
  Sender sink(options);
  auto records = denied_records(3);
  records[1].record.src.labels["note"] = std::string(6000, 'x');
  expect_sent(sink, records);
  EXPECT_EQ(sink.counts().records, 2u);
  EXPECT_EQ(sink.counts().skipped, 1u);
}

TEST(ForwardSink, TakesNoMoreThanItsMemoryAllows) {
  AckServer server(right);
  Sender sink(to(server));
  auto records = denied_records(100);
  for (auto& stored : records) stored.record.src.labels["note"] = std::string(200'000, 'x');
  std::size_t delivered = 0;
  while (delivered < records.size()) {
    const auto sent = sink.send(std::span(records).subspan(delivered));
    ASSERT_TRUE(sent);
    EXPECT_LT(*sent, 25u);
    delivered += *sent;
  }
  EXPECT_EQ(sink.counts().records, records.size());
}

// Records of different tags go in chunks of their own, and none is lost between them.
TEST(ForwardSink, SendsEachTagByItself) {
  AckServer server(right);
  ForwardOptions options = to(server);
  options.tag = "tierlog.{action}.{tier}";
  Sender sink(options);
  auto records = denied_records(6);
  for (std::size_t i = 0; i < records.size(); i += 2) records[i].record.action = store::Verdict::Allow;
  records[4].record.tier = "a b.c";
  expect_sent(sink, records);
  std::map<std::string, std::size_t> counts;
  for (const Received& message : server.received()) counts[message.tag] += message.count;
  EXPECT_EQ(counts, (std::map<std::string, std::size_t>{
                        {"tierlog.allow.platform", 2}, {"tierlog.allow.a_b_c", 1}, {"tierlog.deny.platform", 3}}));
}

TEST(ForwardSink, SendsNothingForNothing) {
  Sender sink({.port = 1});
  const auto sent = sink.send({});
  ASSERT_TRUE(sent);
  EXPECT_EQ(*sent, 0u);
}

struct BadCase {
  const char* name;
  std::function<Answer(const Received&)> first_answer;
  std::string says;  // part of the error
};

const BadCase kBadCases[] = {
    {"closes_without_ack", [](const Received&) { return Answer{.close = true}; }, "closed the connection"},
    {"wrong_chunk", [](const Received&) { return Answer{.bytes = testing::ack_of("bm90IHlvdXJz")}; },
     "no ack"},
    {"garbage", [](const Received&) { return Answer{.bytes = "HTTP/1.1 400 Bad Request\r\n"}; }, "no ack"},
    {"nil", [](const Received&) { return Answer{.bytes = "\xc0"}; }, "no ack"},
    {"endless", [](const Received&) { return Answer{.bytes = "\x81\xda\x20" + std::string(6000, 'a')}; },
     "no ack"},
    {"says_nothing", [](const Received&) { return Answer{}; }, "no answer in time"},
};

class BadReceiver : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadReceiver, IsAnErrorAndTheNextSendConnectsAnew) {
  int messages = 0;
  AckServer server([&](const Received& message) {
    return ++messages == 1 ? GetParam().first_answer(message) : right(message);
  });
  ForwardOptions options = to(server);
  if (GetParam().says == "no answer in time") options.timeout = 300ms;
  Sender sink(options);
  const auto failed = sink.send(denied_records(2));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().error.code, ErrorCode::Unavailable);
  EXPECT_NE(failed.error().error.message.find(GetParam().says), std::string::npos) << failed.error().error.message;
  EXPECT_EQ(failed.error().error.message.find("forward to tcp://127.0.0.1:" + std::to_string(server.port())), 0u);
  expect_sent(sink, denied_records(2));
  EXPECT_EQ(server.connections(), 2);
}

INSTANTIATE_TEST_SUITE_P(Table, BadReceiver, ::testing::ValuesIn(kBadCases),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(ForwardSink, TakesAnAckThatComesByteByByte) {
  AckServer server([](const Received& message) {
    return Answer{.bytes = testing::ack_of(message.chunk), .in_single_bytes = true};
  });
  Sender sink(to(server));
  expect_sent(sink, denied_records(1));
}

TEST(ForwardSink, HalfAnAckIsNone) {
  const std::size_t ack_bytes = testing::ack_of(std::string(24, 'x')).size();
  std::size_t cut = 0;
  AckServer server([&](const Received& message) {
    return Answer{.bytes = testing::ack_of(message.chunk).substr(0, cut), .close = true};
  });
  Sender sink(to(server));
  for (cut = 0; cut < ack_bytes; ++cut) EXPECT_FALSE(sink.send(denied_records(1))) << cut;
  expect_sent(sink, denied_records(1));
}

TEST(ForwardSink, SurvivesAReceiverThatClosesAtAnyByte) {
  const auto records = denied_records(1);
  const std::size_t whole =
      encode_packed_forward(records, kOrigin, "tierlog.flows", std::string(24, 'x')).size();
  for (std::size_t at = 1; at <= whole; ++at) {
    AckServer server(right, Family::V4, at);
    Sender sink(to(server));
    const auto sent = sink.send(records);
    ASSERT_FALSE(sent) << at;
    EXPECT_EQ(sent.error().error.code, ErrorCode::Unavailable);
    EXPECT_FALSE(sink.send(records));
  }
}

// A receiver that says it is done and then goes away while the sender waits for room: the next write meets
// EPIPE. SIGPIPE has its default action here, so raising it would end the test.
TEST(ForwardSink, NoSignalWhenTheReceiverGoesAwayInside) {
  std::uint16_t port = 0;
  const Fd listener = testing::listen_on_loopback(Family::V4, 1, port);
  // So that the kernel does not take all of it on a slow day.
  const int little = 65'536;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
  std::thread receiver([&] {
    const Fd socket(::accept(listener.get(), nullptr, nullptr));
    ::shutdown(socket.get(), SHUT_WR);
    std::this_thread::sleep_for(300ms);
  });
  // More than the sockets' buffers take.
  Sender sink({.port = port, .max_chunk_bytes = 64'000'000, .timeout = 10s});
  const auto sent = sink.send(denied_records(6000));
  receiver.join();
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().error.code, ErrorCode::Unavailable);
  EXPECT_NE(sent.error().error.message.find("send: EPIPE"), std::string::npos) << sent.error().error.message;
}

TEST(ForwardSink, ConnectsAnewWhenTheReceiverLeftMeanwhile) {
  AckServer server(
      [](const Received& message) { return Answer{.bytes = testing::ack_of(message.chunk), .close = true}; });
  Sender sink(to(server));
  for (int i = 1; i <= 3; ++i) {
    expect_sent(sink, denied_records(1));
    server.wait_until_closed(i);
    EXPECT_EQ(server.connections(), i);
  }
}

TEST(ForwardSink, DoesNotTakeLeftoversForTheNextAnswer) {
  AckServer server([](const Received& message) {
    return Answer{.bytes = testing::ack_of(message.chunk) + testing::ack_of(message.chunk)};
  });
  Sender sink(to(server));
  expect_sent(sink, denied_records(1));
  expect_sent(sink, denied_records(1));
  EXPECT_EQ(server.connections(), 2);
}

TEST(ForwardSink, NamesAReceiverThatIsNotThere) {
  std::uint16_t port = 0;
  { const Fd closed = testing::listen_on_loopback(Family::V6, 1, port); }
  Sender sink({.host = "::1", .port = port});
  const auto sent = sink.send(denied_records(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().error.code, ErrorCode::Unavailable);
  EXPECT_NE(sent.error().error.message.find("forward to tcp://[::1]:" + std::to_string(port) + ": connect: ECONNREFUSED"),
            std::string::npos)
      << sent.error().error.message;
}

TEST(ForwardSink, GivesUpConnectingInTime) {
  std::uint16_t port = 0;
  // A listener whose queue is full drops further connection attempts without a word.
  const Fd full = testing::listen_on_loopback(Family::V4, 0, port);
  Sender first({.port = port, .timeout = 200ms});
  EXPECT_FALSE(first.send(denied_records(1)));
  Sender second({.port = port, .timeout = 200ms});
  const auto sent = second.send(denied_records(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().error.code, ErrorCode::Unavailable);
  EXPECT_NE(sent.error().error.message.find("no answer in time"), std::string::npos) << sent.error().error.message;
}

TEST(ForwardSink, SaysWhenANameIsUnknown) {
  Sender sink({.host = "no host has this name"});
  const auto sent = sink.send(denied_records(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().error.code, ErrorCode::Unavailable);
  EXPECT_NE(sent.error().error.message.find("look up no host has this name"), std::string::npos);
}

}  // namespace
}  // namespace tierlog::exporters::fluentbit
