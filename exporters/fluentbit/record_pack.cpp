#include "exporters/fluentbit/record_pack.h"

#include <msgpack.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>

#include "store/record_fields.h"

namespace tierlog::exporters::fluentbit {
namespace {

using Json = nlohmann::ordered_json;

// What msgpack-cxx and nlohmann-json write to.
struct Appender {
  std::string& out;
  void write(const char* bytes, std::size_t size) { out.append(bytes, size); }
};

bool is_ascii(std::string_view text) {
  constexpr std::uint64_t kHigh = 0x8080808080808080ULL;
  std::uint64_t seen = 0;
  for (; text.size() >= sizeof seen; text.remove_prefix(sizeof seen)) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), sizeof word);
    seen |= word;
  }
  for (const char c : text) seen |= static_cast<unsigned char>(c) & 0x80U;
  return (seen & kHigh) == 0;
}

// The text with what is no UTF-8 replaced: as the JSON writer does it, so that all forms agree.
std::string as_utf8(std::string_view text) {
  const std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(quoted).get<std::string>();
}

void make_utf8(Json& json) {
  if (json.is_string()) {
    auto& text = json.get_ref<std::string&>();
    if (!is_ascii(text)) text = as_utf8(text);
  } else if (json.is_structured()) {
    for (Json& part : json) make_utf8(part);
  }
}

// What write_record() writes to: a map whose number of keys is put in at the end.
class MapWriter {
 public:
  MapWriter(std::string& out, const RecordFormat* choice)
      : out_(out), appender_{out}, packer_(appender_), choice_(choice), begin_(out.size()) {
    out_.append("\xde\0\0", 3);
  }
  void finish() {
    out_[begin_ + 1] = static_cast<char>(keys_ >> 8);
    out_[begin_ + 2] = static_cast<char>(keys_ & 0xff);
  }

  void text(const char* key, std::string_view value) {
    if (!begin(key)) return;
    if (value.empty())
      packer_.pack_nil();
    else
      put(value);
  }
  template <std::integral T>
  void number(const char* key, T value) {
    if (begin(key)) packer_.pack(value);
  }
  template <std::integral T>
  void number(const char* key, const std::optional<T>& value) {
    if (!begin(key)) return;
    if (value)
      packer_.pack(*value);
    else
      packer_.pack_nil();
  }
  void labels(const char* key, const policy::Labels& labels) {
    if (!begin(key)) return;
    packer_.pack_map(static_cast<std::uint32_t>(labels.size()));
    for (const auto& [name, value] : labels) {
      put(name);
      put(value);
    }
  }
  template <typename T>
  void list(const char* key, const std::vector<T>& entries) {
    if (!begin(key)) return;
    packer_.pack_array(static_cast<std::uint32_t>(entries.size()));
    ++depth_;
    for (const T& entry : entries) {
      packer_.pack_map(store::kEntryKeys<T>);
      store::write_entry(entry, *this);
    }
    --depth_;
  }

 private:
  bool begin(const char* key) {
    if (depth_ == 0) {
      if (choice_ != nullptr && !choice_->keeps(key)) return false;
      ++keys_;
    }
    put_ascii(key);
    return true;
  }
  void put(std::string_view text) {
    if (!is_ascii(text)) return put_checked(text);
    put_ascii(text);
  }
  // Most texts are short: header and body in one piece.
  void put_ascii(std::string_view text) {
    constexpr std::size_t kShort = 31;
    if (text.size() > kShort) {
      packer_.pack_str(static_cast<std::uint32_t>(text.size()));
      packer_.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
      return;
    }
    char piece[1 + kShort];
    piece[0] = static_cast<char>(0xa0U | text.size());
    text.copy(piece + 1, kShort);
    out_.append(piece, 1 + text.size());
  }
  void put_checked(std::string_view text) { packer_.pack(as_utf8(text)); }

  std::string& out_;
  Appender appender_;
  msgpack::packer<Appender> packer_;
  const RecordFormat* choice_;  // nullptr: everything
  std::size_t begin_;
  std::uint32_t keys_ = 0;
  int depth_ = 0;
};

}  // namespace

void append_record(std::string& out, const RecordFormat& format, const store::FlowRecord& record,
                   const store::Origin& origin) {
  if (!format.is_own()) {
    Json json = format.to_json(record, origin);
    make_utf8(json);
    Json::to_msgpack(json, out);
    return;
  }
  MapWriter writer(out, format.is_whole() ? nullptr : &format);
  store::write_record(record, origin, writer);
  writer.finish();
}

}  // namespace tierlog::exporters::fluentbit
