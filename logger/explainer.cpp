#include "logger/explainer.h"

#include <algorithm>
#include <utility>

namespace tierlog::logger {
namespace {

using dataplane::EventKind;
using dataplane::VerdictEvent;
using store::FlowRecord;

// Late events of that many replacements back are still explained; their names are known for ever.
constexpr std::size_t kProgramsKept = 4;
// Answers; all are forgotten when there are more (a scan over many addresses must not eat memory).
constexpr std::size_t kMostKept = 65'536;
constexpr std::size_t kMostDisagreements = 8;

std::string flag_text(std::uint8_t flags) {
  constexpr std::pair<std::uint8_t, char> kFlags[] = {{2, 's'}, {16, 'a'}, {1, 'f'},
                                                      {4, 'r'}, {8, 'p'},  {32, 'u'}};
  std::string text;
  for (const auto& [bit, letter] : kFlags)
    if ((flags & bit) != 0) text += letter;
  return text;
}

bool is_it(const std::optional<policy::DirectionVerdict>& of, const policy::DirectionVerdict* verdict) {
  return of && &*of == verdict;
}

// Frames that are dropped whoever's they are.
bool is_refused_frame(Reason reason) {
  return reason == Reason::Spoofed || reason == Reason::Vlan || reason == Reason::Ethertype || reason == Reason::Cut ||
         reason == Reason::Other;
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

void add_trace(FlowRecord& record, const policy::Program& program, const policy::DirectionVerdict& verdict) {
  for (const policy::TraceStep& step : verdict.trace)
    if (!step.staged && step.tier != policy::kNone)
      record.trace.push_back({verdict.direction, program.tiers[step.tier].name,
                              display_of(program, step.policy), step.rule_index,
                              std::string(policy::name(step.result))});
}

bool looks_at_source_ports(const policy::PeerMatch& source) {
  return source.restricts_ports() || !source.not_ports.empty() || source.not_port_set.has_value();
}

bool looks_at_source_ports(const policy::Program& program) {
  return std::any_of(program.rules.begin(), program.rules.end(), [](const policy::ProgramRule& rule) {
    return std::any_of(rule.any_of.begin(), rule.any_of.end(),
                       [](const policy::Match& match) { return looks_at_source_ports(match.source); });
  });
}

void sort_unique(std::vector<std::uint32_t>& numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
}

// Destination ports that a rule or a failsafe may judge otherwise than the port before them.
std::vector<std::uint32_t> port_bounds_of(const policy::Program& program) {
  std::vector<std::uint32_t> bounds;
  const auto add = [&](std::uint32_t first, std::uint32_t last) { bounds.insert(bounds.end(), {first, last + 1}); };
  for (const policy::ProgramRule& rule : program.rules)
    for (const policy::Match& match : rule.any_of)
      for (const auto* ranges : {&match.destination.ports, &match.destination.not_ports})
        for (const PortRange& range : *ranges) add(range.first, range.last);
  for (const policy::PortSet& set : program.port_sets)
    for (const policy::EndpointPort& member : set.members) add(member.port, member.port);
  for (const auto* failsafes : {&program.failsafes.inbound, &program.failsafes.outbound})
    for (const policy::Failsafe& failsafe : *failsafes) add(failsafe.port, failsafe.port);
  sort_unique(bounds);
  return bounds;
}

Description shared(FlowRecord record) {
  return std::make_shared<const FlowRecord>(std::move(record));
}

std::string rule_text(const store::RuleRow* rule, RuleId id) {
  if (rule == nullptr) return "an unknown rule " + to_hex(id);
  const std::string where = rule->policy.empty() ? rule->reason : rule->policy + " " + rule->text;
  return where + " (" + to_hex(id) + ")";
}

}  // namespace

policy::Packet Explainer::packet_of(const VerdictEvent& event) const {
  policy::Packet packet{event.source,           event.destination, event.protocol, event.source_port,
                        event.destination_port, event.icmp_type,   event.icmp_code};
  if (!interface_name_) return packet;
  if (event.in_interface != 0) packet.in_interface = interface_name_(event.in_interface);
  if (event.out_interface != 0) packet.out_interface = interface_name_(event.out_interface);
  return packet;
}

bool Explainer::audits(const IpAddr& endpoint) const {
  return audits_ || (!programs_.empty() && programs_.front().program->audits(endpoint));
}

std::size_t Explainer::KeyHash::operator()(const Key& key) const {
  constexpr std::size_t kSpread = 0x9e3779b97f4a7c15ULL;
  std::size_t h = std::hash<IpAddr>()(key.source);
  h = h * kSpread + std::hash<IpAddr>()(key.destination);
  h = h * kSpread + (std::size_t{number(key.rule)} << 16 | std::size_t{key.source_port});
  h = h * kSpread + key.ports_or_icmp;
  h = h * kSpread + (std::size_t{key.protocol} << 16 | std::size_t{key.tcp_flags} << 8 | key.kind);
  return h ^ h >> 29;
}

Explainer::Key Explainer::key_of(const VerdictEvent& event) const {
  Key key{event.rule, event.source,       event.destination,  0, 0, event.protocol, event.tcp_flags,
          0,          event.in_interface, event.out_interface};
  if (protocol::has_ports(event.protocol)) {
    key.ports_or_icmp = static_cast<std::uint32_t>(
        std::upper_bound(port_bounds_.begin(), port_bounds_.end(), event.destination_port) - port_bounds_.begin());
    if (source_ports_matter_) key.source_port = event.source_port;
  } else if (protocol::is_icmp(event.protocol)) {
    key.ports_or_icmp = static_cast<std::uint16_t>(event.icmp_type << 8 | event.icmp_code);
  }
  // A sample of a full set is a denial like any other.
  key.kind = static_cast<std::uint8_t>(event.kind == EventKind::Overflow ? EventKind::Denied : event.kind);
  return key;
}

void Explainer::set_audit(bool audits) {
  audits_ = audits;
  kept_.clear();
  unasked_.clear();
}

void Explainer::set_program(std::shared_ptr<const policy::Program> program,
                            const std::vector<policy::NetworkSet>& policy_sets, WallTime since) {
  ++world_;
  since_ = since;
  rules_.learn(*program);
  addresses_.update(*program->cluster, policy_sets, since);
  auto bounds = port_bounds_of(*program);
  programs_.push_front({std::move(program), since, std::move(bounds)});
  if (programs_.size() > kProgramsKept) programs_.pop_back();
  source_ports_matter_ = std::any_of(programs_.begin(), programs_.end(),
                                     [](const auto& kept) { return looks_at_source_ports(*kept.program); });
  port_bounds_.clear();
  for (const InForce& kept : programs_)
    port_bounds_.insert(port_bounds_.end(), kept.port_bounds.begin(), kept.port_bounds.end());
  sort_unique(port_bounds_);
  kept_.clear();
  unasked_.clear();
}

const Explained& Explainer::explain(const VerdictEvent& event) {
  // Names are those of the time of the verdict: what is older than the latest change is asked anew.
  if (event.time < since_) {
    passing_ = make(event);
    return passing_;
  }
  const Key key = key_of(event);
  const auto found = kept_.find(key);
  if (found != kept_.end()) return found->second;
  if (auto before = unasked_.extract(key)) return kept_.insert(std::move(before)).position->second;
  if (kept_.size() >= kMostKept) kept_.clear();
  return kept_.emplace(key, make(event)).first->second;
}

void Explainer::let_go_unasked(WallTime now) {
  if (now - counted_ < kKeptFor && now >= counted_) return;
  counted_ = now;
  unasked_ = std::exchange(kept_, {});
}

Explained Explainer::make(const VerdictEvent& event) {
  if (event.kind == EventKind::Allowed) return allowed(event);
  return event.rule == RuleId::None ? stateless(event) : denied(event);
}

Explained Explainer::allowed(const VerdictEvent& event) {
  const store::RuleRow* rule = rules_.find(event.rule);
  Explained explained;
  explained.known = rule != nullptr;
  if (rule == nullptr) return explained;
  FlowRecord record = base_record(event, *rule);
  record.action = store::Verdict::Allow;
  policy::Evaluation evaluation;
  const policy::Program* program = evaluate(event, evaluation);
  if (program != nullptr)
    add_verdict(record, *program, evaluation, *evaluation.by(event.rule));
  else  // which connections are older than the rules, only the kernel knows
    explained.agrees =
        is_before_all(event) ||
        (find_reserved(event.rule) != nullptr && find_reserved(event.rule)->reason == Reason::Preexisting);
  explained.record = shared(std::move(record));
  return explained;
}

Explained Explainer::denied(const VerdictEvent& event) {
  static const store::RuleRow kUnknown{};
  const store::RuleRow* rule = rules_.find(event.rule);
  Explained explained;
  explained.known = rule != nullptr;
  FlowRecord record = base_record(event, rule == nullptr ? kUnknown : *rule);
  // Only a host endpoint's rule allows packet by packet and says so itself.
  const bool allows = rule != nullptr && rule->action == "Allow";
  record.action = allows ? store::Verdict::Allow : store::Verdict::Deny;
  policy::Evaluation evaluation;
  const policy::Program* program = rule == nullptr ? nullptr : evaluate(event, evaluation);
  if (program == nullptr) {
    // Reserved reasons are given by the kernel's own tests, which the evaluator does not know.
    explained.agrees = rule == nullptr || find_reserved(event.rule) != nullptr || is_before_all(event);
    explained.record = shared(std::move(record));
    return explained;
  }
  const policy::DirectionVerdict* verdict = evaluation.by(event.rule);
  add_verdict(record, *program, evaluation, *verdict);
  explained.record = shared(std::move(record));
  // Audited, the packet goes on and its egress is told like any other.
  if (allows || audits(event.destination)) return explained;
  // The source's pod had let it go, and counted it.
  const bool behind = is_it(evaluation.ingress, verdict) || is_it(evaluation.host_egress, verdict);
  if (!behind || !evaluation.egress || evaluation.egress->action != policy::Action::Allow) return explained;
  const store::RuleRow* egress = rules_.find(evaluation.egress->rule);
  if (egress == nullptr) return explained;
  VerdictEvent view = event;
  view.rule = evaluation.egress->rule;
  FlowRecord source = base_record(view, *egress);
  source.action = store::Verdict::Allow;
  add_verdict(source, *program, evaluation, *evaluation.egress);
  explained.egress_allow = shared(std::move(source));
  return explained;
}

// The kernel tells no rule of a packet without a connection: those that decide now are its rules.
Explained Explainer::stateless(const VerdictEvent& event) {
  Explained explained;
  policy::Evaluation evaluation;
  if (!programs_.empty()) evaluation = policy::evaluate(*programs_.front().program, packet_of(event));
  // A denial that is only recorded is told as one, apart from this.
  const auto only_recorded = [&](const std::optional<policy::DirectionVerdict>& verdict, const IpAddr& subject) {
    return verdict && verdict->action == policy::Action::Deny && audits(subject);
  };
  if (only_recorded(evaluation.egress, event.source)) evaluation.egress.reset();
  if (only_recorded(evaluation.ingress, event.destination)) evaluation.ingress.reset();
  const bool judged = evaluation.egress || evaluation.ingress;
  const policy::DirectionVerdict* decides = evaluation.deciding();
  explained.agrees = judged && (decides == nullptr || decides->action != policy::Action::Deny);
  if (!judged) return explained;
  const auto side = [&](const policy::DirectionVerdict& verdict) {
    static const store::RuleRow kUnknown{};
    VerdictEvent view = event;
    view.rule = verdict.rule;
    const store::RuleRow* rule = rules_.find(verdict.rule);
    FlowRecord record = base_record(view, rule == nullptr ? kUnknown : *rule);
    record.action = store::Verdict::Allow;
    add_verdict(record, *programs_.front().program, evaluation, verdict);
    return shared(std::move(record));
  };
  if (evaluation.ingress) explained.record = side(*evaluation.ingress);
  if (evaluation.egress)
    (evaluation.ingress ? explained.egress_allow : explained.record) = side(*evaluation.egress);
  return explained;
}

FlowRecord Explainer::base_record(const VerdictEvent& event, const store::RuleRow& rule) const {
  FlowRecord record;
  record.direction = rule.direction;
  record.reporter =
      rule.direction == Direction::Egress ? store::Reporter::Source : store::Reporter::Destination;
  record.reason = reason_of(rule);
  const IpAddr& subject = rule.direction == Direction::Egress ? event.source : event.destination;
  if (audits_ || (!is_refused_frame(record.reason) && audits(subject))) record.reason = Reason::Audit;
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
  if (protocol::is_icmp(event.protocol)) {
    record.icmp_type = event.icmp_type;
    record.icmp_code = event.icmp_code;
  }
  record.tcp_flags = flag_text(event.tcp_flags);
  return record;
}

// The record's trace leads up to its verdict: of an ingress verdict the source's egress comes first.
void Explainer::add_verdict(FlowRecord& record, const policy::Program& program,
                            const policy::Evaluation& evaluation, const policy::DirectionVerdict& verdict) const {
  const bool first = is_it(evaluation.host_ingress, &verdict);
  if (evaluation.host_ingress && !first) add_trace(record, program, *evaluation.host_ingress);
  const bool behind = verdict.direction == Direction::Ingress || is_it(evaluation.host_egress, &verdict);
  if (behind && evaluation.egress && !first) add_trace(record, program, *evaluation.egress);
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

// The Program that explains this verdict and its evaluation; nullptr when none agrees with the kernel.
const policy::Program* Explainer::evaluate(const VerdictEvent& event, policy::Evaluation& into) const {
  const policy::Packet packet = packet_of(event);
  const auto explains = [&](const InForce& kept) {
    into = policy::evaluate(*kept.program, packet);
    return into.by(event.rule) != nullptr;
  };
  // That of the event's time and those before it, of which packets may be late; then those that came soon after.
  const auto then = std::find_if(programs_.begin(), programs_.end(),
                                 [&](const InForce& kept) { return kept.since <= event.time; });
  if (const auto found = std::find_if(then, programs_.end(), explains); found != programs_.end())
    return found->program.get();
  const auto later = std::find_if(std::make_reverse_iterator(then), programs_.rend(), explains);
  return later == programs_.rend() ? nullptr : later->program.get();
}

// From before all Programs that are known: nobody here can tell.
bool Explainer::is_before_all(const VerdictEvent& event) const {
  return programs_.empty() || event.time < programs_.back().since;
}

void Explainer::note_disagreement(const VerdictEvent& event) {
  if (programs_.empty() || disagreements_.size() >= kMostDisagreements) return;
  const store::RuleRow* rule = rules_.find(event.rule);
  const policy::Evaluation evaluation = policy::evaluate(*programs_.front().program, packet_of(event));
  const policy::DirectionVerdict* verdict =
      rule == nullptr ? evaluation.deciding() : verdict_of(evaluation, rule->direction);
  disagreements_.push_back({event, programs_.front().program, rule_text(rule, event.rule),
                            verdict == nullptr ? "no verdict in this direction"
                                               : rule_text(rules_.find(verdict->rule), verdict->rule)});
}

}  // namespace tierlog::logger
