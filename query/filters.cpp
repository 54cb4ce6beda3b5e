#include "query/filters.h"

#include <algorithm>
#include <charconv>

#include "base/diagnostics.h"

namespace tierlog::query {
namespace {

using Field = store::FieldFilter::Field;

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
    {Field::To, "to", "WHO", "destination: ns/pod, address, CIDR or name pattern; no Service, see --service"},
    {Field::From, "from-pod", "POD", "the same as --from"},
    {Field::To, "to-pod", "POD", "the same as --to"},
    {Field::From, "from-ip", "ADDRESS", "the same as --from"},
    {Field::To, "to-ip", "ADDRESS", "the same as --to"},
    {Field::Label, "label", "K=V", "label of either side at the time of the verdict"},
    {Field::FromLabel, "from-label", "K=V", "label of the source"},
    {Field::ToLabel, "to-label", "K=V", "label of the destination"},
    {Field::Workload, "workload", "NAME", "workload of either side"},
    {Field::FromWorkload, "from-workload", "NAME", "workload of the source"},
    {Field::ToWorkload, "to-workload", "NAME", "workload of the destination"},
    {Field::Service, "service", "NAME", "Service that was asked for: name, ns/name or its address"},
    {Field::Service, "to-service", "NAME", "the same"},
    {Field::Ip, "ip", "ADDRESS", "address or CIDR of either side"},
    {Field::Port, "port", "PORT", "destination port or range (8000-8999), also a Service's"},
    {Field::Port, "to-port", "PORT", "the same"},
    {Field::Protocol, "protocol", "PROTO", "tcp, udp, sctp, icmp, icmpv6 or a number"},
    {Field::Direction, "direction", "DIR", "ingress or egress"},
    {Field::Reporter, "reporter", "SIDE", "src or dst: the side whose policy gave the verdict"},
    {Field::Logged, "logged", nullptr, "a Log rule matched"},
    {Field::Unanswered, "unanswered", nullptr, "connections that ended without any answer"},
    {Field::Node, "node", "NAME", "node that gave the verdict"},
    {Field::Cluster, "cluster", "NAME", "cluster that gave the verdict"},
};

Error wrong(std::string_view option, std::string_view value, std::string_view expected) {
  return {ErrorCode::InvalidArgument,
          std::string("--")
              .append(option)
              .append(" \"")
              .append(value)
              .append("\" is not understood; expected ")
              .append(expected),
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
Result<void> read_bounds(const Range& range, store::FlowQuery& query) {
  if (range.limit.has_value() + range.first.has_value() + range.last.has_value() > 1)
    return fail(ErrorCode::InvalidArgument,
                "--limit, --first and --last exclude each other; give one of them");
  if (range.limit) {
    TL_ASSIGN(query.limit, read_count("limit", *range.limit, 0));
  }
  if (range.first) {
    TL_ASSIGN(query.limit, read_count("first", *range.first, 1));
    query.oldest_first = true;
  }
  if (range.last) {
    TL_ASSIGN(query.limit, read_count("last", *range.last, 1));
  }
  return {};
}

bool asks_for_groups(const Range& range) {
  return range.group_by || range.top || range.bins || range.rate;
}

constexpr const char* kOrders = "newest, oldest, records, connections, packets, bytes or name";

std::optional<store::GroupQuery::Order> group_order(std::string_view text) {
  using Order = store::GroupQuery::Order;
  static constexpr std::pair<std::string_view, Order> kNames[] = {
      {"newest", Order::Newest},   {"oldest", Order::Oldest},
      {"records", Order::Records}, {"connections", Order::Connections},
      {"packets", Order::Packets}, {"bytes", Order::Bytes},
      {"name", Order::Name}};
  for (const auto& [name, order] : kNames)
    if (name == text) return order;
  return std::nullopt;
}

std::vector<std::string> filter_names() {
  std::vector<std::string> names;
  for (const FilterSpec& spec : kFilters) names.emplace_back(spec.name);
  for (const char* name : {"since", "until", "limit", "first", "last", "order", "group-by", "top", "bins", "rate"})
    names.emplace_back(name);
  return names;
}

std::optional<std::string>* range_part(Range& range, std::string_view name) {
  if (name == "since") return &range.since;
  if (name == "until") return &range.until;
  if (name == "limit") return &range.limit;
  if (name == "first") return &range.first;
  if (name == "last") return &range.last;
  if (name == "order") return &range.order;
  if (name == "group-by") return &range.group_by;
  if (name == "top") return &range.top;
  if (name == "bins") return &range.bins;
  return nullptr;
}

}  // namespace

std::span<const FilterSpec> filters() {
  return kFilters;
}

const FilterSpec* find_filter(std::string_view name) {
  for (const FilterSpec& spec : kFilters)
    if (spec.name == name) return &spec;
  return nullptr;
}

const char* without_data(std::string_view name) {
  if (name == "process") return "--process has no data yet: records do not say which process it was";
  if (name == "domain") return "--domain has no data yet: records do not hold domain names";
  return nullptr;
}

Result<void> apply_range(const Range& range, WallTime now, store::FlowQuery& query) {
  TL_ASSIGN(query.since, read_time("since", range.since, now));
  TL_ASSIGN(query.until, read_time("until", range.until, now));
  if (query.since && query.until && *query.since > *query.until)
    return fail(ErrorCode::InvalidArgument, "--since is later than --until: nothing can be between them");
  TL_TRY(read_bounds(range, query));
  if (!range.order) return {};
  if (asks_for_groups(range)) return {};
  if (*range.order != "newest" && *range.order != "oldest") {
    if (group_order(*range.order))
      return fail(ErrorCode::InvalidArgument, "--order " + *range.order +
                                                  " orders sums; add --group-by FIELDS (records are listed "
                                                  "by time: newest or oldest)");
    return fail(wrong("order", *range.order, kOrders));
  }
  if (range.first || range.last)
    return fail(ErrorCode::InvalidArgument, "--first and --last have their order; leave --order out");
  query.oldest_first = *range.order == "oldest";
  return {};
}

Result<std::optional<store::GroupQuery>> read_groups(const Range& range, const store::FlowQuery& query) {
  if (!asks_for_groups(range)) {
    return std::optional<store::GroupQuery>{};
  }
  if (range.first || range.last)
    return fail(ErrorCode::InvalidArgument, "--first and --last choose records; sums take --top N");
  store::GroupQuery groups;
  groups.flows = query;
  groups.rate = range.rate;
  if (range.group_by) {
    TL_ASSIGN(groups.fields, store::parse_group_fields(*range.group_by));
  } else if (range.top) {
    TL_ASSIGN(groups.fields, store::parse_group_fields("from,to,port,action"));
  }
  groups.top = range.limit ? query.limit : 0;
  if (range.top) {
    TL_ASSIGN(groups.top, read_count("top", *range.top, 1));
  }
  if (range.bins) {
    const auto width = parse_duration(*range.bins);
    if (!width || *width < std::chrono::seconds(1))
      return fail(wrong("bins", *range.bins, "a width from 1s on, such as 1m or 1h"));
    groups.bin = *width;
  }
  if (range.order) {
    const auto order = group_order(*range.order);
    if (!order) return fail(wrong("order", *range.order, kOrders));
    groups.order = *order;
  }
  return std::optional<store::GroupQuery>{std::move(groups)};
}

Result<Parsed> parse_query(const std::vector<std::pair<std::string, std::string>>& parameters, WallTime now) {
  Parsed parsed;
  store::FlowQuery& query = parsed.query;
  for (const auto& [typed, value] : parameters) {
    std::string given = typed;
    std::replace(given.begin(), given.end(), '_', '-');
    const bool negate = given.starts_with("not-");
    const std::string name = negate ? given.substr(4) : given;
    if (const char* why = without_data(name)) return fail(ErrorCode::InvalidArgument, why);
    if (const FilterSpec* spec = find_filter(name)) {
      query.filters.push_back({spec->field, {value}, negate});
      // A flag may stand alone: "logged" is "logged=true".
      if (spec->value == nullptr && value.empty()) query.filters.back().values.clear();
    } else if (name == "rate" && !negate) {
      if (value != "" && value != "true" && value != "false") return fail(wrong("rate", value, "true or false"));
      parsed.range.rate = value != "false";
    } else if (auto* part = negate ? nullptr : range_part(parsed.range, name)) {
      *part = value;
    } else {
      const std::string close = nearest(name, filter_names());
      return fail(ErrorCode::InvalidArgument, "unknown filter \"" + typed + "\"" +
                                                  (close.empty() ? "" : "; did you mean " + close + "?"));
    }
  }
  TL_TRY(apply_range(parsed.range, now, query));
  return parsed;
}

}  // namespace tierlog::query
