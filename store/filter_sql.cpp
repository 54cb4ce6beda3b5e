#include "store/filter_sql.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <utility>

#include "policy/model.h"
#include "store/patterns.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

constexpr const char* kPredicateType = "tierlog-predicate";

void match(sqlite3_context* context, int count, sqlite3_value** values) {
  const auto* predicate = static_cast<const Predicate*>(sqlite3_value_pointer(values[0], kPredicateType));
  if (predicate == nullptr)
    return sqlite3_result_error(context, "tl_match: its first argument is bound, not typed", -1);
  std::vector<std::string_view> texts;
  for (int i = 1; i < count; ++i) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(values[i]));
    texts.emplace_back(text == nullptr ? "" : text,
                       text == nullptr ? 0u : static_cast<std::size_t>(sqlite3_value_bytes(values[i])));
  }
  sqlite3_result_int(context, (*predicate)(texts) ? 1 : 0);
}

void reason(sqlite3_context* context, int, sqlite3_value** values) {
  const int code = sqlite3_value_int(values[0]);
  const auto text = name(static_cast<Reason>(code));
  sqlite3_result_text(context, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
}

Predicate over_text(TextPredicate predicate) {
  return [predicate = std::move(predicate)](const std::vector<std::string_view>& texts) {
    return predicate(texts[0]);
  };
}

Predicate over_peer(PeerPredicate predicate) {
  return [predicate = std::move(predicate)](const std::vector<std::string_view>& texts) {
    return predicate({texts[0], texts[1], texts[2], texts[3]});
  };
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// One of a few words -> its number in the file.
Result<std::int64_t> one_of(std::string_view what, const std::string& value,
                            const std::vector<std::string_view>& words) {
  const std::string wanted = lower(value);
  for (std::size_t i = 0; i < words.size(); ++i)
    if (wanted == words[i]) return static_cast<std::int64_t>(i);
  std::string expected;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) expected += i + 1 == words.size() ? " or " : ", ";
    expected += words[i];
  }
  return fail(bad_value(what, value, expected));
}

std::vector<std::string_view> reason_names() {
  std::vector<std::string_view> names;
  for (int reason = 0; reason <= static_cast<int>(Reason::Other); ++reason)
    names.push_back(name(static_cast<Reason>(reason)));
  return names;
}

// "NP" and "networkpolicy" as well as "NetworkPolicy".
std::optional<std::string> policy_kind_of(const std::string& value) {
  for (int i = 0; i <= static_cast<int>(policy::PolicyKind::ClusterNetworkPolicy); ++i) {
    const auto kind = static_cast<policy::PolicyKind>(i);
    if (lower(value) == lower(policy::name(kind)) || lower(value) == lower(policy::short_name(kind)))
      return std::string(policy::name(kind));
  }
  return std::nullopt;
}

// The condition of one value of one field.
using ValueSql = Result<std::string> (*)(WhereClause&, const std::string&);

std::string in_rules(const std::string& condition) {
  return "f.rule IN (SELECT id FROM rule_revision WHERE " + condition + ")";
}

enum class Side { From, To, Either };

std::string in_peers(Side side, const std::string& condition) {
  const std::string peers = " IN (SELECT id FROM peer WHERE " + condition + ")";
  if (side == Side::From) return "f.src" + peers;
  if (side == Side::To) return "f.dst" + peers;
  return "(f.src" + peers + " OR f.dst" + peers + ")";
}

Result<std::string> by_policy(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_policy_pattern(value));
  const std::string p = where.add(over_text(std::move(predicate)));
  return in_rules("tl_match(" + p + ", policy) OR rule_id IN (SELECT rule_id FROM rule_also WHERE tl_match(" +
                  p + ", policy))");
}

Result<std::string> by_tier(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_text_pattern("tier", value));
  return in_rules("tl_match(" + where.add(over_text(std::move(predicate))) + ", tier)");
}

Result<std::string> by_policy_kind(WhereClause& where, const std::string& value) {
  const auto known = policy_kind_of(value);
  if (!known && value.find_first_of("*?/") == std::string::npos)
    return fail(bad_value("kind", value, "NetworkPolicy, GlobalNetworkPolicy or another kind of policy, or a pattern"));
  TL_ASSIGN(auto predicate, parse_text_pattern("kind", known.value_or(value)));
  return in_rules("tl_match(" + where.add(over_text(std::move(predicate))) + ", policy_kind)");
}

Result<std::string> by_action(WhereClause&, const std::string& value) {
  TL_ASSIGN(const auto action, one_of("action", value, {"allow", "deny"}));
  return "f.action = " + std::to_string(action);  // a literal: only so the index of denied rows serves
}

Result<std::string> by_rule(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const RuleFilter rule, parse_rule(value));
  if (rule.id) return in_rules("rule_id = " + where.add(static_cast<std::int64_t>(number(*rule.id))));
  std::string sql = in_rules("rule_index = " + where.add(std::int64_t{*rule.index}));
  if (rule.direction) sql += " AND f.direction = " + std::to_string(static_cast<int>(*rule.direction));
  return sql;
}

Result<std::string> by_revision(WhereClause& where, const std::string& value) {
  std::uint32_t revision = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), revision);
  if (error != std::errc() || end != value.data() + value.size())
    return fail(bad_value("revision", value, "a policy's revision, a number"));
  return in_rules("policy_revision = " + where.add(std::int64_t{revision}));
}

template <Side side>
Result<std::string> by_namespace(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_text_pattern("namespace", value));
  // A network set's namespace says who may name it, not where its addresses live.
  static const std::string kNoSet = "kind <> " + std::to_string(static_cast<int>(PeerKind::NetworkSet));
  return in_peers(side,
                  kNoSet + " AND tl_match(" + where.add(over_text(std::move(predicate))) + ", namespace)");
}

template <Side side>
Result<std::string> by_workload(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_text_pattern("workload", value));
  return in_peers(side, "tl_match(" + where.add(over_text(std::move(predicate))) + ", workload)");
}

template <Side side>
Result<std::string> by_label(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_label(value));
  return in_peers(side, "tl_match(" + where.add(over_text(std::move(predicate))) + ", labels)");
}

std::string peer_matches(WhereClause& where, PeerPredicate predicate) {
  return "tl_match(" + where.add(over_peer(std::move(predicate))) + ", ip, namespace, name, workload)";
}

template <Side side>
Result<std::string> by_peer(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_peer(side == Side::From ? "from" : "to", value));
  return in_peers(side, peer_matches(where, std::move(predicate)));
}

Result<std::string> by_pod(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_peer("pod", value));
  return in_peers(Side::Either, "kind = 0 AND " + peer_matches(where, std::move(predicate)));
}

Result<std::string> by_ip(WhereClause& where, const std::string& value) {
  TL_ASSIGN(auto predicate, parse_address("ip", value));
  return in_peers(Side::Either, peer_matches(where, std::move(predicate)));
}

Result<std::string> by_service(WhereClause& where, const std::string& value) {
  if (Cidr::parse(value)) {
    TL_ASSIGN(auto address, parse_address("service", value));
    const auto is_there = [address](std::string_view ip) { return address({ip, "", "", ""}); };
    return "(f.dst_nat_ip IS NOT NULL AND tl_match(" + where.add(over_text(is_there)) + ", f.dst_nat_ip))";
  }
  TL_ASSIGN(auto predicate, parse_text_pattern("service", value));
  const bool with_namespace = value.find('/') != std::string::npos;
  return "(f.dst_service IS NOT NULL AND tl_match(" + where.add(over_text(std::move(predicate))) + ", " +
         (with_namespace ? "f.dst_service" : "substr(f.dst_service, instr(f.dst_service, '/') + 1)") + "))";
}

Result<std::string> by_port(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const PortRange range, parse_port_range(value));
  const std::string between =
      " BETWEEN " + where.add(std::int64_t{range.first}) + " AND " + where.add(std::int64_t{range.last});
  // People ask with the port that they dialled; which of the two a record has where depends on the data plane.
  return "(coalesce(f.dst_port" + between + ", 0) OR coalesce(f.dst_nat_port" + between + ", 0))";
}

Result<std::string> by_protocol(WhereClause& where, const std::string& value) {
  const auto proto = protocol::parse(value);
  if (!proto) return fail(bad_value("protocol", value, "tcp, udp, icmp, icmpv6, sctp, udplite or 1 to 255"));
  return "f.proto = " + where.add(std::int64_t{*proto});
}

Result<std::string> by_direction(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const auto direction, one_of("direction", value, {"ingress", "egress"}));
  return "f.direction = " + where.add(direction);
}

Result<std::string> by_reporter(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const auto reporter, one_of("reporter", value, {"src", "dst"}));
  return "f.reporter = " + where.add(reporter);
}

Result<std::string> by_reason(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const auto reason, one_of("reason", value, reason_names()));
  return "f.reason = " + where.add(reason);
}

Result<std::string> flag(std::string_view what, const std::string& value, const std::string& condition) {
  TL_ASSIGN(const auto wanted, one_of(what, value, {"false", "true"}));
  return wanted == 1 ? "(" + condition + ")" : "NOT (" + condition + ")";
}

Result<std::string> by_logged(WhereClause&, const std::string& value) {
  return flag("logged", value, "f.logged_by <> 1");  // 1 = the empty list
}

Result<std::string> by_unanswered(WhereClause&, const std::string& value) {
  // The end of a connection says so; an interval in which nothing came back does not.
  return flag("unanswered", value,
              "coalesce(f.end_reason, 0) = " + std::to_string(static_cast<int>(EndReason::Unanswered)));
}

Result<std::string> by_staged_action(WhereClause& where, const std::string& value) {
  TL_ASSIGN(const auto action, one_of("staged-action", value, {"allow", "deny"}));
  const std::string wanted = where.add(std::string(name(static_cast<Verdict>(action))));
  return "f.staged IN (SELECT text.id FROM text, json_each(text.value) AS entry WHERE entry.value ->> "
         "'action' = " +
         wanted + ")";  // only entries of `staged` have that key
}

const std::map<Field, ValueSql>& value_conditions() {
  static const std::map<Field, ValueSql> conditions{
      {Field::Policy, by_policy},
      {Field::Tier, by_tier},
      {Field::Action, by_action},
      {Field::Rule, by_rule},
      {Field::Revision, by_revision},
      {Field::Namespace, by_namespace<Side::Either>},
      {Field::FromNamespace, by_namespace<Side::From>},
      {Field::ToNamespace, by_namespace<Side::To>},
      {Field::Pod, by_pod},
      {Field::From, by_peer<Side::From>},
      {Field::To, by_peer<Side::To>},
      {Field::Label, by_label<Side::Either>},
      {Field::FromLabel, by_label<Side::From>},
      {Field::ToLabel, by_label<Side::To>},
      {Field::Workload, by_workload<Side::Either>},
      {Field::FromWorkload, by_workload<Side::From>},
      {Field::ToWorkload, by_workload<Side::To>},
      {Field::Service, by_service},
      {Field::Ip, by_ip},
      {Field::Port, by_port},
      {Field::Protocol, by_protocol},
      {Field::Direction, by_direction},
      {Field::Reporter, by_reporter},
      {Field::Logged, by_logged},
      {Field::Unanswered, by_unanswered},
      {Field::StagedAction, by_staged_action},
      {Field::Reason, by_reason},
      {Field::PolicyKind, by_policy_kind},
  };
  return conditions;
}

// All records of a file have one origin: the condition is a constant.
Result<std::string> by_origin(std::string_view what, const std::string& value, const std::string& ours) {
  TL_ASSIGN(auto predicate, parse_text_pattern(what, value));
  return predicate(ours) ? "1" : "0";
}

Result<std::string> condition_of(WhereClause& where, Field field, const std::string& value,
                                 const Origin& origin) {
  if (field == Field::Node) return by_origin("node", value, origin.node);
  if (field == Field::Cluster) return by_origin("cluster", value, origin.cluster);
  const auto found = value_conditions().find(field);
  if (found == value_conditions().end())
    return fail(ErrorCode::InvalidArgument, "a filter that is not known");
  return found->second(where, value);
}

bool is_flag(Field field) {
  return field == Field::Logged || field == Field::Unanswered;
}

// The values of one option, ORed.
Result<std::string> any_value(WhereClause& where, const FieldFilter& filter, const Origin& origin) {
  std::vector<std::string> values = split_values(filter.values);
  if (values.empty() && is_flag(filter.field)) values = {"true"};
  if (values.empty()) return fail(ErrorCode::InvalidArgument, "a filter without a value");
  std::string sql;
  for (const std::string& value : values) {
    TL_ASSIGN(const std::string condition, condition_of(where, filter.field, value, origin));
    sql += (sql.empty() ? "(" : " OR (") + condition + ")";
  }
  return sql;
}

}  // namespace

Result<void> register_functions(sqlite::Database& database) {
  if (sqlite3_create_function_v2(database.handle(), "tl_match", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                 nullptr, match, nullptr, nullptr, nullptr) != SQLITE_OK)
    return fail(database.error());
  if (sqlite3_create_function_v2(database.handle(), "tl_reason", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                 nullptr, reason, nullptr, nullptr, nullptr) != SQLITE_OK)
    return fail(database.error());
  return {};
}

std::optional<Verdict> only_action(const FlowQuery& query) {
  std::optional<Verdict> found;
  for (const FieldFilter& filter : query.filters) {
    if (filter.field != Field::Action || filter.negate) continue;
    for (const std::string& value : split_values(filter.values)) {
      const Verdict action = lower(value) == name(Verdict::Deny) ? Verdict::Deny : Verdict::Allow;
      if (found && *found != action) return std::nullopt;  // either
      found = action;
    }
  }
  return found;
}

Result<WhereClause> WhereClause::of(const FlowQuery& query, const Origin& origin) {
  WhereClause where;
  std::map<Field, std::string> wanted;  // options of one field are ORed
  std::string sql;
  const auto require = [&sql](const std::string& condition) {
    sql += (sql.empty() ? "" : " AND ") + condition;
  };
  for (const FieldFilter& filter : query.filters) {
    TL_ASSIGN(const std::string values, any_value(where, filter, origin));
    if (filter.negate) {
      require("NOT (" + values + ")");
    } else {
      std::string& others = wanted[filter.field];
      others += (others.empty() ? "" : " OR ") + values;
    }
  }
  for (const auto& [field, condition] : wanted) require("(" + condition + ")");
  if (query.since) require("f.end_ns >= " + where.add(to_ns(*query.since)));
  if (query.until) require("f.end_ns <= " + where.add(to_ns(*query.until)));
  if (query.after_sequence > 0) require("f.seq > " + where.add(query.after_sequence));
  if (query.behind) {
    // The first of the two is what the index is searched by.
    const std::string end = where.add(query.behind->end_ns);
    require("f.end_ns <= " + end);
    require("(f.end_ns < " + end + " OR f.seq < " + where.add(query.behind->sequence) + ")");
  }
  where.set_sql(sql.empty() ? "1" : sql);
  return where;
}

std::string WhereClause::add_parameter(Parameter parameter) {
  parameters_.push_back(std::move(parameter));
  return "?" + std::to_string(parameters_.size());
}

std::string WhereClause::add(std::int64_t value) {
  return add_parameter(value);
}
std::string WhereClause::add(std::string value) {
  return add_parameter(std::move(value));
}
std::string WhereClause::add(Predicate predicate) {
  return add_parameter(std::make_shared<Predicate>(std::move(predicate)));
}

void WhereClause::bind(sqlite::Statement& statement) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const int index = static_cast<int>(i) + 1;
    const Parameter& parameter = parameters_[i];
    if (const auto* number_value = std::get_if<std::int64_t>(&parameter)) {
      statement.bind_at(index, *number_value);
    } else if (const auto* text = std::get_if<std::string>(&parameter)) {
      statement.bind_at(index, std::string_view(*text));
    } else {
      statement.bind_object(index, std::get<std::shared_ptr<Predicate>>(parameter).get(), kPredicateType);
    }
  }
}

}  // namespace tierlog::store
