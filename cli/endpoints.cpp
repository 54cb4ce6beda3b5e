// `tierlog endpoints`: the pods the daemon knows and which policies apply to each.
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "cli/target.h"

namespace tierlog::cli {
namespace {

struct EndpointOptions {
  TargetOptions target;
  std::string output = "table";
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return or_dash(text);
}

// Brief: the first address and how many more.
Cell addresses_cell(const std::vector<std::string>& addresses) {
  Cell cell(joined(addresses));
  if (addresses.size() > 1) cell.brief = addresses.front() + " +" + std::to_string(addresses.size() - 1);
  return cell;
}

// Brief: without the tiers; the order tells as much.
Cell policies_cell(const std::vector<std::string>& policies) {
  std::vector<std::string> short_names;
  for (const std::string& policy : policies) short_names.push_back(under_tier(policy));
  return {joined(policies), Style::Plain, joined(short_names)};
}

std::string labels_text(const policy::Labels& labels) {
  std::string text;
  for (const auto& [key, value] : labels) text += (text.empty() ? "" : ",") + key + "=" + value;
  return or_dash(text);
}

std::vector<Column> columns() {
  const auto words = [](const char* title, std::size_t least, bool wide_only = false) {
    return Column{title, Align::Left, least, Cut::End, 0, wide_only, 0, 0};
  };
  return {words("ENDPOINT", 16),  words("ADDRESSES", 14),        words("INTERFACE", 0, true),
          words("STATE", 0),      words("INGRESS POLICIES", 16), words("EGRESS POLICIES", 16),
          words("NODE", 0, true), words("WORKLOAD", 0, true),    words("LABELS", 0, true)};
}

Result<int> list(const EndpointOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_ASSIGN(const auto endpoints, reader.endpoints());
  Listing listing(columns());
  std::size_t enforced = 0;
  for (const store::EndpointRow& endpoint : endpoints) {
    enforced += endpoint.enforced;
    listing.table.add(
        {endpoint.endpoint_namespace + "/" + endpoint.name, addresses_cell(endpoint.addresses),
         or_dash(endpoint.interface),
         Cell(endpoint.enforced ? "enforced" : "known", endpoint.enforced ? Style::Allow : Style::Plain),
         policies_cell(endpoint.ingress_policies), policies_cell(endpoint.egress_policies),
         or_dash(endpoint.node), or_dash(endpoint.workload), labels_text(endpoint.labels)});
    listing.items.push_back(item_of(endpoint));
  }
  listing.summary =
      counted(endpoints.size(), "endpoint") + ", " + with_commas(enforced) + " enforced on this node";
  listing.empty =
      "no endpoint is known: pods appear when the CNI chain with tierlog-cni creates them, or from the "
      "daemon's topology file";
  print(listing, format);
  return kDone;
}

}  // namespace

Command endpoints_command() {
  const auto options = std::make_shared<EndpointOptions>();
  Command command;
  command.name = "endpoints";
  command.summary = "pods that are known and which policies apply to each";
  command.description =
      "Lists the endpoints, with the policies that are asked for traffic to (ingress) and from (egress) "
      "each, in "
      "order. STATE enforced: its rules are in this node's kernel; known: it lives elsewhere and only serves "
      "selectors and names.";
  command.options = {output_option(options->output, kAllFormats)};
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog endpoints", "All endpoints"},
      {"tierlog endpoints -o wide", "With node, workload and labels"},
      {"tierlog endpoints -o json | jq -r '.items[] | select(.ingress_policies == []) | .name'",
       "Pods that anybody may connect to"}};
  command.exit_codes = kListingExitCodes;
  command.run = [options] {
    const auto code = list(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
