#include "dataplane/nftables/content.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

namespace tierlog::dataplane::nftables {
namespace {

// Unambiguous: each value with its length or a fixed size, each expression with its kind before it.
class Writer {
 public:
  template <typename T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  void put(const Bytes& bytes) {
    put(bytes.size());
    bytes_.append(bytes.begin(), bytes.end());
  }

  void put(const MetaLoad& e) { put_all(e.key, e.reg); }
  void put(const MetaSet& e) { put_all(e.key, e.reg); }
  void put(const PayloadLoad& e) { put_all(e.base, e.offset, e.length, e.reg); }
  void put(const Compare& e) { put_all(e.reg, e.op, e.value); }
  void put(const LoadBytes& e) { put_all(e.reg, e.value); }
  void put(const Mask& e) { put_all(e.reg, e.mask); }
  void put(const Lookup& e) { put_all(e.set, e.reg, e.negate, e.to_verdict, e.into ? *e.into + 1 : 0u); }
  void put(const CtLoad& e) { put_all(e.key, e.reg); }
  void put(const CtSet& e) { put_all(e.key, e.reg); }
  void put(const NoTrack& /*e*/) {}
  void put(const Count& e) { put_all(e.id); }
  void put(const CountNamed& e) { put_all(e.name); }
  void put(const UpdateMetered& e) { put_all(e.set, e.reg, e.interval_seconds, e.packets); }
  void put(const LimitRate& e) { put_all(e.rate, e.unit_seconds, e.burst); }
  void put(const LogTo& e) { put_all(e.group, e.prefix, e.snaplen); }
  void put(const Verdict& e) { put_all(e.kind, e.chain); }
  void put(const Expression& expression) {
    put(static_cast<std::uint8_t>(expression.index()));
    std::visit([this](const auto& e) { put(e); }, expression);
  }

  const std::string& bytes() const { return bytes_; }

 private:
  template <typename... Ts>
  void put_all(const Ts&... values) {
    (put(values), ...);
  }
  std::string bytes_;
};

}  // namespace

Content content_of(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string seal_of(const NftRule& rule) {
  Writer writer;
  for (const Expression& expression : rule.expressions) writer.put(expression);
  writer.put(rule.comment);
  const Content content = content_of(writer.bytes());
  std::string seal(sizeof content, '\0');
  std::memcpy(seal.data(), &content, sizeof content);
  return seal;
}

Content content_of_seals(const std::vector<std::string>& seals) {
  std::string all;
  for (const std::string& seal : seals) all += seal.empty() ? "without a seal: somebody else's" : seal;
  return content_of(all);
}

Content content_of(const Chain& chain) {
  if (chain.content != 0) return chain.content;
  std::vector<std::string> seals;
  seals.reserve(chain.rules.size());
  for (const NftRule& rule : chain.rules) seals.push_back(seal_of(rule));
  return content_of_seals(seals);
}

std::string hex(Content content) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(content));
  return text;
}

}  // namespace tierlog::dataplane::nftables
