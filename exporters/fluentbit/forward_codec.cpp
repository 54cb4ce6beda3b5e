#include "exporters/fluentbit/forward_codec.h"

#include <libdeflate.h>
#include <msgpack.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <random>

#include "base/handle.h"
#include "exporters/fluentbit/record_pack.h"

namespace tierlog::exporters::fluentbit {
namespace {

// An ack is a map of one short string; a receiver that says much more speaks another protocol.
constexpr std::size_t kMaxAckBytes = 4096;
constexpr std::int8_t kEventTimeType = 0;
// Records repeat themselves so much that the fastest level does nearly as well (docs/benchmarks.md).
constexpr int kGzipLevel = 1;

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

void append_entry(std::string& entries, const RecordFormat& format, const store::FlowRecord& record,
                  const store::Origin& origin) {
  Appender appender{entries};
  msgpack::packer<Appender> packer(appender);
  const std::array<char, 8> time = event_time(record.start);
  packer.pack_array(2);
  packer.pack_ext(time.size(), kEventTimeType);
  packer.pack_ext_body(time.data(), static_cast<std::uint32_t>(time.size()));
  append_record(entries, format, record, origin);
}

std::string wrap_entries(const Envelope& envelope, std::string_view entries) {
  const bool compressed = envelope.compression == Compression::Gzip;
  std::string message;
  message.reserve(entries.size() + envelope_bytes(envelope.tag, envelope.chunk));
  Appender appender{message};
  msgpack::packer<Appender> packer(appender);
  packer.pack_array(3);
  packer.pack(envelope.tag);
  packer.pack_bin(static_cast<std::uint32_t>(entries.size()));
  packer.pack_bin_body(entries.data(), static_cast<std::uint32_t>(entries.size()));
  packer.pack_map(compressed ? 3 : 2);
  packer.pack("chunk");
  packer.pack(envelope.chunk);
  packer.pack("size");
  packer.pack(envelope.count);
  if (compressed) {
    packer.pack("compressed");
    packer.pack("gzip");
  }
  return message;
}

std::size_t envelope_bytes(std::string_view tag, std::string_view chunk) {
  // The longest form of each header, and "compressed": "gzip".
  constexpr std::size_t kHeaders = 1 + 5 + 5 + 1 + 6 + 5 + 5 + 9 + 11 + 5;
  return kHeaders + tag.size() + chunk.size();
}

struct Gzip::Impl {
  Owned<libdeflate_compressor, libdeflate_free_compressor> compressor;
};

Gzip::Gzip() : impl_(std::make_unique<Impl>()) {}
Gzip::Gzip(Gzip&&) noexcept = default;
Gzip& Gzip::operator=(Gzip&&) noexcept = default;
Gzip::~Gzip() = default;

Result<std::string> Gzip::compress(std::string_view bytes) {
  if (!impl_->compressor) impl_->compressor.reset(::libdeflate_alloc_compressor(kGzipLevel));
  libdeflate_compressor* compressor = impl_->compressor.get();
  if (compressor == nullptr) return tierlog::fail(ErrorCode::Io, "compress a chunk: no memory");
  std::string out(::libdeflate_gzip_compress_bound(compressor, bytes.size()), '\0');
  out.resize(::libdeflate_gzip_compress(compressor, bytes.data(), bytes.size(), out.data(), out.size()));
  if (out.empty()) return tierlog::fail(ErrorCode::Io, "compress a chunk: it became larger than its bound");
  return out;
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

bool AckReader::feed(std::string_view bytes) {
  received_.append(bytes);
  if (next_) return true;
  std::string chunk;
  std::size_t used = 0;
  switch (judge(chunk, used)) {
    case State::NeedMore:
      return true;
    case State::Wrong:
      return false;
    case State::Ack:
      received_.erase(0, used);
      next_ = std::move(chunk);
      return true;
  }
  return false;
}

std::optional<std::string> AckReader::take() {
  std::optional<std::string> taken = std::exchange(next_, std::nullopt);
  // What came with it; wrong bytes show themselves at the next feed(), too.
  if (taken && !received_.empty()) static_cast<void>(feed(""));
  return taken;
}

AckReader::State AckReader::judge(std::string& chunk, std::size_t& used) {
  if (received_.empty()) return State::NeedMore;
  if (received_.size() > kMaxAckBytes) {
    complaint_ = "a message of more than " + std::to_string(kMaxAckBytes) + " bytes";
    return State::Wrong;
  }
  complaint_ = "something else";
  try {
    const msgpack::unpack_limit limit(8, 16, kMaxAckBytes, kMaxAckBytes, kMaxAckBytes, 4);
    const msgpack::object_handle handle =
        msgpack::unpack(received_.data(), received_.size(), used, nullptr, nullptr, limit);
    const msgpack::object& answer = handle.get();
    if (answer.type == msgpack::type::ARRAY && answer.via.array.size > 0 &&
        answer.via.array.ptr[0].type == msgpack::type::STR &&
        answer.via.array.ptr[0].as<std::string_view>() == "HELO")
      complaint_ = "HELO";
    if (answer.type != msgpack::type::MAP) return State::Wrong;
    for (const msgpack::object_kv& entry : answer.via.map) {
      if (entry.key.type != msgpack::type::STR || entry.key.as<std::string_view>() != "ack") continue;
      if (entry.val.type != msgpack::type::STR) return State::Wrong;
      chunk = entry.val.as<std::string>();
      return State::Ack;
    }
    complaint_ = "a map without ack";
    return State::Wrong;
  } catch (const msgpack::insufficient_bytes&) {
    return State::NeedMore;
  } catch (const std::exception&) {
    return State::Wrong;
  }
}

std::string encode_packed_forward(std::span<const store::StoredRecord> records, const store::Origin& origin,
                                  const std::string& tag, const std::string& chunk) {
  const RecordFormat format{FormatOptions{}};
  std::string entries;
  for (const store::StoredRecord& stored : records) append_entry(entries, format, stored.record, origin);
  return wrap_entries({tag, chunk, records.size(), Compression::None}, entries);
}

}  // namespace tierlog::exporters::fluentbit
