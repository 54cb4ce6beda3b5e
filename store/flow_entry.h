// store/flow_entry.h - a record on its way into the file: what it shares with others by reference, its own
// amounts beside it. A hundred thousand connections between the same pods share one description.
//
//   logger/ --[FlowEntry]--> FlowStore::insert --> a row of table flow
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "store/record.h"

namespace tierlog::store {

using RecordId = std::array<std::uint8_t, 16>;  // a UUID's bytes
std::string to_text(const RecordId& id);

// What a record is of a connection (ct_state).
enum class FlowState : std::uint8_t { None, New, Established, Closed, Untracked };
std::string_view name(FlowState state);  // "", "new", "established", "closed", "untracked"

struct FlowEntry {
  std::shared_ptr<const FlowRecord> like;  // every field that does not stand below; never null
  RecordId id{};
  WallTime start{}, end{};
  std::uint64_t verdict_packets = 0;
  std::uint64_t packets_out = 0, packets_in = 0, bytes_out = 0, bytes_in = 0;
  std::optional<std::uint64_t> connections;  // nullopt for denied flows
  std::optional<std::uint16_t> src_port, dst_port;
  FlowState state = FlowState::None;
  EndReason end_reason = EndReason::None;
  std::shared_ptr<const Translation> translation;                 // null: none that is known
  std::shared_ptr<const std::vector<std::uint64_t>> suppressed;  // of each of like->logged_by; null: none
};

// The whole record.
FlowRecord to_record(const FlowEntry& entry);

}  // namespace tierlog::store
