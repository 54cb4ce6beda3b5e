#include "api/api.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/readers.h"
#include "base/diagnostics.h"
#include "base/text.h"
#include "query/board.h"
#include "query/items.h"
#include "query/listing.h"
#include "query/names.h"

namespace tierlog::api {
namespace {

using Json = nlohmann::ordered_json;
using http::Parameters;
using http::Request;
using http::Response;

// An answer is made in memory: further rows are on the next page.
constexpr std::size_t kMostRows = 10'000;

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
      return 400;
    case ErrorCode::NotFound:
      return 404;
    case ErrorCode::Unavailable:
      return 503;
    default:
      return 500;
  }
}

// Items as they come: texts of JSON objects, put together without parsing them again.
struct Answer {
  std::vector<std::string> items;
  std::vector<std::string> notes;
  std::string next;  // page
};

Response to_response(const Answer& answer) {
  Response response;
  response.body = "{\"items\":[";
  for (std::size_t i = 0; i < answer.items.size(); ++i)
    response.body += (i == 0 ? "" : ",") + answer.items[i];
  std::string notes = dump(Json(answer.notes));
  notes.pop_back();
  response.body += "],\"notes\":" + notes;
  if (!answer.next.empty()) response.body += ",\"next\":\"" + answer.next + "\"";
  response.body += "}\n";
  return response;
}

Error expected(const std::string& what) {
  return {ErrorCode::InvalidArgument, what, 0};
}

// Takes the parameter out of the list.
std::optional<std::string> take(Parameters& parameters, std::string_view name) {
  std::optional<std::string> value;
  std::erase_if(parameters, [&](const auto& one) {
    if (one.first != name) return false;
    value = one.second;
    return true;
  });
  return value;
}

// What is not a parameter of this resource.
Result<void> no_more(const Parameters& parameters, const std::vector<std::string>& known) {
  if (parameters.empty()) return {};
  const std::string& name = parameters.front().first;
  const std::string close = nearest(name, known);
  std::string list;
  for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
  return fail(expected("unknown parameter \"" + name + "\"; " +
                       (!close.empty() ? "did you mean " + close + "?"
                        : list.empty() ? "expected none"
                                       : "expected one of " + list)));
}

// "123-456" in its numbers.
std::optional<std::vector<std::int64_t>> read_page(const std::string& text) {
  std::vector<std::int64_t> numbers;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  while (at <= end) {
    std::int64_t number = 0;
    const auto [after, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < 0 || (after != end && *after != '-')) return std::nullopt;
    numbers.push_back(number);
    at = after + 1;
  }
  return numbers;
}

Error no_page(const std::string& page) {
  return expected("page \"" + page + "\" is not understood; expected what the page before has as \"next\"");
}

Result<void> check_rows(const store::FlowQuery& query) {
  if (query.limit >= 1 && query.limit <= kMostRows) return {};
  return fail(expected("limit " + std::to_string(query.limit) + " is out of range; expected 1 to " +
                       std::to_string(kMostRows) + " (further rows are on the next page)"));
}

struct Flows {
  store::FlowReader& reader;
  query::Listing listing;
  std::string page;  // as given
};

Result<Answer> sums(Flows& flows) {
  if (!flows.page.empty()) return fail(expected("sums have one page; use top=N to choose how many"));
  const store::GroupQuery& groups = *flows.listing.groups;
  TL_ASSIGN(const store::GroupResult result, flows.reader.groups(groups));
  Answer answer;
  const std::size_t shown = std::min(result.groups.size(), kMostRows);
  for (std::size_t i = 0; i < shown; ++i)
    answer.items.push_back(query::item_of(groups, result, result.groups[i]));
  answer.notes = query::notes_of(groups, result);
  if (result.groups.size() > shown) answer.notes.push_back("only " + with_commas(shown) + " are listed; use top=N");
  return answer;
}

Result<Answer> records(Flows& flows) {
  store::FlowQuery& query = flows.listing.asked.query;
  TL_TRY(check_rows(query));
  if (!flows.page.empty()) {
    const auto numbers = read_page(flows.page);
    if (!numbers || numbers->size() != (query.oldest_first ? 1u : 2u)) return fail(no_page(flows.page));
    if (query.oldest_first)
      query.after_sequence = numbers->front();
    else
      query.behind = store::FlowQuery::Place{(*numbers)[0], (*numbers)[1]};
  }
  TL_ASSIGN(auto found, flows.reader.flows(query::one_more(query)));
  Answer answer;
  if (found.size() > query.limit) {
    found.resize(query.limit);
    const store::StoredRecord& last = found.back();
    answer.notes.push_back(query::there_is_more(query));
    answer.next = query.oldest_first
                      ? std::to_string(last.sequence)
                      : std::to_string(to_ns(last.record.end)) + "-" + std::to_string(last.sequence);
  }
  for (const store::StoredRecord& stored : found)
    answer.items.push_back(query::item_of(stored.record, flows.listing.origin));
  return answer;
}

// Sums of flows have no place in an index: pages count them.
Result<Answer> denied_flows(Flows& flows) {
  store::FlowQuery query = flows.listing.asked.query;
  TL_TRY(check_rows(query));
  std::size_t skip = 0;
  if (!flows.page.empty()) {
    const auto numbers = read_page(flows.page);
    if (!numbers || numbers->size() != 1) return fail(no_page(flows.page));
    skip = static_cast<std::size_t>(numbers->front());
  }
  const std::size_t limit = query.limit;
  query.limit = skip + limit + 1;
  TL_ASSIGN(auto found, flows.reader.grouped_flows(query));
  Answer answer;
  if (found.size() > skip + limit) {
    found.resize(skip + limit);
    answer.notes.push_back(query::there_is_more(flows.listing.asked.query));
    answer.next = std::to_string(skip + limit);
  }
  for (std::size_t i = skip; i < found.size(); ++i)
    answer.items.push_back(query::item_of(found[i], flows.listing.origin));
  return answer;
}

Result<Answer> flows(store::FlowReader& reader, const std::string& policy, bool denied, Parameters parameters,
                     WallTime now) {
  query::Asked asked;
  const auto page = take(parameters, "page");
  asked.policy = policy;
  asked.denied = denied;
  if (denied)
    for (const auto& [name, value] : parameters)
      if (name == "action" || name == "not-action")
        return fail(
            expected("unknown filter \"" + name + "\": denied lists what was denied; ask flows for others"));
  TL_ASSIGN(query::Parsed parsed, query::parse_query(parameters, now));
  asked.query = std::move(parsed.query);
  asked.range = std::move(parsed.range);
  asked.restricts = !asked.query.filters.empty() || asked.range.since || asked.range.until;
  TL_ASSIGN(query::Listing listing, query::begin(reader, std::move(asked)));
  Flows all{reader, std::move(listing), page.value_or("")};
  auto answer = all.listing.groups ? sums(all) : denied ? denied_flows(all) : records(all);
  if (answer && answer->items.empty() && all.page.empty()) {
    TL_ASSIGN(const std::string why, query::reason_for_nothing(reader, all.listing));
    answer->notes.push_back(why);
  }
  return answer;
}

Result<Answer> one_record(store::FlowReader& reader, const std::string& id) {
  TL_ASSIGN(const auto record, reader.record(id));
  if (!record)
    return fail(ErrorCode::NotFound, "no record has the id " + id + ", or it is not kept any more");
  TL_ASSIGN(const auto origin, reader.origin());
  return Answer{{query::item_of(*record, origin)}, {}, {}};
}

Result<Answer> policies(store::FlowReader& reader, Parameters parameters, WallTime now) {
  const auto unused = take(parameters, "unused");
  TL_TRY(no_more(parameters, {"unused"}));
  TL_ASSIGN(const query::Board board, query::board(reader, unused, now));
  Answer answer;
  for (const query::BoardRow& row : board.rows) answer.items.push_back(query::item_of(row));
  answer.notes = board.notes;
  if (board.rows.empty() && !board.empty.empty()) answer.notes.push_back(board.empty);
  return answer;
}

Result<Answer> rules(store::FlowReader& reader, const std::string& below, Parameters parameters) {
  std::string policy = below;
  if (const auto given = take(parameters, "policy")) policy = *given;
  const auto all = take(parameters, "all");
  TL_TRY(no_more(parameters, {"policy", "all"}));
  if (all && *all != "" && *all != "true" && *all != "false")
    return fail(expected("all=\"" + *all + "\" is not understood; expected true or false"));
  if (!policy.empty()) TL_TRY(query::require_policies(reader, policy));
  TL_ASSIGN(const auto found, reader.rules(policy, all && *all != "false"));
  Answer answer;
  for (const store::RuleActivity& rule : found) answer.items.push_back(query::item_of(rule));
  if (found.empty()) answer.notes.push_back(query::no_rules(policy));
  return answer;
}

Result<Answer> endpoints(store::FlowReader& reader, const Parameters& parameters) {
  TL_TRY(no_more(parameters, {}));
  TL_ASSIGN(const auto found, reader.endpoints());
  Answer answer;
  for (const store::EndpointRow& endpoint : found) answer.items.push_back(query::item_of(endpoint));
  return answer;
}

Result<Answer> losses(store::FlowReader& reader, const Parameters& parameters) {
  TL_TRY(no_more(parameters, {}));
  TL_ASSIGN(const auto found, reader.losses());
  Answer answer;
  for (const store::LossCount& loss : found) {
    std::string item = dump(Json{{"cause", loss.cause},
                                 {"rule_id", loss.rule == RuleId::None ? Json() : Json(number(loss.rule))},
                                 {"packets", loss.packets}});
    item.pop_back();
    answer.items.push_back(std::move(item));
  }
  return answer;
}

Response index() {
  return {200, "application/json",
          dump(Json{{"version", "v1"},
                    {"program", std::string("tierlogd ") + TIERLOG_VERSION},
                    {"resources",
                     {"/api/v1/flows", "/api/v1/flows/ID", "/api/v1/denied", "/api/v1/denied/POLICY",
                      "/api/v1/policies", "/api/v1/rules", "/api/v1/rules/POLICY", "/api/v1/endpoints",
                      "/api/v1/losses", "/api/v1/status"}}})};
}

}  // namespace

struct Api::Impl {
  Readers readers;
  Status status;
  const Clock& clock;

  Result<Answer> ask(const std::string& resource, const std::string& below, const Parameters& parameters);
};

Result<Answer> Api::Impl::ask(const std::string& resource, const std::string& below,
                              const Parameters& parameters) {
  const WallTime now = clock.wall();
  TL_ASSIGN(store::FlowReader reader, readers.take());
  Result<Answer> answer = fail(ErrorCode::NotFound, "");
  if (resource == "flows")
    answer = below.empty() ? flows(reader, "", false, parameters, now) : one_record(reader, below);
  else if (resource == "denied")
    answer = flows(reader, below, true, parameters, now);
  else if (resource == "policies" && below.empty())
    answer = policies(reader, parameters, now);
  else if (resource == "rules")
    answer = rules(reader, below, parameters);
  else if (resource == "endpoints" && below.empty())
    answer = endpoints(reader, parameters);
  else if (resource == "losses" && below.empty())
    answer = losses(reader, parameters);
  else
    answer =
        fail(ErrorCode::NotFound, "there is no /api/v1/" + resource + (below.empty() ? "" : "/" + below) +
                                      "; /api/v1 lists what there is");
  readers.give_back(std::move(reader));
  return answer;
}

Api::Api(std::string flows_path, Status status, const Clock& clock)
    : impl_(new Impl{Readers(std::move(flows_path)), std::move(status), clock}) {}
Api::~Api() = default;

Response Api::answer(const Request& request) const {
  std::string rest = request.path.substr(std::min(request.path.size(), std::string(kPrefix).size()));
  while (rest.ends_with('/')) rest.pop_back();
  if (rest.empty()) return index();
  rest.erase(0, 1);
  const auto slash = rest.find('/');
  const std::string resource = rest.substr(0, slash);
  const std::string below = slash == std::string::npos ? "" : rest.substr(slash + 1);
  if (resource == "status" && below.empty()) {
    const auto status = impl_->status();
    return status ? Response{200, "application/json", *status}
                  : http::refusal(503, "the daemon has not published its status yet; try again");
  }
  const auto answer = impl_->ask(resource, below, request.parameters);
  if (!answer) return http::refusal(status_of(answer.error().code), answer.error().message);
  return to_response(*answer);
}

}  // namespace tierlog::api
