#include "logger/descriptions.h"

#include <algorithm>

namespace tierlog::logger {
namespace {

std::size_t hash_of(const store::FlowRecord& record) {
  constexpr std::size_t kSpread = 0x9e3779b97f4a7c15ULL;
  std::size_t h = std::hash<IpAddr>()(record.src.ip);
  h = h * kSpread + std::hash<IpAddr>()(record.dst.ip);
  h = h * kSpread + number(record.rule);
  return h * kSpread + (std::size_t{record.proto} << 16 | record.dst_port.value_or(0));
}

}  // namespace

Description Descriptions::share(store::FlowRecord record) {
  record.id.clear();
  record.start = record.end = WallTime{};
  record.src_port.reset();
  record.connections.reset();
  record.verdict_packets = 0;
  record.packets_out = record.packets_in = record.bytes_out = record.bytes_in = std::nullopt;
  const std::size_t hash = hash_of(record);
  for (auto [it, end] = known_.equal_range(hash); it != end; ++it)
    if (Description same = it->second.lock(); same && *same == record) return same;
  if (known_.size() >= clean_at_) drop_unused();
  auto made = std::make_shared<const store::FlowRecord>(std::move(record));
  known_.emplace(hash, made);
  return made;
}

void Descriptions::drop_unused() {
  std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
  clean_at_ = std::max<std::size_t>(1024, 2 * known_.size());
}

}  // namespace tierlog::logger
