// What a ctnetlink message says, and that no message can make the reader leave its bytes.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <array>
#include <random>
#include <vector>

#include "dataplane/conntrack_message.h"

namespace tierlog::dataplane {
namespace {

using Bytes = std::vector<std::uint8_t>;

// A message whose attributes `fill` makes; they are returned.
template <typename Fill>
Bytes attributes_of(const Fill& fill) {
  std::array<char, 2048> buffer{};
  nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  fill(header);
  const auto* body = static_cast<const std::uint8_t*>(mnl_nlmsg_get_payload(header));
  return {body, body + mnl_nlmsg_get_payload_len(header)};
}

Connection example(std::uint8_t proto) {
  Connection connection;
  connection.original = {*IpAddr::parse("10.0.0.1"), *IpAddr::parse("10.0.0.2"), proto, 41000, 80, 0, 0, 0};
  if (proto == protocol::kIcmp)
    connection.original = {*IpAddr::parse("10.0.0.1"), *IpAddr::parse("10.0.0.2"), proto, 0, 0, 8, 0, 77};
  connection.id = 0x01020304;
  connection.zone = 7;
  return connection;
}

// The kernel answers with the same attributes that name an entry to it; the reply tuple is put beside.
Bytes answer_for(const Connection& connection) {
  return attributes_of([&](nlmsghdr* message) {
    put_entry(message, connection, EntryId::With);
    Bytes original = attributes_of([&](nlmsghdr* m) { put_entry(m, connection, EntryId::Without); });
    const auto* tuple = reinterpret_cast<const nlattr*>(original.data());
    mnl_attr_put(message, NLA_F_NESTED | CTA_TUPLE_REPLY, tuple->nla_len - sizeof(nlattr), tuple + 1);
    put_labels(message, {RuleId{0x101}, RuleId{0x202}, 1});
    nlattr* counters = mnl_attr_nest_start(message, CTA_COUNTERS_REPLY);
    mnl_attr_put_u64(message, CTA_COUNTERS_PACKETS, htobe64(3));
    mnl_attr_put_u64(message, CTA_COUNTERS_BYTES, htobe64(5'000'000'000));
    mnl_attr_nest_end(message, counters);
    nlattr* info = mnl_attr_nest_start(message, CTA_PROTOINFO);
    nlattr* tcp = mnl_attr_nest_start(message, CTA_PROTOINFO_TCP);
    mnl_attr_put_u8(message, CTA_PROTOINFO_TCP_STATE, 3);
    mnl_attr_nest_end(message, tcp);
    mnl_attr_nest_end(message, info);
  });
}

TEST(ConntrackMessage, SaysWhatTheKernelSaid) {
  for (const std::uint8_t proto : {protocol::kTcp, protocol::kIcmp, std::uint8_t{50}}) {
    const Connection wanted = example(proto);
    const auto decoded = decode_connection(answer_for(wanted));
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->original, wanted.original);
    EXPECT_EQ(decoded->reply, wanted.original);
    EXPECT_EQ(decoded->id, wanted.id);
    EXPECT_EQ(decoded->zone, wanted.zone);
    EXPECT_EQ(decoded->labels, (ConnectionLabels{RuleId{0x101}, RuleId{0x202}, 1}));
    EXPECT_EQ(decoded->packets_in, 3u);
    EXPECT_EQ(decoded->bytes_in, 5'000'000'000u);
    EXPECT_EQ(decoded->tcp_state, 3);
    EXPECT_FALSE(decoded->started);
  }
}

TEST(ConntrackMessage, AMessageWithoutBothTuplesNamesNoConnection) {
  EXPECT_FALSE(decode_connection({}));
  EXPECT_FALSE(decode_connection(
      attributes_of([](nlmsghdr* message) { put_entry(message, example(protocol::kTcp), EntryId::With); })));
}

TEST(ConntrackMessage, TheForwardViewGoesFromTheRealClientToTheRealServer) {
  Connection connection = example(protocol::kTcp);
  connection.original.destination = *IpAddr::parse("10.96.0.1");
  connection.reply = {*IpAddr::parse("10.0.0.2"), *IpAddr::parse("192.0.2.1"), protocol::kTcp, 8080, 50000};
  const ConnectionTuple view = forward_view(connection);
  EXPECT_EQ(view.source.to_string(), "10.0.0.1") << "not the masquerade's";
  EXPECT_EQ(view.source_port, 41000);
  EXPECT_EQ(view.destination.to_string(), "10.0.0.2");
  EXPECT_EQ(view.destination_port, 8080);
}

TEST(ConntrackMessage, WhatALogMessageCannotSayIsNotInTheForwardView) {
  Connection connection = example(47);
  connection.reply = connection.original;
  EXPECT_EQ(forward_view(connection).source_port, 0);
  EXPECT_EQ(forward_view(connection).destination_port, 0);
}

TEST(ConntrackMessage, NoCutAndNoChangedByteLeavesTheMessage) {
  const Bytes sound = answer_for(example(protocol::kTcp));
  for (std::size_t length = 0; length < sound.size(); ++length) {
    const Bytes cut(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(length));
    static_cast<void>(decode_connection(cut));
  }
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes = sound;
    for (int change = 0; change < 3; ++change)
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    static_cast<void>(decode_connection(bytes));
  }
}

}  // namespace
}  // namespace tierlog::dataplane
