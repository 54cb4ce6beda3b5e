#include "logger/flow_logger.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace tierlog::logger {
namespace {

using dataplane::DeniedCount;
using dataplane::EventKind;
using dataplane::VerdictEvent;
using store::FlowEntry;
using store::FlowRecord;

// Events are stamped when they are read, entries when they are touched.

dataplane::ConnectionTuple view_of(const VerdictEvent& event) {
  return {event.source,           event.destination, event.protocol,  event.source_port,
          event.destination_port, event.icmp_type,   event.icmp_code, event.icmp_id, event.apart};
}

VerdictEvent event_of(RuleId rule, const dataplane::ConnectionTuple& view, WallTime at) {
  VerdictEvent event;
  event.kind = EventKind::Allowed;
  event.rule = rule;
  event.time = at;
  event.source = view.source;
  event.destination = view.destination;
  event.protocol = view.protocol;
  event.source_port = view.source_port;
  event.destination_port = view.destination_port;
  event.icmp_type = view.icmp_type;
  event.icmp_code = view.icmp_code;
  event.icmp_id = view.icmp_id;
  return event;
}

// Of a denied flow.
VerdictEvent event_like(RuleId rule, const IpAddr& source, const IpAddr& destination, std::uint8_t protocol,
                        std::uint16_t port_or_icmp, WallTime at) {
  VerdictEvent event;
  event.kind = EventKind::Denied;
  event.rule = rule;
  event.time = at;
  event.source = source;
  event.destination = destination;
  event.protocol = protocol;
  if (protocol::is_icmp(protocol)) {
    event.icmp_type = static_cast<std::uint8_t>(port_or_icmp >> 8);
    event.icmp_code = static_cast<std::uint8_t>(port_or_icmp & 0xff);
  } else {
    event.destination_port = port_or_icmp;
  }
  return event;
}

VerdictEvent event_of(const DeniedCount& count, WallTime at) {
  VerdictEvent event =
      event_like(count.rule, count.source, count.destination, count.protocol, count.port_or_icmp, at);
  event.alone = count.alone;
  return event;
}

// An ICMP message that asks nothing has no conntrack entry, so its egress rule counted nothing.
bool has_connection(const VerdictEvent& event) {
  switch (event.protocol) {
    case protocol::kIcmp:
      return event.icmp_type == 8 || event.icmp_type == 13 || event.icmp_type == 15 || event.icmp_type == 17;
    case protocol::kIcmpV6:
      return event.icmp_type == 128;
    default:
      return true;
  }
}

void set_ports(FlowEntry& entry, const VerdictEvent& event) {
  if (!protocol::has_ports(event.protocol)) return;
  entry.src_port = event.source_port;
  entry.dst_port = event.destination_port;
}

}  // namespace

FlowLogger::FlowLogger(Nanoseconds denied_lifetime, std::size_t most_pending)
    : denied_lifetime_(denied_lifetime),
      sampled_([this](const VerdictEvent& event) { return explain(event); },
               [this](const SampledFlow& flow) { emit_sampled(flow); }),
      pending_(most_pending),
      connections_({[this](RuleId rule, const dataplane::ConnectionTuple& view, WallTime at) {
                      return describe_connection(rule, view, at);
                    },
                    [this](const IpAddr& address) {
                      const policy::Program* program = explainer_.program();
                      return program != nullptr && program->enforced(address) != nullptr;
                    },
                    [this](const IpAddr& address, std::uint8_t protocol, std::uint16_t port) {
                      return services_.name_of(address, protocol, port);
                    }}) {}

void FlowLogger::set_program(std::shared_ptr<const policy::Program> program,
                             const std::vector<policy::NetworkSet>& policy_sets, WallTime since) {
  explainer_.set_program(std::move(program), policy_sets, since);
}

void FlowLogger::take_from_connections() {
  for (FlowEntry& entry : connections_.take_entries()) push(std::move(entry));
}

std::vector<FlowEntry> FlowLogger::take_entries() {
  take_from_connections();
  return pending_.take();
}

std::vector<FlowRecord> FlowLogger::take_records() {
  take_from_connections();
  std::vector<FlowRecord> records;
  for (const FlowEntry& entry : pending_.take()) records.push_back(to_record(entry));
  return records;
}

store::ToldChanges FlowLogger::take_changes() {
  store::ToldChanges changes;
  connections_.take_changes(changes);
  changes.forgotten = std::exchange(forgotten_, {});
  for (const FlowKey& key : std::exchange(dirty_, {})) {
    DeniedFlow* const found = denied_.find(key);
    if (found == nullptr || !found->dirty) continue;
    DeniedFlow& flow = *found;
    flow.dirty = false;
    flow.stored = true;
    if (flow.handle == 0) flow.handle = next_handle_++;
    changes.denied.push_back({flow.handle, key.rule, key.source, key.destination, key.protocol, key.port_or_icmp,
                              flow.recorded_packets, flow.recorded_bytes, flow.last_packet, key.alone});
  }
  return changes;
}

void FlowLogger::changed(const FlowKey& key, DeniedFlow& flow) {
  if (flow.dirty) return;
  flow.dirty = true;
  dirty_.push_back(key);
  // While the store does not take them, those that are forgotten must not pile up.
  constexpr std::size_t kFew = 4096;
  if (dirty_.size() > 2 * denied_.size() + kFew)
    std::erase_if(dirty_, [this](const FlowKey& flow_key) { return denied_.find(flow_key) == nullptr; });
}

void FlowLogger::on_events(std::span<const VerdictEvent> events) {
  take_from_connections();
  overflow_.clear();
  for (const VerdictEvent& event : events) {
    if (event.kind == EventKind::Overflow)
      overflow_.push_back(event);
    else
      on_event(event);
  }
  sampled_.on_events(overflow_, explainer_.world());
}

void FlowLogger::on_event(const VerdictEvent& event) {
  switch (event.kind) {
    case EventKind::Allowed:
      return on_allowed(event);
    case EventKind::Stateless:
      ++counts_.stateless;
      return on_counted_flow(event);
    case EventKind::Denied:
      if (event.in_connection) return on_denied_in_connection(event);
      [[fallthrough]];
    case EventKind::Overflow:
      return on_counted_flow(event);
    case EventKind::Logged:
      ++counts_.logged_packets;
      return;
  }
}

Explained FlowLogger::explain(const VerdictEvent& event) {
  Explained explained = explainer_.explain(event);
  if (event.alone) explained.egress_allow.reset();
  if (!explained.known) ++counts_.unknown_rules;
  // Only the kernel knew which backends a Service had then.
  const bool to_service = event.addressed && event.addressed->address == event.destination;
  if (!explained.agrees && !to_service) {
    ++counts_.mismatches;
    explainer_.note_disagreement(event);
  }
  return explained;
}

std::shared_ptr<const store::Translation> FlowLogger::translation_of(const VerdictEvent& event) const {
  if (!event.addressed) return nullptr;
  store::Translation translation;
  translation.destination = event.addressed->address;
  translation.destination_port = event.addressed->port;
  translation.service = services_.name_of(event.addressed->address, event.protocol, event.addressed->port);
  return std::make_shared<const store::Translation>(std::move(translation));
}

void FlowLogger::on_allowed(const VerdictEvent& event) {
  const Explained what = explain(event);
  if (!what.record) return;
  FlowEntry entry;
  entry.like = what.record;
  entry.start = entry.end = event.time;
  entry.connections = 1;
  entry.verdict_packets = entry.packets_out = 1;
  entry.bytes_out = event.length;
  entry.state = store::FlowState::New;
  set_ports(entry, event);
  entry.translation = translation_of(event);
  if (has_connection(event)) connections_.begin(view_of(event), entry);
  push(std::move(entry));
}

// As its first record would have been, from what a label tells.
Description FlowLogger::describe_connection(RuleId id, const dataplane::ConnectionTuple& view, WallTime at) {
  const Explained& what = explainer_.explain(event_of(id, view, at));
  if (!what.known) ++counts_.unknown_rules;
  return what.record;
}

// In no set: each packet comes by itself. The rule that lets it leave counted it when the connection began.
void FlowLogger::on_denied_in_connection(const VerdictEvent& event) {
  Explained what = explain(event);
  what.egress_allow.reset();
  FlowEntry entry;
  entry.start = entry.end = event.time;
  entry.verdict_packets = entry.packets_out = 1;
  entry.bytes_out = event.length;
  entry.state = store::FlowState::Established;
  set_ports(entry, event);
  entry.translation = translation_of(event);
  emit_denied(what, std::move(entry));
}

void FlowLogger::on_counted_flow(const VerdictEvent& event) {
  const FlowKey key = key_of(event);
  const std::size_t hash = denied_.hash(key);
  DeniedFlow* const known = denied_.find(key, hash);
  if (known == nullptr) {
    DeniedFlow& flow = denied_.insert(key, hash, describe(event));
    flow.described = true;
    emit(key, flow, 1, event.length, event.time, event.time);
    changed(key, flow);
    return;
  }
  DeniedFlow& flow = *known;
  if (flow.described && event.time - flow.last_packet >= denied_lifetime_) {
    // The entry we knew had expired: this is the first packet of another, which counts from one.
    flow.recorded_packets = flow.recorded_bytes = 0;
    flow.last_packet = event.time;
    if (flow.world != explainer_.world()) describe_anew(key, flow, event.time);
    emit(key, flow, 1, event.length, event.time, event.time);
    changed(key, flow);
    return;
  }
  flow.last_packet = std::max(flow.last_packet, event.time);
  if (flow.described) return;  // one per interval; the counts tell how many
  // Counted before its message came: now the details are known.
  describe_by(flow, event);
  flow.described = true;
  flow.last = flow.last_packet = event.time;
  if (flow.recorded_packets > 0) return;
  emit(key, flow, 1, event.length, event.time, event.time);
  changed(key, flow);
}

FlowLogger::DeniedFlow FlowLogger::describe(const VerdictEvent& event) {
  DeniedFlow flow;
  describe_by(flow, event);
  flow.last = flow.last_packet = event.time;
  return flow;
}

void FlowLogger::describe_by(DeniedFlow& flow, const VerdictEvent& event) {
  flow.what = explain(event);
  flow.first = {event.kind, event.tcp_flags, event.source_port, event.in_interface, event.out_interface,
                event.addressed ? std::make_unique<const dataplane::Addressed>(*event.addressed) : nullptr};
  flow.world = explainer_.world();
}

// The same deny rule, but another rule may let it leave now, and another pod may have the address.
void FlowLogger::describe_anew(const FlowKey& key, DeniedFlow& flow, WallTime at) {
  describe_by(flow, first_event(key, flow.first, at));
}

VerdictEvent FlowLogger::first_event(const FlowKey& key, const FirstPacket& first, WallTime at) {
  VerdictEvent event = event_like(key.rule, key.source, key.destination, key.protocol, key.port_or_icmp, at);
  event.kind = first.kind;
  event.source_port = first.source_port;
  event.tcp_flags = first.tcp_flags;
  event.in_interface = first.in_interface;
  event.out_interface = first.out_interface;
  event.alone = key.alone;
  if (first.addressed) event.addressed = *first.addressed;
  return event;
}

void FlowLogger::emit(const FlowKey& key, DeniedFlow& flow, std::uint64_t packets, std::uint64_t bytes,
                      WallTime start, WallTime end) {
  flow.recorded_packets += packets;
  flow.recorded_bytes += bytes;
  flow.last = end;
  FlowEntry entry;
  entry.start = start;
  entry.end = end;
  entry.verdict_packets = entry.packets_out = packets;
  entry.bytes_out = bytes;
  // Allowed packet by packet: without a connection, or by a host endpoint that tracks none.
  const bool untracked = key.rule == RuleId::None ||
                         (flow.what.record && flow.what.record->action == store::Verdict::Allow);
  entry.state = untracked ? store::FlowState::Untracked : store::FlowState::New;
  const VerdictEvent first = first_event(key, flow.first, start);
  set_ports(entry, first);
  if (first.source_port == 0) entry.src_port.reset();  // the kernel's counts do not tell it
  entry.translation = translation_of(first);
  emit_denied(flow.what, std::move(entry));
}

void FlowLogger::emit_sampled(const SampledFlow& flow) {
  FlowEntry entry;
  entry.start = flow.first;
  entry.end = flow.last;
  entry.verdict_packets = entry.packets_out = flow.packets;
  entry.bytes_out = flow.bytes;
  entry.state = store::FlowState::New;
  if (flow.source_port != 0) entry.src_port = flow.source_port;
  entry.dst_port = flow.destination_port;
  emit_denied(flow.what, std::move(entry));
}

void FlowLogger::emit_denied(const Explained& what, FlowEntry entry) {
  if (what.record && what.egress_allow) {
    FlowEntry first = entry;
    first.like = what.record;
    push(std::move(first));
  }
  entry.like = what.egress_allow ? what.egress_allow : what.record;
  if (entry.like) push(std::move(entry));
}

void FlowLogger::push(FlowEntry entry) {
  entry.id = ids_.next_id(entry.end);
  if (!entry.like->logged_by.empty() && !suppressed_.empty()) say_suppressed(entry);
  pending_.add(std::move(entry));
}

void FlowLogger::say_suppressed(FlowEntry& entry) {
  std::vector<std::uint64_t> told(entry.like->logged_by.size());
  bool any = false;
  for (std::size_t i = 0; i < told.size(); ++i) {
    const RuleId rule = entry.like->logged_by[i].rule;
    const auto found = suppressed_.find(rule);
    if (found == suppressed_.end()) continue;
    std::uint64_t& said = said_suppressed_[rule];
    told[i] = found->second - said;
    any = any || told[i] > 0;
    said = found->second;
  }
  if (any) entry.suppressed = std::make_shared<const std::vector<std::uint64_t>>(std::move(told));
}

void FlowLogger::on_suppressed(RuleId rule, std::uint64_t suppressed) {
  suppressed_[rule] = suppressed;
  // Counters that began anew.
  std::uint64_t& said = said_suppressed_[rule];
  said = std::min(said, suppressed);
}

PacketsOfRules FlowLogger::set_denied_baseline(std::span<const DeniedCount> counts, WallTime at,
                                               std::span<const store::ToldDenied> told, PacketsOfRules room,
                                               WallTime watched_until) {
  std::unordered_map<FlowKey, const store::ToldDenied*, FlowKeyHash> known;
  for (const store::ToldDenied& row : told) {
    known[{row.rule, row.source, row.destination, row.protocol, row.port_or_icmp, row.alone}] = &row;
    next_handle_ = std::max(next_handle_, row.handle + 1);
  }
  PacketsOfRules news_told;
  for (const DeniedCount& count : counts) {
    // The rules and names of then: both may be others since.
    const WallTime last_packet = at - count.idle;
    const VerdictEvent event = event_of(count, last_packet);
    const FlowKey key = key_of(event);
    DeniedFlow flow = describe(event);
    flow.described = true;
    const auto row = known.find(key);
    flow.stored = row != known.end();
    if (flow.stored) flow.handle = row->second->handle;
    // As many as were told, although the entry that was told must have expired: one that was made again.
    const bool anew = flow.stored && (count.packets < row->second->packets ||
                                      (count.packets == row->second->packets &&
                                       last_packet - row->second->last_packet > denied_lifetime_ / 2));
    if (flow.stored && !anew) {
      flow.recorded_packets = row->second->packets;
      flow.recorded_bytes = row->second->bytes;
    }
    // Counters are the judges: what a rule's books have no room for was told by somebody.
    std::uint64_t& left = room[flow.what.record ? flow.what.record->rule : count.rule];
    const std::uint64_t news = std::min(count.packets - flow.recorded_packets, left);
    left -= news;
    std::uint64_t bytes = count.bytes - std::min(count.bytes, flow.recorded_bytes);
    if (flow.recorded_packets + news < count.packets) {
      bytes = std::min(count.bytes, count.bytes / count.packets * news);
      flow.recorded_packets = count.packets - news;
      flow.recorded_bytes = count.bytes - bytes;
    }
    if (flow.stored) known.erase(row);
    DeniedFlow* const there = denied_.find(key);
    DeniedFlow& kept = there == nullptr ? denied_.insert(key, denied_.hash(key), std::move(flow)) : *there = std::move(flow);
    if (news > 0) {
      // Of one packet the time is known, of several that they came after what was told.
      const bool since_known = news > 1 && watched_until != WallTime{};
      emit(key, kept, news, bytes, since_known ? std::min(watched_until, last_packet) : last_packet, last_packet);
      for (const Description* like : {&kept.what.record, &kept.what.egress_allow})
        if (*like) news_told[(*like)->rule] += news;
    }
    kept.world = 0;  // what comes next is described by what holds then
    changed(key, kept);
  }
  for (const auto& [key, row] : known) forgotten_.push_back(row->handle);
  return news_told;
}

void FlowLogger::on_denied_counts(std::span<const DeniedCount> counts, WallTime at, Reading reading) {
  ++reading_;
  for (const DeniedCount& count : counts) {
    const VerdictEvent event = event_of(count, at);
    const FlowKey key = key_of(event);
    const std::size_t hash = denied_.hash(key);
    DeniedFlow* const there = denied_.find(key, hash);
    const bool is_new = there == nullptr;
    DeniedFlow& flow = is_new ? denied_.insert(key, hash, {}) : *there;
    // Its message is on the way: it names the source port and flags, so give it until the next reading.
    if (is_new && reading == Reading::Regular) {
      flow.last = at;
      flow.last_packet = at - count.idle;
      flow.seen = reading_;
      continue;
    }
    if (is_new || !flow.described) {
      const WallTime since = is_new ? at : flow.last;
      flow = describe(event);
      flow.last = since;
      flow.described = true;
    }
    flow.seen = reading_;
    const WallTime last_packet = at - count.idle;
    // Fewer than before, or as many although the old entry must have expired in between: it is a new one. Half
    // a lifetime, because `at` may be late by as long as this thread had to wait for its turn.
    const bool expired = last_packet - flow.last_packet > denied_lifetime_ / 2;
    if (count.packets < flow.recorded_packets || (count.packets == flow.recorded_packets && expired))
      flow.recorded_packets = flow.recorded_bytes = 0;
    flow.last_packet = std::max(flow.last_packet, last_packet);
    if (count.packets == flow.recorded_packets) continue;
    if (flow.world != explainer_.world()) describe_anew(key, flow, at);
    const std::uint64_t bytes = count.bytes >= flow.recorded_bytes ? count.bytes - flow.recorded_bytes : 0;
    emit(key, flow, count.packets - flow.recorded_packets, bytes, flow.last, at);
    changed(key, flow);
  }
  sampled_.flush(at - denied_lifetime_);
  forget_expired(at);
}

// The kernel forgot it: the next packet starts a new flow and is recorded at once. A dump alone does not
// say so: while the kernel's hash table grows, it may leave out what is there.
void FlowLogger::forget_expired(WallTime at) {
  explainer_.let_go_unasked(at);
  // All flows are looked at, so not at every reading; who comes back meanwhile is known by its times.
  if (at >= forgotten_at_ && at - forgotten_at_ < denied_lifetime_ / 4) return;
  forgotten_at_ = at;
  denied_.erase_if([&](const FlowKey&, const DeniedFlow& flow) {
    if (flow.seen == reading_ || at - flow.last_packet < denied_lifetime_) return false;
    if (flow.stored) forgotten_.push_back(flow.handle);
    return true;
  });
}

PacketsOfRules FlowLogger::waiting_by_rule(std::span<const DeniedCount> counts) {
  PacketsOfRules waiting;
  const auto add = [&](const Explained& what, RuleId rule, std::uint64_t packets, bool alone = false) {
    waiting[rule == RuleId::None && what.record ? what.record->rule : rule] += packets;
    // A local pair's packet was counted at its egress rule too, and gets a record for each.
    if (what.egress_allow && !alone) waiting[what.egress_allow->rule] += packets;
  };
  for (const DeniedCount& count : counts) {
    const VerdictEvent event = event_of(count, WallTime::max());
    const DeniedFlow* const known = denied_.find(key_of(event));
    std::uint64_t recorded = known == nullptr ? 0 : known->recorded_packets;
    if (count.packets < recorded) recorded = 0;  // a new entry
    if (count.packets == recorded) continue;
    const bool described = known != nullptr && known->described;
    add(described ? known->what : explainer_.explain(event), count.rule, count.packets - recorded, count.alone);
  }
  sampled_.each_waiting([&](const SampledFlow& flow) {
    if (flow.what.record) add(flow.what, flow.what.record->rule, flow.packets);
  });
  return waiting;
}

std::uint64_t FlowLogger::waiting(std::span<const DeniedCount> counts) {
  std::uint64_t sum = 0;
  for (const auto& [rule, packets] : waiting_by_rule(counts)) sum += packets;
  return sum;
}

}  // namespace tierlog::logger
