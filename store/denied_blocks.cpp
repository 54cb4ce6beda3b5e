#include "store/denied_blocks.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "store/told_address.h"
#include "store/varints.h"

namespace tierlog::store {
namespace {

// Beside the protocol: no protocol has so high a number.
constexpr std::uint64_t kAlone = 256;
constexpr std::uint64_t kSixthFamily = 512;

std::int64_t block_of(std::int64_t handle) {
  return handle / DeniedBlocks::kHandlesEach;
}

void put_flow(std::string& bytes, const ToldDenied& flow) {
  const bool is_v6 = flow.source.family == Family::V6;
  put_varint(bytes, static_cast<std::uint64_t>(flow.handle % DeniedBlocks::kHandlesEach));
  put_varint(bytes, number(flow.rule));
  put_varint(bytes, flow.protocol + (flow.alone ? kAlone : 0) + (is_v6 ? kSixthFamily : 0));
  put_varint(bytes, flow.port_or_icmp);
  put_varint(bytes, flow.packets);
  put_varint(bytes, flow.bytes);
  put_varint(bytes, fold_sign(static_cast<std::uint64_t>(to_ns(flow.last_packet))));
  bytes += address_bytes(flow.source);
  bytes += address_bytes(flow.destination);
}

// Nothing: the bytes are no flow.
std::optional<ToldDenied> get_flow(VarintReader& bytes, std::int64_t block) {
  std::uint64_t place = 0, rule = 0, kind = 0, port = 0, last = 0;
  ToldDenied flow;
  if (!bytes.get(place) || !bytes.get(rule) || !bytes.get(kind) || !bytes.get(port) ||
      !bytes.get(flow.packets) || !bytes.get(flow.bytes) || !bytes.get(last))
    return std::nullopt;
  const std::size_t size = (kind & kSixthFamily) != 0 ? 16 : 4;
  std::string_view source, destination;
  if (!bytes.get_bytes(size, source) || !bytes.get_bytes(size, destination)) return std::nullopt;
  flow.handle = block * DeniedBlocks::kHandlesEach + static_cast<std::int64_t>(place);
  flow.rule = RuleId{static_cast<std::uint32_t>(rule)};
  flow.source = address_of_bytes(source);
  flow.destination = address_of_bytes(destination);
  flow.protocol = static_cast<std::uint8_t>(kind);
  flow.port_or_icmp = static_cast<std::uint16_t>(port);
  flow.last_packet = from_ns(static_cast<std::int64_t>(unfold_sign(last)));
  flow.alone = (kind & kAlone) != 0;
  return flow;
}

tl::unexpected<Error> ends_within(std::int64_t block) {
  return fail(ErrorCode::Corrupt,
              "flow index: block " + std::to_string(block) + " of denied_told ends in the middle of a flow");
}

}  // namespace

Result<DeniedBlocks> DeniedBlocks::open(sqlite::Database& database) {
  DeniedBlocks made;
  TL_ASSIGN(made.find_, database.prepare("SELECT flows FROM denied_told WHERE block = ?1"));
  TL_ASSIGN(made.put_, database.prepare("INSERT OR REPLACE INTO denied_told(block, flows) VALUES (?1, ?2)"));
  TL_ASSIGN(made.drop_, database.prepare("DELETE FROM denied_told WHERE block = ?1"));
  TL_ASSIGN(made.list_, database.prepare("SELECT block, flows FROM denied_told ORDER BY block"));
  TL_ASSIGN(made.last_, database.prepare("SELECT coalesce(max(block), 0) FROM denied_told"));
  return made;
}

Result<void> DeniedBlocks::put(std::int64_t block) {
  if (bytes_.empty()) return drop_.bind(block).run();
  put_.bind(block);
  put_.bind_blob(2, sqlite::Borrowed{bytes_});
  newest_ = std::max(newest_, block);
  return put_.run();
}

// What is there and does not change is copied as it is.
Result<void> DeniedBlocks::write_block(std::int64_t block, std::span<const Change> changes) {
  bytes_.clear();
  auto next = changes.begin();
  const auto put_next = [&] {
    if (next->flow != nullptr) put_flow(bytes_, *next->flow);
    ++next;
  };
  if (block <= newest_) {
    TL_ASSIGN(const bool there, find_.bind(block).step());
    old_ = there ? find_.blob(0) : std::string_view();
    find_.reset();
    VarintReader flows(old_);
    while (!flows.at_end()) {
      const char* const begin = flows.position();
      const auto flow = get_flow(flows, block);
      if (!flow) return ends_within(block);
      while (next != changes.end() && next->handle < flow->handle) put_next();
      if (next != changes.end() && next->handle == flow->handle)
        put_next();
      else
        bytes_.append(begin, flows.position());
    }
  }
  while (next != changes.end()) put_next();
  return put(block);
}

Result<void> DeniedBlocks::write(const std::vector<ToldDenied>& changed,
                                 const std::vector<std::int64_t>& forgotten) {
  if (changed.empty() && forgotten.empty()) return {};
  if (newest_ == kUnknown) {
    TL_TRY(last_.step());
    newest_ = last_.integer(0);
    last_.reset();
  }
  std::vector<Change> changes;
  changes.reserve(changed.size() + forgotten.size());
  for (const ToldDenied& flow : changed) changes.push_back({flow.handle, &flow});
  for (const std::int64_t handle : forgotten) changes.push_back({handle, nullptr});
  // Of one handle the changed ones come first, the latest of them at the front.
  std::reverse(changes.begin(), changes.begin() + static_cast<std::ptrdiff_t>(changed.size()));
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.handle < b.handle; });
  changes.erase(std::unique(changes.begin(), changes.end(),
                            [](const Change& a, const Change& b) { return a.handle == b.handle; }),
                changes.end());
  for (auto from = changes.begin(); from != changes.end();) {
    const std::int64_t block = block_of(from->handle);
    const auto to = std::find_if(from, changes.end(),
                                 [&](const Change& change) { return block_of(change.handle) != block; });
    TL_TRY(write_block(block, {from, to}));
    from = to;
  }
  return {};
}

Result<std::vector<ToldDenied>> DeniedBlocks::read() {
  std::vector<ToldDenied> read;
  list_.reset();
  for (;;) {
    TL_ASSIGN(const bool row, list_.step());
    if (!row) break;
    const std::int64_t block = list_.integer(0);
    VarintReader flows(list_.blob(1));
    while (!flows.at_end()) {
      auto flow = get_flow(flows, block);
      if (!flow) return ends_within(block);
      read.push_back(std::move(*flow));
    }
  }
  list_.reset();
  return read;
}

Result<void> pack_denied_of_version_9(sqlite::Database& database, const std::string& table) {
  TL_ASSIGN(auto rows,
            database.prepare("SELECT handle, rule_id, src, dst, proto, port_or_icmp, packets, bytes,"
                             " last_packet_ns FROM " +
                             table + " ORDER BY handle"));
  std::vector<ToldDenied> flows;
  for (;;) {
    TL_ASSIGN(const bool row, rows.step());
    if (!row) break;
    const auto kind = static_cast<std::uint64_t>(rows.integer(4));
    flows.push_back({rows.integer(0), RuleId{static_cast<std::uint32_t>(rows.integer(1))},
                     address_of_bytes(rows.blob(2)), address_of_bytes(rows.blob(3)),
                     static_cast<std::uint8_t>(kind % kAlone), static_cast<std::uint16_t>(rows.integer(5)),
                     rows.count(6), rows.count(7), from_ns(rows.integer(8)), kind >= kAlone});
  }
  rows.reset();
  TL_ASSIGN(auto blocks, DeniedBlocks::open(database));
  return blocks.write(flows, {});
}

}  // namespace tierlog::store
