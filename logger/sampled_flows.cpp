#include "logger/sampled_flows.h"

#include <algorithm>

namespace tierlog::logger {
namespace {

// Flows; when there are more, all are told and forgotten.
constexpr std::size_t kMost = 262'144;
constexpr std::size_t kBatch = 32;

}  // namespace

void SampledFlows::on_events(std::span<const dataplane::VerdictEvent> events, std::uint64_t world) {
  std::array<FlowKey, kBatch> keys;
  std::array<std::size_t, kBatch> hashes{};
  for (std::size_t begin = 0; begin < events.size(); begin += kBatch) {
    const auto batch = events.subspan(begin, std::min(kBatch, events.size() - begin));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      keys[i] = key_of(batch[i]);
      hashes[i] = flows_.hash(keys[i]);
      flows_.prefetch_slot(hashes[i]);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) flows_.prefetch_entry(hashes[i]);
    for (std::size_t i = 0; i < batch.size(); ++i) take(batch[i], keys[i], hashes[i], world);
  }
}

void SampledFlows::take(const dataplane::VerdictEvent& event, const FlowKey& key, std::size_t hash,
                        std::uint64_t world) {
  SampledFlow* flow = flows_.find(key, hash);
  if (flow != nullptr && flow->world == world) {
    if (flow->packets++ == 0) flow->first = event.time;
    flow->bytes += event.length;
    flow->last = event.time;
    return;
  }
  if (flow == nullptr) {
    if (flows_.size() >= kMost) flush(WallTime::max());
    flow = &flows_.insert(key, hash, {});
  } else if (flow->packets > 0) {
    emit_(*flow);  // told by the names that held then
  }
  flow->what = explain_(event);
  flow->world = world;
  flow->source_port = event.source_port;
  if (protocol::has_ports(event.protocol)) flow->destination_port = event.destination_port;
  flow->packets = 1;
  flow->bytes = event.length;
  flow->first = flow->last = event.time;
  emit_(*flow);
  flow->packets = flow->bytes = 0;
}

void SampledFlows::flush(WallTime before) {
  flows_.erase_if([&](const FlowKey&, SampledFlow& flow) {
    if (flow.packets > 0) emit_(flow);
    flow.packets = flow.bytes = 0;
    return flow.last < before;
  });
}

}  // namespace tierlog::logger
