// NFLOG bytes -> events: what a message says, and that no message can hurt.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "dataplane/nftables/nflog.h"

namespace tierlog::dataplane::nftables {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t kMark = 2, kTimestamp = 3, kPayload = 9, kPrefix = 10, kSequence = 12;

void put(Bytes& into, std::uint16_t type, const Bytes& value) {
  const auto length = static_cast<std::uint16_t>(4 + value.size());
  Bytes head(4);
  std::memcpy(head.data(), &length, 2);
  std::memcpy(head.data() + 2, &type, 2);
  into.insert(into.end(), head.begin(), head.end());
  into.insert(into.end(), value.begin(), value.end());
  while (into.size() % 4 != 0) into.push_back(0);
}

Bytes text(const std::string& s) {
  return {s.begin(), s.end()};
}

// 10.0.0.3:40000 -> 10.0.0.1:5432, SYN, total length 60.
Bytes tcp4() {
  return {0x45, 0, 0,    60,   0,    0,    0x40, 0, 64, 6, 0, 0, 10, 0, 0,    3,    10, 0,
          0,    1, 0x9c, 0x40, 0x15, 0x38, 0,    0, 0,  0, 0, 0, 0,  0, 0xa0, 0x02, 0,  0};
}

Bytes udp6(std::uint8_t next, const Bytes& extension) {
  Bytes packet{0x60, 0, 0, 0, 0, static_cast<std::uint8_t>(8 + extension.size()), next, 64};
  packet.resize(40);
  packet[8] = packet[24] = 0xfd;
  packet[23] = 3;
  packet[39] = 1;
  packet.insert(packet.end(), extension.begin(), extension.end());
  for (const int byte : {0x9c, 0x40, 0, 53, 0, 8, 0, 0}) packet.push_back(static_cast<std::uint8_t>(byte));
  return packet;
}

Bytes message(const std::string& prefix, const Bytes& packet, std::uint32_t mark = 0x2a) {
  Bytes bytes;
  put(bytes, kMark, {0, 0, static_cast<std::uint8_t>(mark >> 8), static_cast<std::uint8_t>(mark)});
  put(bytes, kTimestamp, {0, 0, 0, 0, 0x65, 0x53, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0, 7});
  put(bytes, kPayload, packet);
  Bytes terminated = text(prefix);
  terminated.push_back(0);
  put(bytes, kPrefix, terminated);
  put(bytes, kSequence, {0, 0, 1, 2});
  return bytes;
}

struct PrefixCase {
  const char* title;
  const char* prefix;
  bool good;
  EventKind kind;
  std::uint32_t rule;
};

class Prefix : public ::testing::TestWithParam<PrefixCase> {};

TEST_P(Prefix, SaysKindAndRule) {
  const PrefixCase& c = GetParam();
  const auto decoded = decode_log(message(c.prefix, tcp4()), WallTime{});
  ASSERT_EQ(decoded.has_value(), c.good);
  if (!c.good) return;
  EXPECT_EQ(decoded->event.kind, c.kind);
  EXPECT_EQ(number(decoded->event.rule), c.rule);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Prefix,
    ::testing::Values(PrefixCase{"denied_by_mark", "tl:D", true, EventKind::Denied, 0x2a},
                      PrefixCase{"denied_in_a_connection", "tl:C", true, EventKind::Denied, 0x2a},
                      PrefixCase{"overflow_by_mark", "tl:O", true, EventKind::Overflow, 0x2a},
                      PrefixCase{"allowed_by_mark", "tl:A", true, EventKind::Allowed, 0x2a},
                      PrefixCase{"logged", "tl:deadbeefL", true, EventKind::Logged, 0xdeadbeef},
                      PrefixCase{"foreign", "calico-packet: ", false, {}, 0},
                      PrefixCase{"empty", "", false, {}, 0}, PrefixCase{"short_id", "tl:1ffA", false, {}, 0},
                      PrefixCase{"no_hex", "tl:0000zzzzA", false, {}, 0},
                      PrefixCase{"unknown_kind", "tl:000001ffX", false, {}, 0},
                      PrefixCase{"zero_id", "tl:00000000A", false, {}, 0},
                      PrefixCase{"tail", "tl:000001ffAA", false, {}, 0}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

TEST(DecodeLog, ReadsTupleFlagsLengthTimeAndSequence) {
  const auto decoded = decode_log(message("tl:D", tcp4()), WallTime{});
  ASSERT_TRUE(decoded);
  const VerdictEvent& e = decoded->event;
  EXPECT_EQ(e.source.to_string(), "10.0.0.3");
  EXPECT_EQ(e.destination.to_string(), "10.0.0.1");
  EXPECT_EQ(e.protocol, protocol::kTcp);
  EXPECT_EQ(e.source_port, 40'000);
  EXPECT_EQ(e.destination_port, 5432);
  EXPECT_EQ(e.tcp_flags, 2);
  EXPECT_EQ(e.length, 60u) << "of the packet, not of the copy";
  EXPECT_EQ(to_ns(e.time), 0x6553f100LL * 1'000'000'000 + 7'000);
  EXPECT_EQ(decoded->sequence, 0x102u);
}

TEST(DecodePacket, WalksIpv6Extensions) {
  const Bytes hop_by_hop{17, 0, 1, 4, 0, 0, 0, 0};
  for (const auto& packet : {udp6(17, {}), udp6(0, hop_by_hop)}) {
    VerdictEvent e;
    ASSERT_TRUE(decode_packet(packet, e));
    EXPECT_EQ(e.protocol, protocol::kUdp);
    EXPECT_EQ(e.destination_port, 53);
    EXPECT_EQ(e.source.to_string(), "fd00::3");
    EXPECT_EQ(e.length, packet.size());
  }
}

TEST(DecodePacket, ALaterFragmentHasNoPorts) {
  Bytes packet = tcp4();
  packet[7] = 1;  // fragment offset
  VerdictEvent e;
  ASSERT_TRUE(decode_packet(packet, e));
  EXPECT_EQ(e.protocol, protocol::kTcp);
  EXPECT_EQ(e.destination_port, 0);
}

TEST(DecodeLog, NoCutOrChangedMessageReadsOutside) {
  const Bytes good = message("tl:D", udp6(0, {17, 0, 1, 4, 0, 0, 0, 0}));
  for (std::size_t size = 0; size < good.size(); ++size) {
    const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    static_cast<void>(decode_log(cut, WallTime{}));
  }
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    Bytes changed = good;
    for (int n = 0; n < 4; ++n) changed[random() % changed.size()] = static_cast<std::uint8_t>(random());
    static_cast<void>(decode_log(changed, WallTime{}));
  }
}

}  // namespace
}  // namespace tierlog::dataplane::nftables
