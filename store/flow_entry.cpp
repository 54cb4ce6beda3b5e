#include "store/flow_entry.h"

#include <algorithm>

namespace tierlog::store {

std::string to_text(const RecordId& id) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[id[i] >> 4];
    text += kDigits[id[i] & 15];
  }
  return text;
}

std::string_view name(FlowState state) {
  constexpr std::string_view kNames[] = {"", "new", "established", "closed", "untracked"};
  return kNames[static_cast<std::size_t>(state)];
}

FlowRecord to_record(const FlowEntry& entry) {
  FlowRecord record = *entry.like;
  record.id = to_text(entry.id);
  record.start = entry.start;
  record.end = entry.end;
  record.verdict_packets = entry.verdict_packets;
  record.packets_out = entry.packets_out;
  record.packets_in = entry.packets_in;
  record.bytes_out = entry.bytes_out;
  record.bytes_in = entry.bytes_in;
  record.connections = entry.connections;
  record.src_port = entry.src_port;
  record.dst_port = entry.dst_port;
  record.ct_state = name(entry.state);
  record.end_reason = entry.end_reason;
  if (entry.translation) {
    record.translation = *entry.translation;
    record.dst_service = entry.translation->service;
  }
  if (entry.suppressed)
    for (std::size_t i = 0; i < std::min(record.logged_by.size(), entry.suppressed->size()); ++i)
      record.logged_by[i].suppressed = (*entry.suppressed)[i];
  return record;
}

}  // namespace tierlog::store
