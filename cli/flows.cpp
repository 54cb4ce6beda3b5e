// `tierlog flows` and `tierlog denied`: records and their sums, once or as they come.
#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/filters.h"
#include "cli/flow_groups.h"
#include "cli/flow_rows.h"
#include "cli/follow.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "cli/target.h"
#include "query/listing.h"
#include "store/record_json.h"

namespace tierlog::cli {
namespace {

struct FlowOptions {
  TargetOptions target;
  FilterOptions filters;
  std::string policy;  // the POLICY of `denied`
  std::string output = "table";
  bool follow = false;
  bool denied = false;
};

// What the options came to: everything a listing needs.
struct Request {
  store::FlowReader reader;
  query::Listing listing;
  Format format;
};

Result<Request> prepare(const FlowOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  query::Asked asked;
  TL_ASSIGN(asked.query, to_query(options.filters, SystemClock().wall()));
  asked.range = options.filters.range;
  asked.policy = options.policy;
  asked.denied = options.denied;
  asked.restricts = restricts(options.filters);
  if (options.follow && format == Format::Json)
    return fail(ErrorCode::InvalidArgument, "--follow has no end, a JSON object has; use -o jsonl");
  if (options.follow && (asked.range.until || asked.range.first || asked.range.order))
    return fail(ErrorCode::InvalidArgument,
                "--follow goes on in the order of time: it cannot be used with --until, --first or --order");
  TL_ASSIGN(const auto groups, query::read_groups(asked.range, asked.query));
  if (options.follow && groups)
    return fail(ErrorCode::InvalidArgument,
                "--follow shows records as they come; sums (--group-by, --top, --bins, --rate) are of what is "
                "there: leave one out");
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_ASSIGN(query::Listing listing, query::begin(reader, std::move(asked)));
  return Request{std::move(reader), std::move(listing), format};
}

// Packets that rules of the asked policies counted but no record names, in all.
Result<std::uint64_t> unattributed(Request& request, const std::string& policy) {
  TL_ASSIGN(const auto rules, request.reader.rules(policy, true));
  std::uint64_t sum = 0;
  for (const store::RuleActivity& rule : rules) sum += rule.unattributed;
  return sum;
}

// What was found beyond the limit shows that there is more.
template <typename Items>
void cut_to_limit(Items& items, const store::FlowQuery& query, std::vector<std::string>& notes) {
  if (query.limit == 0 || items.size() <= query.limit) return;
  items.resize(query.limit);
  notes.push_back(query::there_is_more(query));
}

Result<int> list_flows(const FlowOptions& options, Request& request) {
  TL_ASSIGN(auto stored, request.reader.flows(query::one_more(request.listing.asked.query)));
  Listing listing(flow_columns());
  listing.keys = store::record_keys();
  cut_to_limit(stored, request.listing.asked.query, listing.notes);
  std::vector<store::FlowRecord> records;
  for (store::StoredRecord& item : stored) records.push_back(std::move(item.record));
  const SharedNames shared = shared_names(records);
  std::size_t denied = 0;
  for (const store::FlowRecord& record : records) {
    denied += record.action == store::Verdict::Deny;
    listing.table.add(flow_cells(record, shared));
    listing.items.push_back(item_of(record, request.listing.origin));
  }
  if (records.empty()) {
    TL_ASSIGN(listing.empty, query::reason_for_nothing(request.reader, request.listing));
  }
  listing.summary = counted(records.size(), "record") + range_text(options.filters, request.listing.asked.query) + " · " +
                    with_commas(records.size() - denied) + " allow, " + with_commas(denied) + " deny";
  print(listing, request.format);
  return kDone;
}

Result<std::string> denied_summary(const FlowOptions& options, Request& request,
                                   const std::vector<store::FlowGroup>& groups) {
  std::uint64_t packets = 0, bytes = 0;
  for (const store::FlowGroup& group : groups) {
    packets += group.packets;
    bytes += group.bytes;
  }
  TL_ASSIGN(const std::uint64_t missing, unattributed(request, options.policy));
  std::string by;
  if (request.listing.policies.size() == 1) by = " by " + request.listing.policies.front();
  if (request.listing.policies.size() > 1) by = " by " + counted(request.listing.policies.size(), "policy");
  return counted(groups.size(), "flow") + " denied" + by + range_text(options.filters, request.listing.asked.query) +
         " · " + counted(packets, "packet") + ", " + bytes_text(bytes) + " · " + counted(missing, "packet") +
         " unattributed";
}

Result<int> list_denied(const FlowOptions& options, Request& request) {
  TL_ASSIGN(auto groups, request.reader.grouped_flows(query::one_more(request.listing.asked.query)));
  Listing listing(denied_columns());
  listing.keys = store::record_keys();
  cut_to_limit(groups, request.listing.asked.query, listing.notes);
  const SharedNames shared = shared_names(groups);
  for (const store::FlowGroup& group : groups) {
    listing.table.add(denied_cells(group, shared));
    listing.items.push_back(item_of(group, request.listing.origin));
  }
  if (groups.empty()) {
    TL_ASSIGN(listing.empty, query::reason_for_nothing(request.reader, request.listing));
  }
  TL_ASSIGN(listing.summary, denied_summary(options, request, groups));
  print(listing, request.format);
  return kDone;
}

Result<int> list_groups(const FlowOptions& options, Request& request) {
  TL_ASSIGN(const store::GroupResult result, request.reader.groups(*request.listing.groups));
  Listing listing = group_listing(*request.listing.groups, result);
  if (result.groups.empty()) {
    TL_ASSIGN(listing.empty, query::reason_for_nothing(request.reader, request.listing));
  }
  const std::string range = range_text(options.filters, request.listing.asked.query);
  if (!range.empty()) listing.summary += " ·" + range;
  print(listing, request.format);
  return kDone;
}

// Prints records one by one, in the form that was asked for.
class Printer {
 public:
  Printer(const FlowOptions& options, const Request& request)
      : denied_(options.denied),
        as_lines_(request.format == Format::Table || request.format == Format::Wide),
        origin_(request.listing.origin),
        items_(request.format, store::record_keys()),
        table_(options.denied ? denied_columns() : flow_columns(),
               stdout_view(request.format == Format::Wide)) {
    if (as_lines_) out(table_.header());
  }

  void operator()(const store::FlowRecord& record) {
    if (!as_lines_) return items_.print(item_of(record, origin_));
    out(table_.row(denied_ ? denied_cells(group_of(record), {}) : flow_cells(record, {})));
  }

 private:
  bool denied_, as_lines_;
  store::Origin origin_;
  ItemStream items_;
  LiveTable table_;
};

Result<int> follow_flows(const FlowOptions& options, Request& request) {
  FollowStart start;
  if (options.filters.range.since) start.from = FollowStart::From::Since;
  if (options.filters.range.last || options.filters.range.limit) start = {FollowStart::From::Newest, request.listing.asked.query.limit};
  Printer printer(options, request);
  TL_TRY(follow(request.reader, request.listing.asked.query, start,
                [&](const store::FlowRecord& record) { printer(record); }));
  return kDone;
}

int run(const FlowOptions& options) {
  auto request = prepare(options);
  if (!request) return complain(request.error());
  auto code = options.follow    ? follow_flows(options, *request)
              : request->listing.groups ? list_groups(options, *request)
              : options.denied  ? list_denied(options, *request)
                               : list_flows(options, *request);
  return code ? *code : complain(code.error());
}

void add_common(Command& command, const std::shared_ptr<FlowOptions>& options) {
  command.options.push_back(output_option(options->output, kAllFormats));
  command.options.push_back(
      {"--follow", "", "goes on with new records as they come; Ctrl-C ends it", &options->follow});
  add_range_options(command.options, options->filters);
  add_sum_options(command.options, options->filters);
  add_filter_options(command.options, options->filters, options->denied ? "action" : "");
  add_database_options(command.options, options->target);
  command.exit_codes = kListingExitCodes;
  command.run = [options] { return run(*options); };
}

}  // namespace

Command flows_command() {
  const auto options = std::make_shared<FlowOptions>();
  Command command;
  command.name = "flows";
  command.summary = "flow records, newest first: who talked to whom, which rule decided";
  command.description =
      "Lists the records of the flow database: one for each connection, side and interval, with the policy "
      "and "
      "rule that decided. An allowed connection between two pods of the node has two records (egress by the "
      "source's policy, ingress by the destination's); PACKETS counts the "
      "packets of both directions: of an allowed connection those of the record's interval, of a denied flow each.\n\n"
      "Different filters must all hold; of several values of one filter one must.";
  command.examples = {{"tierlog flows --since 15m", "What happened in the last quarter of an hour"},
                      {"tierlog flows --to tenant-01/db --port 5432 --not --from-namespace tenant-01",
                       "Who from elsewhere asked the database"},
                      {"tierlog flows --namespace tenant-02 --action allow --follow -o jsonl",
                       "Allowed connections of a tenant, as they come, for another program"},
                      {"tierlog flows --group-by from-workload,to-workload,port --top 10 --bins 1m",
                       "The ten largest talkers, with what they moved by the minute"}};
  add_common(command, options);
  return command;
}

Command denied_command() {
  const auto options = std::make_shared<FlowOptions>();
  options->denied = true;
  Command command;
  command.name = "denied";
  command.summary = "who was denied, by which policy and rule";
  command.description =
      "Lists denied flows, newest first, each with the tier, policy and rule that denied it; with POLICY "
      "only "
      "what that policy denied (also at the end of a tier in which it was asked). Records of one flow are "
      "summed: "
      "PACKETS is exact, counted by the kernel. With --follow every record is a line of its own.\n\n"
      "In -o json each item has the keys of a record with the sums of its flow.";
  command.positionals = {{"POLICY", "name, ns/name, tier/ns/name, shell pattern or /RE2/", &options->policy}};
  command.examples = {{"tierlog denied --since 1h", "Everything denied in the last hour"},
                      {"tierlog denied tenant-01-restrict --since 1h", "What one policy denied"},
                      {"tierlog denied --from tenant-02/web --to tenant-01/db --follow",
                       "Watch one pair while trying again"},
                      {"tierlog denied --group-by policy,from-workload --top 10", "Which policies deny most, and whom"}};
  add_common(command, options);
  return command;
}

}  // namespace tierlog::cli
