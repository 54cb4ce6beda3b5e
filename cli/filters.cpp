#include "cli/filters.h"

#include <charconv>

namespace tierlog::cli {
namespace {

using Field = store::FieldFilter::Field;

struct FilterSpec {
  Field field;
  const char* name;   // without "--"
  const char* value;  // nullptr: a flag
  const char* help;
};

constexpr FilterSpec kFilters[] = {
    {Field::Policy, "policy", "POLICY", "name, ns/name, tier/ns/name, shell pattern or /RE2/"},
    {Field::PolicyKind, "kind", "KIND", "kind of the deciding policy: NetworkPolicy, GNP, KNP, …"},
    {Field::Tier, "tier", "TIER", "tier of the deciding policy"},
    {Field::Rule, "rule", "RULE", "index in the policy, id as 0x2a, or end-of-tier"},
    {Field::Revision, "revision", "N", "revision of the policy"},
    {Field::Action, "action", "ACTION", "allow or deny"},
    {Field::Reason, "reason", "REASON", "policy, end-of-tier, no-policy, profile, mid-stream, …"},
    {Field::StagedAction, "staged-action", "ACTION", "what a staged policy would have done: allow or deny"},
    {Field::Namespace, "namespace", "NS", "namespace of either side"},
    {Field::FromNamespace, "from-namespace", "NS", "namespace of the source"},
    {Field::ToNamespace, "to-namespace", "NS", "namespace of the destination"},
    {Field::Pod, "pod", "POD", "either side: ns/pod, pod, or a pattern"},
    {Field::From, "from", "WHO", "source: ns/pod, address, CIDR or name pattern"},
    {Field::To, "to", "WHO", "destination: ns/pod, address, CIDR or name pattern"},
    {Field::Label, "label", "K=V", "label of either side at the time of the verdict"},
    {Field::FromLabel, "from-label", "K=V", "label of the source"},
    {Field::ToLabel, "to-label", "K=V", "label of the destination"},
    {Field::Workload, "workload", "NAME", "workload of either side"},
    {Field::Service, "service", "NAME", "Service that was asked for"},
    {Field::Ip, "ip", "ADDRESS", "address or CIDR of either side"},
    {Field::Port, "port", "PORT", "destination port or range (8000-8999)"},
    {Field::Protocol, "protocol", "PROTO", "tcp, udp, sctp, icmp, icmpv6 or a number"},
    {Field::Direction, "direction", "DIR", "ingress or egress"},
    {Field::Reporter, "reporter", "SIDE", "src or dst: the side whose policy gave the verdict"},
    {Field::Logged, "logged", nullptr, "a Log rule matched"},
    {Field::Unanswered, "unanswered", nullptr,
     "nothing came back (replies to allowed connections are not counted: finds denied ones)"},
    {Field::Node, "node", "NAME", "node that gave the verdict"},
    {Field::Cluster, "cluster", "NAME", "cluster that gave the verdict"},
};

constexpr const char* kGroup = "Filters (several values: repeat or use commas; --not negates the next one)";

Error wrong(const std::string& option, const std::string& value, const std::string& expected) {
  return {ErrorCode::InvalidArgument, option + " \"" + value + "\" is not understood; expected " + expected,
          0};
}

Result<std::optional<WallTime>> read_time(const char* option, const std::optional<std::string>& text,
                                          WallTime now) {
  if (!text) return std::optional<WallTime>{};
  const auto when = parse_when(*text, now);
  if (!when) return fail(wrong(option, *text, "15m, 2h, 7d or a time such as 2026-11-21T20:14:00Z"));
  return std::optional<WallTime>{*when};
}

Result<std::size_t> read_count(const char* option, const std::string& text, std::size_t least) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least)
    return fail(wrong(option, text, least == 0 ? "a number, 0 for all" : "a number from 1"));
  return value;
}

// --limit, --first and --last all bound the number of rows; --first turns the order.
Result<void> read_bounds(const FilterOptions& filters, store::FlowQuery& query) {
  if (filters.limit.has_value() + filters.first.has_value() + filters.last.has_value() > 1)
    return fail(ErrorCode::InvalidArgument,
                "--limit, --first and --last exclude each other; give one of them");
  if (filters.limit) {
    TL_ASSIGN(query.limit, read_count("--limit", *filters.limit, 0));
  }
  if (filters.first) {
    TL_ASSIGN(query.limit, read_count("--first", *filters.first, 1));
    query.oldest_first = true;
  }
  if (filters.last) {
    TL_ASSIGN(query.limit, read_count("--last", *filters.last, 1));
  }
  return {};
}

std::string unit_phrase(Nanoseconds ago) {
  using namespace std::chrono_literals;
  if (ago == 1h) return "hour";
  if (ago == 24h) return "day";
  if (ago == 1min) return "minute";
  return format_duration(ago);
}

}  // namespace

void add_filter_options(std::vector<Option>& options, FilterOptions& filters, std::string_view without) {
  for (const FilterSpec& spec : kFilters) {
    if (spec.name == without) continue;
    for (const bool negate : {false, true}) {
      auto& given = filters.given.emplace_back();
      given.field = spec.field;
      given.negate = negate;
      Binding into = &given.values;
      if (spec.value == nullptr) into = &given.flag;
      options.push_back({std::string(negate ? "--not-" : "--") + spec.name,
                         spec.value == nullptr ? "" : spec.value, spec.help, into, kGroup, false, negate});
    }
  }
  options.push_back(
      {"--process", "NAME", "has no data yet: records hold no process", &filters.process, kGroup});
  options.push_back({"--domain", "NAME", "has no data yet: records hold no domain", &filters.domain, kGroup});
}

void add_range_options(std::vector<Option>& options, FilterOptions& filters) {
  const std::string group = "Which part";
  options.push_back(
      {"--since", "WHEN", "from then on: 15m, 2h, 7d ago, or an RFC 3339 time", &filters.since, group});
  options.push_back({"--until", "WHEN", "up to then, in the same forms", &filters.until, group});
  options.push_back({"--limit", "N", "at most N rows (default 100, 0 = all)", &filters.limit, group});
  options.push_back({"--first", "N", "the N oldest, oldest first", &filters.first, group});
  options.push_back({"--last", "N", "the N newest", &filters.last, group});
}

Result<store::FlowQuery> to_query(const FilterOptions& filters, WallTime now) {
  if (!filters.process.empty())
    return fail(ErrorCode::InvalidArgument,
                "--process has no data yet: records do not say which process it was");
  if (!filters.domain.empty())
    return fail(ErrorCode::InvalidArgument, "--domain has no data yet: records do not hold domain names");
  store::FlowQuery query;
  for (const FilterOptions::Given& given : filters.given) {
    if (given.flag) query.filters.push_back({given.field, {}, given.negate});
    for (const std::string& text : given.values) query.filters.push_back({given.field, {text}, given.negate});
  }
  TL_ASSIGN(query.since, read_time("--since", filters.since, now));
  TL_ASSIGN(query.until, read_time("--until", filters.until, now));
  if (query.since && query.until && *query.since > *query.until)
    return fail(ErrorCode::InvalidArgument, "--since is later than --until: nothing can be between them");
  TL_TRY(read_bounds(filters, query));
  return query;
}

std::string range_text(const FilterOptions& filters, const store::FlowQuery& query) {
  std::string text;
  if (query.since) {
    const auto ago = parse_duration(*filters.since);
    text = ago ? " in the last " + unit_phrase(*ago) : " since " + format_for_people(*query.since);
  }
  if (query.until) text += " until " + format_for_people(*query.until);
  return text;
}

bool restricts(const FilterOptions& filters) {
  for (const auto& given : filters.given)
    if (given.flag || !given.values.empty()) return true;
  return filters.since || filters.until;
}

}  // namespace tierlog::cli
