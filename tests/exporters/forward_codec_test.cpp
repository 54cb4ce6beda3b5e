// The bytes on the wire, read back by a decoder that shares nothing with the encoder.
#include "exporters/fluentbit/forward_codec.h"

#include <gtest/gtest.h>

#include <msgpack.hpp>
#include <nlohmann/json.hpp>

#include "exporters/fluentbit/forward_sink.h"
#include "store/record_json.h"
#include "tests/exporters/ack_server.h"
#include "tests/exporters/sample_records.h"

namespace tierlog::exporters::fluentbit {
namespace {

using testing::denied_record;
using testing::denied_records;
using testing::kOrigin;

const RecordFormat kWhole{FormatOptions{}};

nlohmann::ordered_json as_json(const msgpack::object& value) {
  switch (value.type) {
    case msgpack::type::NIL:
      return nullptr;
    case msgpack::type::BOOLEAN:
      return value.via.boolean;
    case msgpack::type::POSITIVE_INTEGER:
      return value.via.u64;
    case msgpack::type::NEGATIVE_INTEGER:
      return value.via.i64;
    case msgpack::type::STR:
      return value.as<std::string>();
    case msgpack::type::ARRAY: {
      auto list = nlohmann::ordered_json::array();
      for (const msgpack::object& item : value.via.array) list.push_back(as_json(item));
      return list;
    }
    case msgpack::type::MAP: {
      auto map = nlohmann::ordered_json::object();
      for (const msgpack::object_kv& entry : value.via.map)
        map[entry.key.as<std::string>()] = as_json(entry.val);
      return map;
    }
    default:
      return "a type no record has";
  }
}

struct Entry {
  std::string time;  // the extension's bytes
  nlohmann::ordered_json record;
};

std::vector<Entry> read_entries(std::string_view bytes) {
  std::vector<Entry> entries;
  for (std::size_t at = 0; at < bytes.size();) {
    const msgpack::object_handle handle = msgpack::unpack(bytes.data(), bytes.size(), at);
    const msgpack::object& pair = handle.get();
    if (pair.type != msgpack::type::ARRAY || pair.via.array.size != 2) ADD_FAILURE() << "no pair";
    const msgpack::object& time = pair.via.array.ptr[0];
    if (time.type != msgpack::type::EXT || time.via.ext.type() != 0) ADD_FAILURE() << "no EventTime";
    entries.push_back({{time.via.ext.data(), time.via.ext.size}, as_json(pair.via.array.ptr[1])});
  }
  return entries;
}

TEST(ForwardCodec, MessageIsPackedForwardWithChunkAndSize) {
  const auto records = denied_records(3);
  const std::string message = encode_packed_forward(records, kOrigin, "tierlog.flows", "AAECAw==");
  std::size_t used = 0;
  const msgpack::object_handle handle = msgpack::unpack(message.data(), message.size(), used);
  EXPECT_EQ(used, message.size());
  const msgpack::object& parts = handle.get();
  ASSERT_EQ(parts.type, msgpack::type::ARRAY);
  ASSERT_EQ(parts.via.array.size, 3u);
  EXPECT_EQ(parts.via.array.ptr[0].as<std::string>(), "tierlog.flows");
  ASSERT_EQ(parts.via.array.ptr[1].type, msgpack::type::BIN);
  const auto& bin = parts.via.array.ptr[1].via.bin;
  EXPECT_EQ(as_json(parts.via.array.ptr[2]), (nlohmann::ordered_json{{"chunk", "AAECAw=="}, {"size", 3}}));

  const auto entries = read_entries({bin.ptr, bin.size});
  ASSERT_EQ(entries.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(entries[i].record.dump(), store::to_json(records[i].record, kOrigin).dump());
}

TEST(ForwardCodec, NullsStayAndNumbersStayNumbers) {
  std::string bytes;
  append_entry(bytes, kWhole, denied_record(1).record, kOrigin);
  const auto record = read_entries(bytes).at(0).record;
  EXPECT_TRUE(record.contains("connections"));
  EXPECT_TRUE(record["connections"].is_null());
  EXPECT_TRUE(record["dst_service"].is_null());
  EXPECT_EQ(record["verdict_packets"], 5'000'000'000);
  EXPECT_EQ(record["rule_id"], 0x12a);
  EXPECT_EQ(record["src_labels"]["role"], "web");
  EXPECT_EQ(record["trace"][0]["rule_index"], nullptr);
}

struct TimeCase {
  const char* name;
  std::int64_t ns;
  std::string bytes;
};

class EventTime : public ::testing::TestWithParam<TimeCase> {};

TEST_P(EventTime, IsSecondsAndNanosecondsBigEndian) {
  store::FlowRecord record = denied_record(1).record;
  record.start = from_ns(GetParam().ns);
  std::string bytes;
  append_entry(bytes, kWhole, record, kOrigin);
  EXPECT_EQ(read_entries(bytes).at(0).time, GetParam().bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Table, EventTime,
    ::testing::Values(TimeCase{"epoch", 0, std::string(8, '\0')},
                      TimeCase{"nanosecond", 1, std::string("\0\0\0\0\0\0\0\1", 8)},
                      TimeCase{"every_byte", 0x01020304LL * 1'000'000'000 + 0x05060708, "\1\2\3\4\5\6\7\x8"},
                      TimeCase{"last_nanosecond", 999'999'999, std::string("\0\0\0\0\x3b\x9a\xc9\xff", 8)},
                      TimeCase{"high_bit", 0x80000000LL * 1'000'000'000,
                               std::string("\x80\0\0\0\0\0\0\0", 8)},
                      TimeCase{"before_epoch", -5, std::string(8, '\0')},
                      TimeCase{"beyond_2106", 0x100000001LL * 1'000'000'000 + 7,
                               std::string("\xff\xff\xff\xff\0\0\0\0", 8)}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(ForwardCodec, EnvelopeIsNeverLargerThanSaid) {
  for (const std::size_t tag_bytes : {0u, 1u, 31u, 32u, 255u, 256u, 70'000u})
    for (const std::size_t entry_bytes : {0u, 1u, 255u, 256u, 65'535u, 65'536u})
      for (const std::size_t count : {std::size_t{0}, std::size_t{127}, std::size_t{1} << 40}) {
        const Compression compression = count == 127 ? Compression::Gzip : Compression::None;
        const std::string tag(tag_bytes, 't');
        const std::string chunk = make_chunk_id();
        const std::string message = wrap_entries({tag, chunk, count, compression}, std::string(entry_bytes, '\0'));
        EXPECT_LE(message.size() - entry_bytes, envelope_bytes(tag, chunk));
      }
}

TEST(ForwardCodec, ChunkIdsAreSixteenBytesAndDiffer) {
  const std::string one = make_chunk_id();
  EXPECT_EQ(one.size(), 24u);
  EXPECT_EQ(one.substr(22), "==");
  EXPECT_NE(one, make_chunk_id());
}

TEST(ForwardCodec, Base64) {
  // The vectors of RFC 4648, section 10, and both digits that are no letters or numbers.
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"},
                                                         {"\xfb\xff\xbf", "+/+/"}};
  for (const auto& [bytes, text] : vectors) EXPECT_EQ(base64(bytes), text);
}

enum class State { NeedMore, Acknowledged, AcknowledgedWithExcess, Wrong };

// The answer to one chunk "abc=", which came in these pieces.
State judge(std::initializer_list<std::string_view> pieces) {
  AckReader reader;
  for (const std::string_view piece : pieces)
    if (!reader.feed(piece)) return State::Wrong;
  const auto chunk = reader.take();
  if (!chunk) return State::NeedMore;
  if (*chunk != "abc=") return State::Wrong;
  return reader.has_rest() ? State::AcknowledgedWithExcess : State::Acknowledged;
}

template <typename T>
std::string packed(const T& value) {
  msgpack::sbuffer buffer;
  msgpack::pack(buffer, value);
  return {buffer.data(), buffer.size()};
}

struct AckCase {
  const char* name;
  std::string answer;
  State state;
};

using TextMap = std::map<std::string, std::string>;
const AckCase kAckCases[] = {
    {"right", testing::ack_of("abc="), State::Acknowledged},
    {"with_other_keys", packed(TextMap{{"aaa", "x"}, {"ack", "abc="}, {"zzz", "y"}}), State::Acknowledged},
    {"with_excess", testing::ack_of("abc=") + "x", State::AcknowledgedWithExcess},
    {"another_chunk", testing::ack_of("abd="), State::Wrong},
    {"prefix_of_the_chunk", testing::ack_of("abc"), State::Wrong},
    {"empty_chunk", testing::ack_of(""), State::Wrong},
    {"no_ack_key", packed(TextMap{{"nack", "abc="}}), State::Wrong},
    {"empty_map", packed(TextMap{}), State::Wrong},
    {"ack_is_a_number", packed(std::map<std::string, int>{{"ack", 1}}), State::Wrong},
    {"ack_is_bytes", packed(std::map<std::string, std::vector<char>>{{"ack", {'a', 'b', 'c', '='}}}),
     State::Wrong},
    {"key_is_a_number", packed(std::map<int, std::string>{{1, "abc="}}), State::Wrong},
    {"a_list", packed(std::vector<std::string>{"ack", "abc="}), State::Wrong},
    {"helo", packed(std::vector<std::string>{"HELO"}), State::Wrong},
    {"nil", "\xc0", State::Wrong},
    {"reserved_byte", "\xc1", State::Wrong},
    {"text", "HTTP/1.1 400 Bad Request\r\n\r\n", State::Wrong},
    {"huge_map", std::string("\xdf\xff\xff\xff\xff", 5), State::Wrong},
    // Bounded by "endless" and by the caller's deadline.
    {"promises_a_huge_string", std::string("\x81\xdb\xff\xff\xff\xff", 6), State::NeedMore},
    {"deep_nesting", std::string(2000, '\x91'), State::Wrong},
    {"endless", std::string("\x81\xda\x20\x00", 4) + std::string(5000, 'a'), State::Wrong},
    {"nothing", "", State::NeedMore},
};

class Ack : public ::testing::TestWithParam<AckCase> {};

TEST_P(Ack, IsJudged) {
  EXPECT_EQ(judge({GetParam().answer}), GetParam().state);
}

// Cut in two at every place the outcome is the same, and a right ack is not seen before its last byte.
TEST_P(Ack, IsJudgedTheSameInPieces) {
  const AckCase& c = GetParam();
  for (std::size_t cut = 0; cut < c.answer.size(); ++cut) {
    const std::string_view first = std::string_view(c.answer).substr(0, cut);
    EXPECT_EQ(judge({first, std::string_view(c.answer).substr(cut)}), c.state) << cut;
    if (c.state == State::Acknowledged) {
      EXPECT_EQ(judge({first}), State::NeedMore) << cut;
    }
  }
}

TEST(Acks, ComeOneAfterTheOther) {
  AckReader reader;
  ASSERT_TRUE(reader.feed(testing::ack_of("a") + testing::ack_of("b") + testing::ack_of("c").substr(0, 3)));
  EXPECT_EQ(reader.take(), "a");
  EXPECT_EQ(reader.take(), "b");
  EXPECT_EQ(reader.take(), std::nullopt);
  EXPECT_TRUE(reader.has_rest());
  ASSERT_TRUE(reader.feed(testing::ack_of("c").substr(3)));
  EXPECT_EQ(reader.take(), "c");
  EXPECT_FALSE(reader.has_rest());
}

TEST(ForwardCodec, GzipIsWholeAndOneAfterTheOther) {
  Gzip gzip;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{1'000'000}}) {
    std::string text;
    for (std::size_t i = 0; text.size() < size; ++i) text += "record " + std::to_string(i * i);
    text.resize(size);
    const auto packed = gzip.compress(text);
    ASSERT_TRUE(packed);
    EXPECT_EQ(testing::gunzip(*packed), text);
    // A byte less is no member: the check can fail.
    EXPECT_EQ(testing::gunzip(packed->substr(0, packed->size() - 1)), "");
  }
}

// Own keys and all other forms: the msgpack is what the JSON says, for everything a record can have.
TEST(ForwardCodec, EveryFormIsTheSameInMsgpackAndJson) {
  for (const std::string& name : format_names())
    for (const bool whole : {true, false}) {
      FormatOptions options{.name = name};
      if (!whole) options.omit = {format_paths(name)[1]};
      const RecordFormat format(options);
      store::FlowRecord record = full_record();
      record.src.labels["bad"] = "\xff\xfe not text";
      record.src.labels["good"] = "gr\xc3\xbc\xc3\x9f";
      std::string bytes;
      append_entry(bytes, format, record, kOrigin);
      std::string line;
      format.append_line(line, record, kOrigin);
      EXPECT_EQ(read_entries(bytes).at(0).record.dump() + "\n", line) << name;
    }
}

INSTANTIATE_TEST_SUITE_P(Table, Ack, ::testing::ValuesIn(kAckCases),
                         [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace tierlog::exporters::fluentbit
