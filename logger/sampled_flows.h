// logger/sampled_flows.h - denied flows that no entry of the kernel counts: each message is one packet.
//
//   Overflow messages --> [SampledFlows] --> a record with the first, then one per interval with the sum
//
// The path that must keep up with a flood: integer keys, look-ups in batches, no allocation for a known flow.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "logger/explainer.h"
#include "base/flat_map.h"
#include "logger/flow_key.h"

namespace tierlog::logger {

struct SampledFlow {
  Explained what;
  std::uint64_t packets = 0, bytes = 0;  // that no record tells yet
  WallTime first{}, last{};              // of those
  std::uint64_t world = 0;
  std::uint16_t source_port = 0;
  std::optional<std::uint16_t> destination_port;
};

class SampledFlows {
 public:
  // Makes a record of `packets` and `bytes`.
  using Emit = std::function<void(const SampledFlow&)>;
  using Explain = std::function<Explained(const dataplane::VerdictEvent&)>;
  SampledFlows(Explain explain, Emit emit) : explain_(std::move(explain)), emit_(std::move(emit)) {}

  void on_events(std::span<const dataplane::VerdictEvent> events, std::uint64_t world);
  // Records of all that waits; forgets what had no packet since `before`.
  void flush(WallTime before);
  template <typename Each>
  void each_waiting(const Each& each) const {
    for (const auto& entry : flows_.entries())
      if (entry.value.packets > 0) each(entry.value);
  }
  std::size_t size() const { return flows_.size(); }

 private:
  void take(const dataplane::VerdictEvent& event, const FlowKey& key, std::size_t hash, std::uint64_t world);

  Explain explain_;
  Emit emit_;
  FlatMap<FlowKey, SampledFlow, FlowKeyHash> flows_;
};

}  // namespace tierlog::logger
