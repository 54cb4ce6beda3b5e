#include "logger/pending.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

namespace tierlog::logger {
namespace {

using store::FlowEntry;
using store::FlowRecord;

void merge_into(FlowEntry& into, const FlowEntry& from) {
  into.start = std::min(into.start, from.start);
  into.end = std::max(into.end, from.end);
  into.verdict_packets += from.verdict_packets;
  into.packets_out += from.packets_out;
  into.packets_in += from.packets_in;
  into.bytes_out += from.bytes_out;
  into.bytes_in += from.bytes_in;
  if (from.connections) into.connections = into.connections.value_or(0) + *from.connections;
  if (into.src_port != from.src_port) into.src_port.reset();
  if (into.dst_port != from.dst_port) into.dst_port.reset();
  if (into.state != from.state) into.state = store::FlowState::None;
  if (into.end_reason != from.end_reason) into.end_reason = store::EndReason::None;
  if (into.translation != from.translation) into.translation.reset();
  if (!from.suppressed) return;
  std::vector<std::uint64_t> sum = into.suppressed ? *into.suppressed : std::vector<std::uint64_t>();
  sum.resize(std::max(sum.size(), from.suppressed->size()));
  for (std::size_t i = 0; i < from.suppressed->size(); ++i) sum[i] += (*from.suppressed)[i];
  into.suppressed = std::make_shared<const std::vector<std::uint64_t>>(std::move(sum));
}

// What is left of a description when ports no longer count.
std::shared_ptr<const FlowRecord> without_ports(const FlowRecord& like) {
  FlowRecord coarse = like;
  coarse.icmp_type.reset();
  coarse.icmp_code.reset();
  coarse.tcp_flags.clear();
  return std::make_shared<const FlowRecord>(std::move(coarse));
}

}  // namespace

void Pending::add(FlowEntry entry) {
  entries_.push_back(std::move(entry));
  if (entries_.size() > most_) shrink();
}

std::vector<FlowEntry> Pending::take() {
  return std::exchange(entries_, {});
}

// Puts the oldest `count` together by key; each sum stands where the first of its kind stood.
template <typename KeyOf>
void Pending::merge_oldest(std::size_t count, const KeyOf& key_of) {
  std::map<decltype(key_of(entries_[0])), std::size_t> places;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto [place, is_new] = places.try_emplace(key_of(entries_[i]), kept);
    if (!is_new) {
      merge_into(entries_[place->second], entries_[i]);
      ++merged_;
      continue;
    }
    if (kept != i) entries_[kept] = std::move(entries_[i]);
    ++kept;
  }
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(kept),
                 entries_.begin() + static_cast<std::ptrdiff_t>(count));
}

void Pending::shrink() {
  const std::size_t enough = most_ / 2;
  // The newest eighth stays as it is.
  const auto oldest = [&] { return entries_.size() - entries_.size() / 8; };
  merge_oldest(oldest(), [](const FlowEntry& entry) { return std::pair(entry.like.get(), entry.dst_port); });
  if (entries_.size() <= enough) return;
  const std::size_t count = oldest();
  std::map<const FlowRecord*, std::shared_ptr<const FlowRecord>> coarse;
  for (std::size_t i = 0; i < count; ++i) {
    FlowEntry& entry = entries_[i];
    entry.dst_port.reset();
    if (!entry.like->icmp_type && entry.like->tcp_flags.empty()) continue;
    auto& made = coarse[entry.like.get()];
    if (!made) made = without_ports(*entry.like);
    entry.like = made;
  }
  merge_oldest(count, [](const FlowEntry& entry) {
    const FlowRecord& like = *entry.like;
    // Lists of Log rules may differ by port: what was suppressed stays with its own.
    const FlowRecord* apart = entry.suppressed ? &like : nullptr;
    return std::tuple(like.rule, like.src.ip, like.dst.ip, like.proto, like.reporter, like.src.name,
                      like.dst.name, apart);
  });
  if (entries_.size() <= enough) return;
  const std::size_t too_many = entries_.size() - enough;
  for (std::size_t i = 0; i < too_many; ++i) {
    if (entries_[i].verdict_packets > 0) given_up_[entries_[i].like->rule] += entries_[i].verdict_packets;
    ++merged_;
  }
  entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(too_many));
}

}  // namespace tierlog::logger
