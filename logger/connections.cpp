#include "logger/connections.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <utility>

namespace tierlog::logger {
namespace {

using dataplane::Connection;
using dataplane::ConnectionTuple;
using store::Amounts;
using store::FlowEntry;
using store::FlowState;
using store::ToldConnection;

// Both directions' messages of one packet are stamped when they are read.
constexpr std::chrono::seconds kSamePacket{1};
// Messages come within some ten milliseconds of their packet: after this an end has no beginning.
constexpr std::chrono::seconds kLateBeginning{3};
// Between the clock of a log message and the kernel's time of an entry.
constexpr std::chrono::seconds kSameStart{3};
// A dump may miss an entry while the kernel resizes its table.
constexpr std::uint32_t kMostMissedDumps = 2;
constexpr std::size_t kFewDirty = 4096;

ConnectionTuple key_of(const ToldConnection& told) {
  return {told.source,           told.destination, told.protocol,  told.source_port,
          told.destination_port, told.icmp_type,   told.icmp_code, told.icmp_id};
}

Amounts counted_by(const Connection& connection) {
  return {connection.packets_out, connection.bytes_out, connection.packets_in, connection.bytes_in};
}

std::uint64_t more(std::uint64_t now, std::uint64_t before) {
  return now > before ? now - before : 0;
}

bool is_less(const Amounts& a, const Amounts& b) {
  return a.packets_out < b.packets_out || a.bytes_out < b.bytes_out || a.packets_in < b.packets_in ||
         a.bytes_in < b.bytes_in;
}

bool is_near(WallTime a, WallTime b, Nanoseconds within) {
  return a - b <= within && b - a <= within;
}

RuleId rule_of(const Description& description) {
  return description ? description->rule : RuleId::None;
}

// By what conntrack knew when it let the entry go.
store::EndReason end_reason_of(const Connection& connection) {
  using store::EndReason;
  // What came back may be an error about it; where the kernel says nothing of an answer, it counts as one.
  const bool says = connection.status != 0;
  if (says ? (connection.status & IPS_SEEN_REPLY) == 0 : connection.packets_in == 0) return EndReason::Unanswered;
  if (connection.original.protocol != protocol::kTcp) return EndReason::TimedOut;
  switch (connection.tcp_state) {
    case TCP_CONNTRACK_CLOSE:
      return EndReason::Reset;
    case TCP_CONNTRACK_FIN_WAIT:
    case TCP_CONNTRACK_CLOSE_WAIT:
    case TCP_CONNTRACK_LAST_ACK:
    case TCP_CONNTRACK_TIME_WAIT:
      return EndReason::Finished;
    default:
      return EndReason::TimedOut;
  }
}

}  // namespace

std::size_t Connections::Hash::operator()(const ConnectionTuple& tuple) const noexcept {
  constexpr std::size_t kSpread = 0x9e3779b97f4a7c15ULL;
  std::size_t h = std::hash<IpAddr>()(tuple.source);
  h = h * kSpread + std::hash<IpAddr>()(tuple.destination);
  h = h * kSpread + (std::size_t{tuple.source_port} << 16 | tuple.destination_port);
  return h * kSpread +
         (std::size_t{tuple.protocol} << 16 | std::size_t{tuple.icmp_type} << 8 | tuple.icmp_code);
}

Connections::Map::iterator Connections::insert(const ConnectionTuple& key, Open open) {
  if (open.handle == 0) open.handle = next_handle_++;
  return open_.emplace(key, std::move(open));
}

Connections::Map::iterator Connections::forget(Map::iterator entry) {
  if (entry->second.stored) ended_.push_back(entry->second.handle);
  return open_.erase(entry);
}

void Connections::changed(const ConnectionTuple& key, Open& open) {
  if (open.dirty) return;
  open.dirty = true;
  dirty_.emplace_back(key, open.handle);
  // While the store does not take them, those that have ended meanwhile must not pile up.
  if (dirty_.size() > 2 * open_.size() + kFewDirty) forget_dirty_ended();
}

void Connections::forget_dirty_ended() {
  std::erase_if(dirty_, [this](const auto& entry) {
    const auto [begin, end] = open_.equal_range(entry.first);
    return std::none_of(begin, end, [&](const auto& e) { return e.second.handle == entry.second; });
  });
}

// The open connection that this first packet belongs to: the one whose other direction the same packet
// began, or the one that was judged once more before the kernel confirmed it. What else has this key is
// gone: its end was not told, or is no news to anybody.
Connections::Map::iterator Connections::find_beginning(const ConnectionTuple& key, Direction direction,
                                                       WallTime at) {
  auto [it, end] = open_.equal_range(key);
  while (it != end) {
    Open& open = it->second;
    const Side& side = direction == Direction::Egress ? open.egress : open.ingress;
    if (!side.description && is_near(open.started, at, kSamePacket)) return it;
    if (side.description && (open.conntrack_id == 0 || side.unheard)) return it;
    if (!open.silent) ++counts_.ends_unseen;
    it = forget(it);
  }
  return open_.end();
}

void Connections::begin(const ConnectionTuple& view, const FlowEntry& first) {
  const Direction direction = first.like->direction;
  auto entry = find_beginning(view, direction, first.start);
  if (entry == open_.end()) {
    Open open;
    open.started = open.told_until = first.start;
    entry = insert(view, std::move(open));
  }
  Open& open = entry->second;
  Side& side = direction == Direction::Egress ? open.egress : open.ingress;
  if (!side.description) side.description = first.like;
  if (!open.translation) open.translation = first.translation;
  side.unheard = open.silent = false;
  side.told.packets_out += first.packets_out;
  side.told.bytes_out += first.bytes_out;
  changed(view, open);
}

Connections::Map::iterator Connections::find_entry(const ConnectionTuple& key, std::uint32_t conntrack_id) {
  const auto [begin, end] = open_.equal_range(key);
  auto unbound = open_.end();
  for (auto it = begin; it != end; ++it) {
    if (it->second.conntrack_id == conntrack_id && conntrack_id != 0) return it;
    if (it->second.conntrack_id == 0) unbound = it;
  }
  return unbound;
}

// Both tuples tell what was translated; a first packet's message tells of its destination at most.
void Connections::learn_translation(Open& open, const Connection& connection) const {
  if (open.translation_known) return;
  open.translation_known = true;
  const ConnectionTuple& sent = connection.original;
  const ConnectionTuple& answered = connection.reply;
  const bool ports = protocol::has_ports(sent.protocol);
  store::Translation found;
  if (sent.destination != answered.source || (ports && sent.destination_port != answered.source_port)) {
    found.destination = sent.destination;
    found.destination_port = ports ? sent.destination_port : std::uint16_t{0};
    found.service = questions_.service_at(sent.destination, sent.protocol, found.destination_port);
  }
  if (sent.source != answered.destination || (ports && sent.source_port != answered.destination_port)) {
    found.source = answered.destination;
    found.source_port = ports ? answered.destination_port : std::uint16_t{0};
  }
  if (found.destination || found.source)
    open.translation = std::make_shared<const store::Translation>(std::move(found));
}

// One record a side, with what was counted since its last one.
void Connections::tell(const ConnectionTuple& key, Open& open, const Connection& connection, WallTime at,
                       FlowState state) {
  learn_translation(open, connection);
  const Amounts counted = counted_by(connection);
  at = std::max(at, open.told_until);
  for (Side* side : {&open.egress, &open.ingress}) {
    if (!side->description) continue;
    FlowEntry entry;
    entry.like = side->description;
    entry.start = open.told_until;
    entry.end = at;
    if (protocol::has_ports(key.protocol)) {
      entry.src_port = key.source_port;
      entry.dst_port = key.destination_port;
    }
    entry.connections = side->unheard ? 1 : 0;
    if (const auto room = room_.find(entry.like->rule); side->unheard && room != room_.end() && room->second > 0) {
      --room->second;
      entry.verdict_packets = 1;
    }
    side->unheard = false;
    entry.packets_out = more(counted.packets_out, side->told.packets_out);
    entry.bytes_out = more(counted.bytes_out, side->told.bytes_out);
    entry.packets_in = more(counted.packets_in, side->told.packets_in);
    entry.bytes_in = more(counted.bytes_in, side->told.bytes_in);
    entry.state = state;
    if (state == FlowState::Closed) entry.end_reason = end_reason_of(connection);
    entry.translation = open.translation;
    entries_.push_back(std::move(entry));
    side->told = {std::max(counted.packets_out, side->told.packets_out),
                  std::max(counted.bytes_out, side->told.bytes_out),
                  std::max(counted.packets_in, side->told.packets_in),
                  std::max(counted.bytes_in, side->told.bytes_in)};
  }
  open.told_until = at;
  open.silent = false;
  changed(key, open);
}

bool Connections::close(const Connection& connection, WallTime at) {
  const ConnectionTuple key = forward_view(connection);
  const auto entry = find_entry(key, connection.id);
  if (entry == open_.end()) return false;
  tell(key, entry->second, connection, connection.ended.value_or(at), FlowState::Closed);
  forget(entry);
  return true;
}

void Connections::on_ended(std::span<const Connection> ended, WallTime at) {
  for (const Connection& connection : ended)
    if (!close(connection, at)) pending_.push_back({connection, at});
}

void Connections::settle(WallTime at) {
  std::erase_if(pending_, [&](const PendingEnd& end) {
    if (close(end.connection, end.since)) return true;
    if (at - end.since < kLateBeginning) return false;
    const ConnectionTuple view = forward_view(end.connection);
    if (questions_.is_enforced(view.source) || questions_.is_enforced(view.destination))
      counts_.unattributed_packets += end.connection.packets_out + end.connection.packets_in;
    return true;
  });
}

void Connections::restore(std::vector<ToldConnection> told) {
  for (ToldConnection& connection : told) {
    next_handle_ = std::max(next_handle_, connection.handle + 1);
    const ConnectionTuple key = key_of(connection);
    restored_.emplace(key, std::move(connection));
  }
}

void Connections::on_dump(std::span<const Connection> entries, WallTime at, Dump dump) {
  for (auto& [key, open] : open_) open.seen = false;
  unknown_now_.clear();
  for (const Connection& entry : entries) {
    const ConnectionTuple key = forward_view(entry);
    const auto found = find_entry(key, entry.id);
    if (found == open_.end()) {
      adopt(entry, at, dump);
      continue;
    }
    Open& open = found->second;
    open.seen = true;
    open.missed_dumps = 0;
    if (open.conntrack_id == 0) {
      open.conntrack_id = entry.id;
      changed(key, open);
    }
    const Amounts counted = counted_by(entry);
    const bool moved = (open.egress.description && is_less(open.egress.told, counted)) ||
                       (open.ingress.description && is_less(open.ingress.told, counted));
    if (moved) tell(key, open, entry, at, FlowState::Established);
  }
  unknown_.swap(unknown_now_);
  if (dump == Dump::Start) {
    // They ended while nobody looked: what they moved since their last record is not known.
    for (const auto& [key, told] : restored_) ended_.push_back(told.handle);
    counts_.ends_unseen += restored_.size();
    restored_.clear();
  }
  forget_missing();
}

void Connections::forget_missing() {
  for (auto it = open_.begin(); it != open_.end();) {
    Open& open = it->second;
    if (open.seen || ++open.missed_dumps < kMostMissedDumps) {
      ++it;
      continue;
    }
    // Never seen by the kernel: its first packet was dropped by somebody behind us.
    if (open.conntrack_id != 0) ++counts_.ends_unseen;
    it = forget(it);
  }
}

void Connections::adopt(const Connection& entry, WallTime at, Dump dump) {
  if (dump == Dump::Interval) return meet_unknown(entry, at);
  if (resume(entry, at)) return;
  Open open;
  if (!describe_sides(entry, open, dump, at)) return;
  open.silent = true;
  const ConnectionTuple key = forward_view(entry);
  if (entry.labels.egress != RuleId::None || entry.labels.ingress != RuleId::None) {
    begins_unheard(open);
    insert(key, std::move(open));
    unheard_.push_back(entry);
    return;
  }
  open.egress.told = open.ingress.told = counted_by(entry);
  changed(key, insert(key, std::move(open))->second);
}

void Connections::begins_unheard(Open& open) {
  open.told_until = open.started;
  for (Side* side : {&open.egress, &open.ingress}) side->unheard = side->description != nullptr;
}

PacketsOfRules Connections::tell_unheard(PacketsOfRules room, WallTime at) {
  PacketsOfRules told = room;
  room_ = std::move(room);
  for (const Connection& entry : std::exchange(unheard_, {})) {
    const ConnectionTuple key = forward_view(entry);
    const auto found = find_entry(key, entry.id);
    if (found == open_.end()) continue;
    if (found->second.egress.unheard || found->second.ingress.unheard)
      tell(key, found->second, entry, at, FlowState::Established);
  }
  for (auto& [rule, packets] : told) packets -= room_[rule];
  room_.clear();
  return told;
}

// What a label says; of an entry that is older than the rules, which end is enforced.
bool Connections::describe_sides(const Connection& entry, Open& open, Dump dump, WallTime at) {
  const ConnectionTuple view = forward_view(entry);
  RuleId egress = entry.labels.egress;
  RuleId ingress = entry.labels.ingress;
  if (egress == RuleId::None && ingress == RuleId::None && dump == Dump::Start) {
    if (questions_.is_enforced(view.source)) egress = reserved::kPreexistingEgress;
    if (questions_.is_enforced(view.destination)) ingress = reserved::kPreexistingIngress;
  }
  open.conntrack_id = entry.id;
  open.started = entry.started.value_or(at);
  open.told_until = at;
  open.seen = true;
  for (const auto& [rule, side] : {std::pair{egress, &open.egress}, std::pair{ingress, &open.ingress}}) {
    if (rule == RuleId::None) continue;
    side->description = questions_.describe(rule, view, open.started);
  }
  return open.egress.description || open.ingress.description;
}

// Goes on where the records of an earlier daemon ended.
bool Connections::resume(const Connection& entry, WallTime at) {
  const ConnectionTuple key = forward_view(entry);
  // What is apart was told under the same name as the rest of it.
  ConnectionTuple name = key;
  name.apart = false;
  const auto [begin, end] = restored_.equal_range(name);
  const auto row = std::find_if(begin, end, [&](const auto& candidate) {
    const ToldConnection& told = candidate.second;
    if (told.conntrack_id != 0) return told.conntrack_id == entry.id;
    const bool only_egress = told.ingress.rule == RuleId::None;
    if (key.apart ? !only_egress : only_egress && entry.labels.egress == RuleId::None) return false;
    return !entry.started || is_near(*entry.started, told.started, kSameStart);
  });
  if (row == end) return false;
  const ToldConnection told = row->second;
  const Amounts counted = counted_by(entry);
  // Counters never fall: this is another connection with the same name (after a reboot).
  if (is_less(counted, told.egress.rule == RuleId::None ? told.ingress.amounts : told.egress.amounts))
    return false;
  restored_.erase(row);
  Connection labelled = entry;
  labelled.labels = {told.egress.rule, told.ingress.rule, 0};
  Open open;
  if (!describe_sides(labelled, open, Dump::Start, told.started)) return false;
  open.handle = told.handle;
  open.stored = true;
  open.started = told.started;
  open.told_until = told.told_until;
  open.egress.told = told.egress.amounts;
  open.ingress.told = told.ingress.amounts;
  const auto resumed = insert(key, std::move(open));
  if (is_less(resumed->second.egress.description ? told.egress.amounts : told.ingress.amounts, counted))
    tell(key, resumed->second, entry, at, FlowState::Established);
  else
    changed(key, resumed->second);
  return true;
}

// A label without a beginning: its message is on the way, or it was lost. Then the label still tells the
// rule, and this is the connection's first record; its verdict is in the books as lost.
void Connections::meet_unknown(const Connection& entry, WallTime at) {
  if (entry.labels.egress == RuleId::None && entry.labels.ingress == RuleId::None) return;
  if (unknown_.count(entry.id) == 0) {
    unknown_now_.insert(entry.id);
    return;
  }
  Open open;
  if (!describe_sides(entry, open, Dump::Interval, at)) return;
  begins_unheard(open);
  const ConnectionTuple key = forward_view(entry);
  tell(key, insert(key, std::move(open))->second, entry, at, FlowState::Established);
}

void Connections::take_changes(store::ToldChanges& into) {
  for (const auto& [key, handle] : std::exchange(dirty_, {})) {
    const auto [begin, end] = open_.equal_range(key);
    const auto it = std::find_if(begin, end, [&](const auto& e) { return e.second.handle == handle; });
    if (it == end) continue;
    Open& open = it->second;
    open.dirty = false;
    open.stored = true;
    into.connections.push_back({handle,
                                key.source,
                                key.destination,
                                key.protocol,
                                key.source_port,
                                key.destination_port,
                                key.icmp_type,
                                key.icmp_code,
                                key.icmp_id,
                                open.conntrack_id,
                                open.started,
                                open.told_until,
                                {rule_of(open.egress.description), open.egress.told},
                                {rule_of(open.ingress.description), open.ingress.told}});
  }
  for (const std::int64_t handle : std::exchange(ended_, {})) into.ended.push_back(handle);
}

}  // namespace tierlog::logger
