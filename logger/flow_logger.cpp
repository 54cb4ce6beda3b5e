#include "logger/flow_logger.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace tierlog::logger {
namespace {

using dataplane::DeniedCount;
using dataplane::EventKind;
using dataplane::VerdictEvent;
using store::FlowRecord;

// Late events of that many replacements back are still explained; their names are known for ever.
constexpr std::size_t kProgramsKept = 4;
// Events are stamped when they are read, entries when they are touched.
constexpr std::chrono::milliseconds kClockSlack{500};

dataplane::ConnectionTuple view_of(const VerdictEvent& event) {
  return {event.source,           event.destination, event.protocol,  event.source_port,
          event.destination_port, event.icmp_type,   event.icmp_code, event.icmp_id};
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

policy::Packet packet_of(const VerdictEvent& event) {
  return {event.source,           event.destination, event.protocol, event.source_port,
          event.destination_port, event.icmp_type,   event.icmp_code};
}

std::string flag_text(std::uint8_t flags) {
  constexpr std::pair<std::uint8_t, char> kFlags[] = {{2, 's'}, {16, 'a'}, {1, 'f'},
                                                      {4, 'r'}, {8, 'p'},  {32, 'u'}};
  std::string text;
  for (const auto& [bit, letter] : kFlags)
    if ((flags & bit) != 0) text += letter;
  return text;
}

const policy::DirectionVerdict* verdict_of(const policy::Evaluation& evaluation, Direction direction) {
  const auto& verdict = direction == Direction::Egress ? evaluation.egress : evaluation.ingress;
  return verdict ? &*verdict : nullptr;
}

std::string display_of(const policy::Program& program, std::uint32_t policy_index) {
  return policy_index == policy::kNone ? std::string() : program.policies[policy_index].display;
}

Reason reason_of(const store::RuleRow& rule) {
  for (int i = 0; i <= static_cast<int>(Reason::Other); ++i)
    if (name(static_cast<Reason>(i)) == rule.reason) return static_cast<Reason>(i);
  return Reason::Other;
}

VerdictEvent event_of(const DeniedCount& count, WallTime at) {
  VerdictEvent event;
  event.kind = EventKind::Denied;
  event.rule = count.rule;
  event.time = at;
  event.source = count.source;
  event.destination = count.destination;
  event.protocol = count.protocol;
  if (protocol::is_icmp(count.protocol)) {
    event.icmp_type = static_cast<std::uint8_t>(count.port_or_icmp >> 8);
    event.icmp_code = static_cast<std::uint8_t>(count.port_or_icmp & 0xff);
  } else {
    event.destination_port = count.port_or_icmp;
  }
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

}  // namespace

FlowLogger::FlowLogger(Nanoseconds denied_lifetime)
    : denied_lifetime_(denied_lifetime),
      connections_({[this](RuleId rule, const dataplane::ConnectionTuple& view, WallTime at) {
                      return describe_connection(rule, view, at);
                    },
                    [this](const IpAddr& address) {
                      return !programs_.empty() && programs_.front()->enforced(address) != nullptr;
                    }}) {}

std::size_t FlowLogger::FlowKeyHash::operator()(const FlowKey& key) const noexcept {
  std::size_t h = std::hash<IpAddr>()(key.source);
  h = h * 0x9e3779b97f4a7c15ULL + std::hash<IpAddr>()(key.destination);
  h = h * 0x9e3779b97f4a7c15ULL + number(key.rule);
  return h * 0x9e3779b97f4a7c15ULL + (std::size_t{key.protocol} << 16 | key.port_or_icmp);
}

FlowLogger::FlowKey FlowLogger::key_of(const VerdictEvent& event) {
  std::uint16_t port = 0;
  if (protocol::has_ports(event.protocol))
    port = event.destination_port;
  else if (protocol::is_icmp(event.protocol))
    port = static_cast<std::uint16_t>(event.icmp_type << 8 | event.icmp_code);
  return {event.rule, event.source, event.destination, event.protocol, port};
}

void FlowLogger::set_program(std::shared_ptr<const policy::Program> program,
                             const std::vector<policy::NetworkSet>& policy_sets, WallTime since) {
  ++world_;
  rules_.learn(*program);
  addresses_.update(*program->cluster, policy_sets, since);
  programs_.push_front(std::move(program));
  if (programs_.size() > kProgramsKept) programs_.pop_back();
}

std::vector<FlowRecord> FlowLogger::take_records() {
  for (FlowRecord& record : connections_.take_records()) push(std::move(record));
  return std::exchange(records_, {});
}

store::ToldChanges FlowLogger::take_changes() {
  store::ToldChanges changes;
  connections_.take_changes(changes);
  changes.forgotten = std::exchange(forgotten_, {});
  for (const FlowKey& key : std::exchange(dirty_, {})) {
    const auto found = denied_.find(key);
    if (found == denied_.end() || !found->second.dirty) continue;
    DeniedFlow& flow = found->second;
    flow.dirty = false;
    flow.stored = true;
    changes.denied.push_back({key.rule, key.source, key.destination, key.protocol, key.port_or_icmp,
                              flow.recorded_packets, flow.recorded_bytes, flow.last_packet});
  }
  return changes;
}

void FlowLogger::changed(const FlowKey& key, DeniedFlow& flow) {
  if (flow.dirty) return;
  flow.dirty = true;
  dirty_.push_back(key);
}

void FlowLogger::on_events(std::span<const VerdictEvent> events) {
  for (const VerdictEvent& event : events) {
    switch (event.kind) {
      case EventKind::Allowed:
        on_allowed(event);
        break;
      case EventKind::Stateless:
        ++counts_.stateless;
        on_counted_flow(event);
        break;
      case EventKind::Denied:
        on_counted_flow(event);
        break;
      case EventKind::Logged:
        ++counts_.logged_packets;
        break;
      case EventKind::Overflow: {
        // No entry counts this flow: the sampled packet is recorded by itself.
        DeniedFlow flow = describe(event);
        emit(flow, 1, event.length, event.time, event.time);
        break;
      }
    }
  }
}

void FlowLogger::on_allowed(const VerdictEvent& event) {
  const store::RuleRow* rule = rules_.find(event.rule);
  if (rule == nullptr) {
    ++counts_.unknown_rules;
    return;
  }
  FlowRecord record = base_record(event, *rule);
  record.action = store::Verdict::Allow;
  record.connections = 1;
  record.verdict_packets = 1;
  record.packets_out = 1;
  record.bytes_out = event.length;
  record.packets_in = record.bytes_in = 0;
  policy::Evaluation evaluation;
  const policy::Program* program = evaluate(event, rule->direction, evaluation);
  if (program != nullptr)
    explain(record, *program, evaluation, rule->direction);
  else
    ++counts_.mismatches;
  if (has_connection(event)) connections_.begin(view_of(event), rule->direction, record);
  push(std::move(record));
}

// As its first record would have been, from what a label tells.
std::optional<FlowRecord> FlowLogger::describe_connection(RuleId id, const dataplane::ConnectionTuple& view,
                                                          WallTime at) {
  const store::RuleRow* rule = rules_.find(id);
  if (rule == nullptr) {
    ++counts_.unknown_rules;
    return std::nullopt;
  }
  const VerdictEvent event = event_of(id, view, at);
  FlowRecord record = base_record(event, *rule);
  record.action = store::Verdict::Allow;
  policy::Evaluation evaluation;
  if (const policy::Program* program = evaluate(event, rule->direction, evaluation))
    explain(record, *program, evaluation, rule->direction);
  return record;
}

void FlowLogger::on_counted_flow(const VerdictEvent& event) {
  const FlowKey key = key_of(event);
  const auto known = denied_.find(key);
  if (known == denied_.end()) {
    DeniedFlow& flow = denied_.emplace(key, describe(event)).first->second;
    flow.described = true;
    emit(flow, 1, event.length, event.time, event.time);
    changed(key, flow);
    return;
  }
  DeniedFlow& flow = known->second;
  if (flow.described && event.time - flow.last_packet >= denied_lifetime_) {
    // The entry we knew had expired: this is the first packet of another, which counts from one.
    flow.recorded_packets = flow.recorded_bytes = 0;
    flow.last_packet = event.time;
    if (flow.world != world_) describe_anew(flow, event.time);
    emit(flow, 1, event.length, event.time, event.time);
    changed(key, flow);
    return;
  }
  flow.last_packet = std::max(flow.last_packet, event.time);
  if (flow.described) return;  // one per interval; the counts tell how many
  // Counted before its message came: now the details are known.
  const auto packets = flow.recorded_packets;
  const auto bytes = flow.recorded_bytes;
  const auto [seen, stored, dirty] = std::tuple{flow.seen, flow.stored, flow.dirty};
  flow = describe(event);
  flow.described = true;
  flow.seen = seen;
  flow.stored = stored;
  flow.dirty = dirty;
  flow.recorded_packets = packets;
  flow.recorded_bytes = bytes;
  if (packets > 0) return;
  emit(flow, 1, event.length, event.time, event.time);
  changed(key, flow);
}

// The kernel tells no rule of a packet without a connection: those that decide now are its rules.
FlowLogger::DeniedFlow FlowLogger::describe_stateless(const VerdictEvent& event) {
  DeniedFlow flow;
  flow.first = event;
  flow.world = world_;
  flow.last = flow.last_packet = event.time;
  policy::Evaluation evaluation;
  if (!programs_.empty()) evaluation = policy::evaluate(*programs_.front(), packet_of(event));
  flow.silent = !evaluation.egress && !evaluation.ingress;
  if (flow.silent || evaluation.action == policy::Action::Deny) ++counts_.mismatches;
  const auto side = [&](const policy::DirectionVerdict& verdict) {
    VerdictEvent view = event;
    view.rule = verdict.rule;
    static const store::RuleRow kUnknown{};
    const store::RuleRow* rule = rules_.find(verdict.rule);
    FlowRecord record = base_record(view, rule == nullptr ? kUnknown : *rule);
    record.action = store::Verdict::Allow;
    record.ct_state = "untracked";
    explain(record, *programs_.front(), evaluation, verdict.direction);
    return record;
  };
  if (evaluation.ingress) flow.record = side(*evaluation.ingress);
  if (evaluation.egress) (evaluation.ingress ? flow.egress_allow.emplace() : flow.record) = side(*evaluation.egress);
  return flow;
}

FlowLogger::DeniedFlow FlowLogger::describe(const VerdictEvent& event) {
  if (event.rule == RuleId::None) return describe_stateless(event);
  DeniedFlow flow;
  flow.first = event;
  flow.world = world_;
  const store::RuleRow* rule = rules_.find(event.rule);
  static const store::RuleRow kUnknown{};
  if (rule == nullptr) ++counts_.unknown_rules;
  flow.record = base_record(event, rule == nullptr ? kUnknown : *rule);
  flow.record.action = store::Verdict::Deny;
  flow.last = flow.last_packet = event.time;
  if (rule == nullptr) return flow;

  policy::Evaluation evaluation;
  const policy::Program* program = evaluate(event, rule->direction, evaluation);
  if (program == nullptr) {
    // Reserved reasons are given by the kernel's own tests, which the evaluator does not know.
    if (find_reserved(event.rule) == nullptr) ++counts_.mismatches;
    return flow;
  }
  explain(flow.record, *program, evaluation, rule->direction);
  if (rule->direction != Direction::Ingress || !evaluation.egress) return flow;
  const store::RuleRow* egress = rules_.find(evaluation.egress->rule);
  if (egress == nullptr) return flow;
  VerdictEvent view = event;
  view.rule = evaluation.egress->rule;
  flow.egress_allow = base_record(view, *egress);
  flow.egress_allow->action = store::Verdict::Allow;
  explain(*flow.egress_allow, *program, evaluation, Direction::Egress);
  return flow;
}

// The same deny rule, but another rule may let it leave now, and another pod may have the address.
void FlowLogger::describe_anew(DeniedFlow& flow, WallTime at) {
  VerdictEvent event = flow.first;
  event.time = at;
  DeniedFlow fresh = describe(event);
  fresh.recorded_packets = flow.recorded_packets;
  fresh.recorded_bytes = flow.recorded_bytes;
  fresh.last = flow.last;
  fresh.last_packet = flow.last_packet;
  fresh.described = flow.described;
  fresh.seen = flow.seen;
  fresh.stored = flow.stored;
  fresh.dirty = flow.dirty;
  flow = std::move(fresh);
}

void FlowLogger::emit(DeniedFlow& flow, std::uint64_t packets, std::uint64_t bytes, WallTime start,
                      WallTime end) {
  flow.recorded_packets += packets;
  flow.recorded_bytes += bytes;
  flow.last = end;
  if (flow.silent) return;
  const auto fill = [&](FlowRecord record) {
    record.start = start;
    record.end = end;
    record.verdict_packets = packets;
    record.packets_out = packets;
    record.bytes_out = bytes;
    record.packets_in = 0;
    record.bytes_in = 0;
    push(std::move(record));
  };
  fill(flow.record);
  if (flow.egress_allow) fill(*flow.egress_allow);
}

void FlowLogger::push(FlowRecord record) {
  record.id = ids_.next(record.end);
  if (audits_) record.reason = Reason::Audit;
  records_.push_back(std::move(record));
}

void FlowLogger::set_denied_baseline(std::span<const DeniedCount> counts, WallTime at,
                                     std::span<const store::ToldDenied> told, PacketsOfRules room) {
  std::unordered_map<FlowKey, const store::ToldDenied*, FlowKeyHash> known;
  for (const store::ToldDenied& row : told)
    known[{row.rule, row.source, row.destination, row.protocol, row.port_or_icmp}] = &row;
  for (const DeniedCount& count : counts) {
    const VerdictEvent event = event_of(count, at);
    const FlowKey key = key_of(event);
    DeniedFlow flow = describe(event);
    flow.described = true;
    flow.last_packet = at - count.idle;
    const auto row = known.find(key);
    flow.stored = row != known.end();
    // As many as were told, but touched since: an entry that was made again.
    const bool anew = flow.stored && (count.packets < row->second->packets ||
                                      (count.packets == row->second->packets &&
                                       flow.last_packet > row->second->last_packet + kClockSlack));
    if (flow.stored && !anew) {
      flow.recorded_packets = row->second->packets;
      flow.recorded_bytes = row->second->bytes;
    }
    // Counters are the judges: what a rule's books have no room for was told by somebody.
    std::uint64_t& left = room[flow.record.rule];
    const std::uint64_t news = std::min(count.packets - flow.recorded_packets, left);
    left -= news;
    if (flow.recorded_packets + news < count.packets) {
      flow.recorded_packets = count.packets - news;
      flow.recorded_bytes = count.bytes - std::min(count.bytes, count.bytes / count.packets * news);
    }
    if (flow.stored) known.erase(row);
    DeniedFlow& kept = denied_[key] = std::move(flow);
    changed(key, kept);
  }
  for (const auto& [key, row] : known) forgotten_.push_back(*row);
}

void FlowLogger::on_denied_counts(std::span<const DeniedCount> counts, WallTime at, Reading reading) {
  for (auto& [key, flow] : denied_) flow.seen = false;
  for (const DeniedCount& count : counts) {
    const VerdictEvent event = event_of(count, at);
    const auto [entry, is_new] = denied_.try_emplace(key_of(event));
    DeniedFlow& flow = entry->second;
    // Its message is on the way: it names the source port and flags, so give it until the next reading.
    if (is_new && reading == Reading::Regular) {
      flow.last = at;
      flow.last_packet = at - count.idle;
      flow.seen = true;
      continue;
    }
    if (is_new || !flow.described) {
      const WallTime since = is_new ? at : flow.last;
      flow = describe(event);
      flow.last = since;
      flow.described = true;
    }
    flow.seen = true;
    const WallTime last_packet = at - count.idle;
    // Fewer than before, or as many although the old entry must have expired in between: it is a new one. Half
    // a lifetime, because `at` may be late by as long as this thread had to wait for its turn.
    const bool expired = last_packet - flow.last_packet > denied_lifetime_ / 2;
    if (count.packets < flow.recorded_packets || (count.packets == flow.recorded_packets && expired))
      flow.recorded_packets = flow.recorded_bytes = 0;
    flow.last_packet = std::max(flow.last_packet, last_packet);
    if (count.packets == flow.recorded_packets) continue;
    if (flow.world != world_) describe_anew(flow, at);
    const std::uint64_t bytes = count.bytes >= flow.recorded_bytes ? count.bytes - flow.recorded_bytes : 0;
    emit(flow, count.packets - flow.recorded_packets, bytes, flow.last, at);
    changed(entry->first, flow);
  }
  forget_expired(at);
}

// The kernel forgot it: the next packet starts a new flow and is recorded at once. A dump alone does not
// say so: while the kernel's hash table grows, it may leave out what is there.
void FlowLogger::forget_expired(WallTime at) {
  std::erase_if(denied_, [&](const auto& entry) {
    const auto& [key, flow] = entry;
    if (flow.seen || at - flow.last_packet < denied_lifetime_) return false;
    if (flow.stored)
      forgotten_.push_back({key.rule, key.source, key.destination, key.protocol, key.port_or_icmp, 0, 0, {}});
    return true;
  });
}

PacketsOfRules FlowLogger::waiting_by_rule(std::span<const DeniedCount> counts) {
  const LoggerCounts counted = counts_;  // nothing is logged here
  PacketsOfRules waiting;
  for (const DeniedCount& count : counts) {
    const VerdictEvent event = event_of(count, WallTime{});
    const auto known = denied_.find(key_of(event));
    std::uint64_t recorded = known == denied_.end() ? 0 : known->second.recorded_packets;
    if (count.packets < recorded) recorded = 0;  // a new entry
    if (count.packets == recorded) continue;
    const bool described = known != denied_.end() && known->second.described;
    const DeniedFlow flow = described ? known->second : describe(event);
    waiting[count.rule == RuleId::None ? flow.record.rule : count.rule] += count.packets - recorded;
    // A local pair's packet was counted at its egress rule too, and gets a record for each.
    if (flow.egress_allow) waiting[flow.egress_allow->rule] += count.packets - recorded;
  }
  counts_ = counted;
  return waiting;
}

std::uint64_t FlowLogger::waiting(std::span<const DeniedCount> counts) {
  std::uint64_t sum = 0;
  for (const auto& [rule, packets] : waiting_by_rule(counts)) sum += packets;
  return sum;
}

FlowRecord FlowLogger::base_record(const VerdictEvent& event, const store::RuleRow& rule) {
  FlowRecord record;
  record.start = record.end = event.time;
  record.direction = rule.direction;
  record.reporter =
      rule.direction == Direction::Egress ? store::Reporter::Source : store::Reporter::Destination;
  record.reason = reason_of(rule);
  record.tier = rule.tier;
  record.policy = rule.policy;
  record.policy_kind = rule.policy_kind;
  record.policy_namespace = rule.policy_namespace;
  record.policy_name = rule.policy_name;
  record.rule_index = rule.rule_index;
  record.rule = event.rule;
  record.policy_revision = rule.policy.empty() ? 0 : rule.revision;
  record.proto = event.protocol;
  record.src = addresses_.peer(event.source, event.time);
  record.dst = addresses_.peer(event.destination, event.time);
  if (protocol::has_ports(event.protocol)) {
    if (event.source_port != 0) record.src_port = event.source_port;
    record.dst_port = event.destination_port;
  } else if (protocol::is_icmp(event.protocol)) {
    record.icmp_type = event.icmp_type;
    record.icmp_code = event.icmp_code;
  }
  record.tcp_flags = flag_text(event.tcp_flags);
  record.ct_state = "new";
  return record;
}

void FlowLogger::add_trace(FlowRecord& record, const policy::Program& program,
                           const policy::DirectionVerdict& verdict) {
  for (const policy::TraceStep& step : verdict.trace)
    if (!step.staged && step.tier != policy::kNone)
      record.trace.push_back({verdict.direction, program.tiers[step.tier].name,
                              display_of(program, step.policy), step.rule_index,
                              std::string(policy::name(step.result))});
}

void FlowLogger::explain(FlowRecord& record, const policy::Program& program,
                         const policy::Evaluation& evaluation, Direction direction) const {
  const policy::DirectionVerdict& verdict = *verdict_of(evaluation, direction);
  if (direction == Direction::Ingress && evaluation.egress) add_trace(record, program, *evaluation.egress);
  add_trace(record, program, verdict);
  for (const policy::TraceStep& step : verdict.trace)
    if (step.staged &&
        (step.result == policy::StepResult::Allowed || step.result == policy::StepResult::Denied))
      record.staged.push_back(
          {display_of(program, step.policy),
           step.result == policy::StepResult::Denied ? store::Verdict::Deny : store::Verdict::Allow,
           step.rule_index});
  for (const RuleId id : verdict.logged_by) {
    const store::RuleRow* rule = rules_.find(id);
    if (rule == nullptr) continue;
    const auto ref = program.by_id.find(id);
    std::string label;
    if (ref != program.by_id.end() && ref->second.kind == policy::RuleRef::Kind::Rule)
      label = program.rules[ref->second.index].log_label;
    record.logged_by.push_back({rule->policy, rule->rule_index.value_or(-1), id, std::move(label), 0});
  }
}

const policy::Program* FlowLogger::evaluate(const VerdictEvent& event, Direction direction,
                                            policy::Evaluation& into) const {
  const policy::Packet packet = packet_of(event);
  for (const auto& program : programs_) {
    into = policy::evaluate(*program, packet);
    const policy::DirectionVerdict* verdict = verdict_of(into, direction);
    if (verdict != nullptr && verdict->rule == event.rule) return program.get();
  }
  return nullptr;
}

}  // namespace tierlog::logger
