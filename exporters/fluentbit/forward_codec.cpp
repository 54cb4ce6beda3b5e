#include "exporters/fluentbit/forward_codec.h"

#include <msgpack.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "exporters/fluentbit/forward_sink.h"
#include "store/record_json.h"

namespace tierlog::exporters::fluentbit {
namespace {

// An ack is a map of one short string; a receiver that says much more speaks another protocol.
constexpr std::size_t kMaxAckBytes = 4096;
constexpr std::int8_t kEventTimeType = 0;

// What msgpack-cxx and nlohmann-json write to.
struct Appender {
  std::string& out;
  void write(const char* bytes, std::size_t size) { out.append(bytes, size); }
};

std::array<char, 8> event_time(WallTime time) {
  constexpr std::int64_t kPerSecond = 1'000'000'000;
  const std::int64_t ns = std::clamp<std::int64_t>(
      to_ns(time), 0, std::int64_t{std::numeric_limits<std::uint32_t>::max()} * kPerSecond);
  const auto seconds = static_cast<std::uint64_t>(ns / kPerSecond);
  const auto both = seconds << 32 | static_cast<std::uint64_t>(ns % kPerSecond);
  std::array<char, 8> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>(static_cast<unsigned char>(both >> (56 - 8 * i)));
  return bytes;
}

}  // namespace

void append_entry(std::string& entries, const store::FlowRecord& record, const store::Origin& origin) {
  Appender appender{entries};
  msgpack::packer<Appender> packer(appender);
  const std::array<char, 8> time = event_time(record.start);
  packer.pack_array(2);
  packer.pack_ext(time.size(), kEventTimeType);
  packer.pack_ext_body(time.data(), static_cast<std::uint32_t>(time.size()));
  // The record's JSON form defines keys, order and types; its own writer keeps all three.
  nlohmann::ordered_json::to_msgpack(store::to_json(record, origin), entries);
}

std::string wrap_entries(std::string_view tag, std::string_view entries, std::size_t count,
                         std::string_view chunk) {
  std::string message;
  message.reserve(entries.size() + envelope_bytes(tag, chunk));
  Appender appender{message};
  msgpack::packer<Appender> packer(appender);
  packer.pack_array(3);
  packer.pack(tag);
  packer.pack_bin(static_cast<std::uint32_t>(entries.size()));
  packer.pack_bin_body(entries.data(), static_cast<std::uint32_t>(entries.size()));
  packer.pack_map(2);
  packer.pack("chunk");
  packer.pack(chunk);
  packer.pack("size");
  packer.pack(count);
  return message;
}

std::size_t envelope_bytes(std::string_view tag, std::string_view chunk) {
  constexpr std::size_t kHeaders = 1 + 5 + 5 + 1 + 6 + 5 + 5 + 9;  // the longest form of each
  return kHeaders + tag.size() + chunk.size();
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string make_chunk_id() {
  std::random_device source;
  std::string bytes(16, '\0');
  for (char& byte : bytes) byte = static_cast<char>(static_cast<unsigned char>(source()));
  return base64(bytes);
}

AckReader::State AckReader::feed(std::string_view bytes) {
  received_.append(bytes);
  return judge();
}

AckReader::State AckReader::judge() const {
  if (received_.size() > kMaxAckBytes) return State::Wrong;
  try {
    std::size_t used = 0;
    const msgpack::unpack_limit limit(8, 16, kMaxAckBytes, kMaxAckBytes, kMaxAckBytes, 4);
    const msgpack::object_handle handle =
        msgpack::unpack(received_.data(), received_.size(), used, nullptr, nullptr, limit);
    const msgpack::object& answer = handle.get();
    if (answer.type != msgpack::type::MAP) return State::Wrong;
    for (const msgpack::object_kv& entry : answer.via.map) {
      if (entry.key.type != msgpack::type::STR || entry.key.as<std::string_view>() != "ack") continue;
      if (entry.val.type != msgpack::type::STR || entry.val.as<std::string_view>() != chunk_)
        return State::Wrong;
      return used == received_.size() ? State::Acknowledged : State::AcknowledgedWithExcess;
    }
    return State::Wrong;
  } catch (const msgpack::insufficient_bytes&) {
    return State::NeedMore;
  } catch (const std::exception&) {
    return State::Wrong;
  }
}

std::string encode_packed_forward(std::span<const store::StoredRecord> records, const store::Origin& origin,
                                  const std::string& tag, const std::string& chunk) {
  std::string entries;
  for (const store::StoredRecord& stored : records) append_entry(entries, stored.record, origin);
  return wrap_entries(tag, entries, records.size(), chunk);
}

}  // namespace tierlog::exporters::fluentbit
