#include "cli/policy_history.h"

#include <nlohmann/json.hpp>

#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "query/names.h"
#include "query/revisions.h"

namespace tierlog::cli {
namespace {

using Json = nlohmann::ordered_json;
using query::Revision;

std::string item_of(const Revision& revision) {
  Json rules = Json::array();
  for (const query::RuleLine& line : revision.rules)
    rules.push_back({{"change", line.change == '+'   ? "added"
                                : line.change == '-' ? "removed"
                                                     : "same"},
                     {"text", line.text}});
  const Json item{{"policy", revision.policy},
                  {"policy_kind", revision.policy_kind},
                  {"policy_revision", revision.number == 0 ? Json() : Json(revision.number)},
                  {"again", revision.again},
                  {"since", format_rfc3339(revision.since)},
                  {"until", revision.until ? Json(format_rfc3339(*revision.until)) : Json()},
                  {"removed", revision.removed},
                  {"allowed", revision.allowed_connections},
                  {"denied", revision.denied_packets},
                  {"rules", std::move(rules)}};
  return item.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Revision& revision, bool colour) {
  std::string head = revision.policy + " (" + revision.policy_kind + ")";
  if (revision.removed) return printable(head + " removed " + format_for_people(revision.since)) + " UTC\n\n";
  if (revision.number > 0) head += " revision " + std::to_string(revision.number) + (revision.again ? " again" : "");
  head += ", in force from " + format_for_people(revision.since) +
          (revision.until ? " to " + format_for_people(*revision.until) : " on") + " UTC";
  std::string text = styled(printable(head), Style::Heading, colour) + "\n";
  for (const query::RuleLine& line : revision.rules)
    text += styled("  " + std::string(1, line.change) + " " + printable(line.text),
                   line.change == '+'   ? Style::Allow
                   : line.change == '-' ? Style::Deny
                                        : Style::Plain,
                   colour) +
            "\n";
  return text + "  decided: " + with_commas(revision.allowed_connections) + " allowed (connections), " +
         with_commas(revision.denied_packets) + " denied (packets), of what is still recorded\n\n";
}

}  // namespace

Result<int> show_history(store::FlowReader& reader, const std::string& pattern, Format format) {
  TL_ASSIGN(const auto displays, query::require_policies(reader, pattern));
  TL_ASSIGN(const auto revisions, query::revisions_of(reader, displays));
  Listing listing({});
  for (const Revision& revision : revisions) listing.items.push_back(item_of(revision));
  listing.empty =
      "the history of " + displays.front() + " is not kept: it begins when a tierlogd of this version starts";
  if (format == Format::Table || format == Format::Wide)
    for (const Revision& revision : revisions) out(text_of(revision, stdout_view().colour));
  print(listing, format);
  return kDone;
}

}  // namespace tierlog::cli
