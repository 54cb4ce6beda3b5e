// `tierlog explain`: the verdict on one packet and everything that led to it.
//
//   -f … --topology …: load, compile and evaluate here; else the daemon's `explain` operation
#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/diagnostics.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/explain_record.h"
#include "cli/explain_text.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/policy_input.h"
#include "cli/target.h"
#include "endpoints/control.h"
#include "endpoints/service_backends.h"
#include "policy/compile.h"
#include "policy/explain_json.h"
#include "query/moment.h"

namespace tierlog::cli {
namespace {

constexpr const char* kForms = "table|wide|json";
constexpr std::uint8_t kEchoRequest = 8, kEchoRequestV6 = 128;

struct ExplainOptions {
  TargetOptions target;
  std::vector<std::string> files;
  std::string topology, from, to, record;
  std::optional<std::string> at;
  std::string protocol = "tcp", output = "table";
  std::optional<std::string> port, source_port, icmp_type, icmp_code;
};

// The question, understood: everything of a packet but the addresses.
struct Question {
  std::uint8_t proto = protocol::kTcp;
  std::uint16_t port = 0;
  std::optional<std::uint16_t> source_port;
  std::optional<std::uint8_t> icmp_type, icmp_code;
};

template <typename T>
Result<std::optional<T>> read_number(const char* option, const std::optional<std::string>& text) {
  if (!text) return std::optional<T>{};
  T value{};
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size())
    return fail(ErrorCode::InvalidArgument, std::string(option) + " \"" + *text +
                                                "\" is not understood; expected 0 to " +
                                                std::to_string(std::numeric_limits<T>::max()));
  return std::optional<T>{value};
}

Result<Question> read_question(const ExplainOptions& options) {
  for (const auto& [name, value] : {std::pair{"--from", &options.from}, std::pair{"--to", &options.to}})
    if (value->empty())
      return fail(ErrorCode::InvalidArgument, std::string(name) + " is missing: ns/pod, ns/service or an address");
  Question question;
  const auto proto = protocol::parse(options.protocol);
  if (!proto)
    return fail(ErrorCode::InvalidArgument,
                "--protocol \"" + options.protocol +
                    "\" is unknown; expected tcp, udp, sctp, icmp, icmpv6 or 1 to 255");
  question.proto = *proto;
  TL_ASSIGN(const auto port, read_number<std::uint16_t>("--port", options.port));
  TL_ASSIGN(question.source_port, read_number<std::uint16_t>("--source-port", options.source_port));
  TL_ASSIGN(question.icmp_type, read_number<std::uint8_t>("--icmp-type", options.icmp_type));
  TL_ASSIGN(question.icmp_code, read_number<std::uint8_t>("--icmp-code", options.icmp_code));
  const std::string named = protocol::name(*proto);
  if (protocol::has_ports(*proto) && !port)
    return fail(ErrorCode::InvalidArgument, "--port is missing: a " + named + " connection goes to a port");
  if (!protocol::has_ports(*proto) && (port || question.source_port))
    return fail(ErrorCode::InvalidArgument, named + " has no ports; leave --port and --source-port out");
  if (!protocol::is_icmp(*proto) && (question.icmp_type || question.icmp_code))
    return fail(ErrorCode::InvalidArgument, "--icmp-type and --icmp-code go with --protocol icmp or icmpv6");
  question.port = port.value_or(0);
  if (protocol::is_icmp(*proto)) {
    const std::uint8_t echo = *proto == protocol::kIcmpV6 ? kEchoRequestV6 : kEchoRequest;
    question.icmp_type = question.icmp_type.value_or(echo);
    question.icmp_code = question.icmp_code.value_or(0);
  }
  return question;
}

Error unknown_who(const policy::Cluster& cluster, const std::vector<endpoints::Service>& services, const std::string& who,
                  const std::string& topology) {
  std::vector<std::string> pods;
  for (const policy::Endpoint& endpoint : cluster.endpoints) pods.push_back(endpoint.display());
  for (const endpoints::Service& service : services) pods.push_back(service.display());
  if (who.find('/') == std::string::npos && who.find_first_of(".:") != std::string::npos)
    return {ErrorCode::InvalidArgument, "\"" + who + "\" is no address and no ns/pod or ns/service", 0};
  std::string close = nearest(who, pods);
  for (const std::string& pod : pods)
    if (close.empty() && pod.ends_with("/" + who)) close = pod;
  return {ErrorCode::NotFound,
          "no pod or Service \"" + who + "\" in " + topology + (close.empty() ? "" : "; did you mean " + close + "?") +
              " (a WHO is ns/pod, ns/service or an address)",
          0};
}

// Both addresses, of one family if there is a way.
Result<std::pair<IpAddr, IpAddr>> resolve_both(const policy::Cluster& cluster,
                                               const std::vector<endpoints::Service>& services,
                                               const ExplainOptions& options, const Question& question) {
  const Family first = question.proto == protocol::kIcmpV6 ? Family::V6 : Family::V4;
  const Family second = first == Family::V4 ? Family::V6 : Family::V4;
  for (const Family family : {first, second}) {
    const auto from = endpoints::resolve_who(cluster, services, options.from, family);
    const auto to = endpoints::resolve_who(cluster, services, options.to, family);
    if (!from) return fail(unknown_who(cluster, services, options.from, options.topology));
    if (!to) return fail(unknown_who(cluster, services, options.to, options.topology));
    if (from->family == to->family) return std::pair{*from, *to};
  }
  return fail(ErrorCode::InvalidArgument,
              options.from + " and " + options.to +
                  " have no addresses of one family: nothing can pass between them");
}

policy::Packet packet_of(const Question& question, const IpAddr& from, const IpAddr& to) {
  policy::Packet packet;
  packet.source = from;
  packet.destination = to;
  packet.protocol = question.proto;
  packet.destination_port = question.port;
  packet.source_port = question.source_port.value_or(0);
  packet.icmp_type = question.icmp_type.value_or(0);
  packet.icmp_code = question.icmp_code.value_or(0);
  return packet;
}

Result<policy::Explanation> explain_files(const ExplainOptions& options, const Question& question) {
  TL_ASSIGN(PolicyInput input, load_input(options.files, options.topology));
  const auto cluster = std::make_shared<const policy::Cluster>(std::move(input.cluster));
  TL_ASSIGN(const auto ends, resolve_both(*cluster, input.services, options, question));
  policy::MemoryRuleIds ids;
  TL_ASSIGN(const policy::Program program, policy::compile(input.policies, cluster, ids));
  return endpoints::explain(program, packet_of(question, ends.first, ends.second), input.services,
                            policy::NodesReach::OwnPods);
}

Result<policy::Explanation> ask_daemon(const ExplainOptions& options, const Question& question) {
  TL_ASSIGN(const Place socket, find_socket(options.target));
  nlohmann::json request = {{"op", "explain"},
                            {"from", options.from},
                            {"to", options.to},
                            {"protocol", protocol::name(question.proto)}};
  if (protocol::has_ports(question.proto)) request["port"] = question.port;
  if (question.source_port) request["source_port"] = *question.source_port;
  if (question.icmp_type) request["icmp_type"] = *question.icmp_type;
  if (question.icmp_code) request["icmp_code"] = *question.icmp_code;
  auto answer = endpoints::call(socket.path, request);
  if (!answer && answer.error().code == ErrorCode::Unavailable)
    return fail(ErrorCode::Unavailable,
                answer.error().message +
                    "; start tierlogd or a lab, or explain files with -f POLICIES --topology FILE");
  if (!answer) return fail(answer.error());
  if (!answer->contains("explanation"))
    return fail(ErrorCode::Refused, "the daemon at " + socket.path + " answered without an explanation");
  return policy::explanation_from_json((*answer)["explanation"]);
}

bool is_named(const ExplainOptions& options) {
  const char* variable = std::getenv("TIERLOG_DB");
  return !options.target.db.empty() || (variable != nullptr && *variable != '\0');
}

// The flow database that belongs to what was explained; nothing when there is none to be read. Files are
// not what a database recorded, and a socket says nothing about a database, unless one is named.
std::optional<store::FlowReader> database_for(const ExplainOptions& options) {
  const bool foreign = !options.files.empty() || !options.target.socket.empty();
  if (foreign && !is_named(options)) return std::nullopt;
  TargetOptions target = options.target;
  if (target.db.empty() && target.lab.empty() && !is_named(options)) {
    auto name = choose_lab("");
    if (name) target.lab = *name;  // without saying again which lab is used
  }
  const auto place = find_database(target);
  if (!place) return std::nullopt;
  auto reader = store::FlowReader::open(place->path);
  if (!reader) return std::nullopt;
  return std::move(*reader);
}

store::FlowQuery same_flow(const policy::Packet& packet, RuleId rule) {
  using Field = store::FieldFilter::Field;
  store::FlowQuery query;
  query.filters = {{Field::From, {packet.source.to_string()}, false},
                   {Field::To, {packet.destination.to_string()}, false},
                   {Field::Protocol, {protocol::name(packet.protocol)}, false},
                   {Field::Rule, {"0x" + to_hex(rule)}, false}};
  if (protocol::has_ports(packet.protocol))
    query.filters.push_back({Field::Port, {std::to_string(packet.destination_port)}, false});
  return query;
}

// The newest group whose port is the judged one: the filter also finds those that dialled it at a Service.
const store::FlowGroup* same_port(const std::vector<store::FlowGroup>& groups, const policy::Packet& packet) {
  const auto found = std::find_if(groups.begin(), groups.end(), [&](const store::FlowGroup& group) {
    return !protocol::has_ports(packet.protocol) || group.newest.dst_port == packet.destination_port;
  });
  return found == groups.end() ? nullptr : &*found;
}

std::string last_seen(const ExplainOptions& options, const policy::Explanation& explanation) {
  const policy::ExplainedStep* step = deciding_step(explanation);
  if (step == nullptr) return {};
  auto reader = database_for(options);
  if (!reader) return {};
  const auto groups = reader->grouped_flows(same_flow(explanation.packet, step->rule));
  if (!groups) return {};
  std::string text = "\nLast seen: ";
  if (const store::FlowGroup* group = same_port(*groups, explanation.packet))
    text += counted(group->packets, explanation.action == policy::Action::Deny ? "packet" : "connection") +
            ", latest " + format_for_people(group->last);
  else
    text += "not in the recorded flows";
  text += " · rule id " + to_hex(step->rule);
  const auto since = reader->since();
  if (step->revision > 0) {
    text += ", revision " + std::to_string(step->revision);
    if (since) text += " (policies in force since " + format_for_people(*since).substr(0, 16) + ")";
  }
  return text + "\n";
}

int show(const policy::Explanation& explanation, Format format) {
  if (format == Format::Json)
    out(policy::to_json(explanation).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  else
    out(explain_text(explanation, stdout_view(format == Format::Wide)));
  return kDone;
}

std::string in_force_text(const query::Past& past) {
  return "\nBy the policies in force since " + format_for_people(past.set.since) + " UTC and the pods of that moment.\n";
}

// A recorded verdict, explained by what was in force then; by the record's own trace where that is not kept.
Result<int> explain_the_record(const ExplainOptions& options, Format format) {
  if (!options.from.empty() || !options.to.empty() || options.port || !options.files.empty() || options.at)
    return fail(ErrorCode::InvalidArgument,
                "--record names the connection and its time; leave --from, --to, --port, --at and -f out");
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_ASSIGN(const RecordExplanation answer, explain_record(reader, options.record));
  const int code = show(answer.explanation, format);
  if (answer.past && format != Format::Json) out(in_force_text(*answer.past));
  for (const std::string& note : answer.notes) say(note);
  return code;
}

// A question about another time: the policies, pods and sets of then, from the flow database alone.
Result<int> explain_then(const ExplainOptions& options, const Question& question, Format format) {
  const auto when = parse_when(*options.at, SystemClock().wall());
  if (!when)
    return fail(ErrorCode::InvalidArgument, "--at \"" + *options.at +
                                                "\" is not understood; expected 15m, 2h, 7d (ago) or a time such "
                                                "as 2026-11-21T20:14:00Z");
  if (!options.files.empty())
    return fail(ErrorCode::InvalidArgument, "--at looks at what was in force then; leave -f and --topology out");
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_ASSIGN(const query::Past past, query::past_at(reader, *when));
  TL_ASSIGN(const policy::Program program, query::program_of(reader, past));
  ExplainOptions named = options;
  named.topology = "the cluster of " + format_for_people(*when);
  TL_ASSIGN(const auto ends, resolve_both(*program.cluster, {}, named, question));
  const int code = show(policy::explain(program, packet_of(question, ends.first, ends.second)), format);
  if (format != Format::Json) out(in_force_text(past));
  return code;
}

Result<int> explain(const ExplainOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output, kForms));
  if (!options.record.empty()) return explain_the_record(options, format);
  TL_ASSIGN(const Question question, read_question(options));
  if (options.at) return explain_then(options, question, format);
  if (options.files.empty() && !options.topology.empty())
    return fail(ErrorCode::InvalidArgument,
                "--topology goes with -f; without -f the daemon is asked about its own pods");
  TL_ASSIGN(const policy::Explanation explanation,
            options.files.empty() ? ask_daemon(options, question) : explain_files(options, question));
  const int code = show(explanation, format);
  if (format != Format::Json) out(last_seen(options, explanation));
  return code;
}

}  // namespace

Command explain_command() {
  const auto options = std::make_shared<ExplainOptions>();
  Command command;
  command.name = "explain";
  command.summary = "the verdict for one connection and why: every tier, policy and rule that was asked";
  command.description =
      "Shows what happens to the first packet of a connection: the source's egress policies, then the "
      "destination's "
      "ingress policies, each tier in order, each policy and rule that was looked at with the reason why it "
      "matched "
      "or not, up to the one that decides. Staged policies are shown beside with what they would have "
      "done.\n\n"
      "Without -f the running daemon is asked about the policies in force, and the flow database says when "
      "this was "
      "last seen. With -f the policies are evaluated here, for the pods of --topology; nothing needs to "
      "run. With --record or --at the flow database tells: it keeps the policies, pods and sets of every "
      "moment.\n\n"
      "WHO is ns/pod, ns/service or an address. For the address of a Service each of its backends is judged, "
      "as a "
      "packet is: behind the translation. What a node sends to its own pods is allowed (unless the node's "
      "settings "
      "say host_to_pod: policy); what the policies alone would say stands beside. A denial is an answer, not "
      "an error: the exit code is 0.";
  const std::string connection = "The connection", files = "Explain files instead of the running daemon";
  command.options = {
      {"--from", "WHO", "who connects", &options->from, connection},
      {"--to", "WHO", "to whom", &options->to, connection},
      {"--port", "N", "destination port", &options->port, connection},
      {"--protocol", "PROTO", "tcp (default), udp, sctp, icmp, icmpv6 or a number", &options->protocol,
       connection},
      {"--source-port", "N", "for rules that look at it", &options->source_port, connection},
      {"--icmp-type", "N", "default: echo request", &options->icmp_type, connection},
      {"--icmp-code", "N", "default: 0", &options->icmp_code, connection},
      {"--record", "ID", "a recorded connection, by what was in force then", &options->record, connection},
      {"--at", "WHEN", "by the policies and pods of then: 2h ago, or a time", &options->at, connection},
      {"-f,--file", "PATH", "policy files and folders", &options->files, files, true},
      {"--topology", "FILE", "who there is", &options->topology, files},
      output_option(options->output, kForms)};
  command.options.back().help += "; wide cuts nothing";
  add_socket_options(command.options, options->target);
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog explain --from tenant-02/web --to tenant-01/db --port 5432", "Why does this time out?"},
      {"tierlog explain --from tenant-01/web --to 203.0.113.9 --protocol icmp",
       "May a pod ping an outside address?"},
      {"tierlog explain -f policies/ --topology topology.yaml --from tenant-02/web --to tenant-01/db --port "
       "5432",
       "The same question to files, before they are in force"},
      {"tierlog explain --from tenant-02/web --to tenant-01/db --port 5432 --at 2h",
       "And two hours ago? Needs no daemon"},
      {"tierlog explain --record $(tierlog denied -o jsonl --limit 1 | jq -r .id)",
       "Why was the newest denied flow denied?"}};
  command.exit_codes =
      "0  explained, also a denial\n1  no such pod\n2  bad usage or bad files (all findings on stderr)\n"
      "3  no daemon answers";
  command.run = [options] {
    const auto code = explain(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
