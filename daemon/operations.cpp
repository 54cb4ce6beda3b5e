// What the control socket can ask of the daemon (docs/control.md).
#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "daemon/daemon.h"
#include "daemon/syscalls.h"
#include "endpoints/service_backends.h"
#include "logger/rule_names.h"
#include "policy/explain.h"
#include "policy/explain_json.h"
#include "store/query.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

Result<std::string> text_of(const json& request, const char* key) {
  const auto found = request.find(key);
  if (found == request.end() || !found->is_string())
    return fail(ErrorCode::InvalidArgument, std::string("\"") + key + "\" is missing; expected a string");
  return found->get<std::string>();
}

Result<std::uint16_t> number_of(const json& request, const char* key, std::uint16_t highest) {
  const auto found = request.find(key);
  if (found == request.end() || found->is_null()) return std::uint16_t{0};
  if (!found->is_number_integer() || found->get<std::int64_t>() < 0 || found->get<std::int64_t>() > highest)
    return fail(ErrorCode::InvalidArgument, std::string("\"") + key +
                                                "\" is out of range; expected a number from 0 to " +
                                                std::to_string(highest));
  return found->get<std::uint16_t>();
}

Result<store::RegisteredEndpoint> registration_of(const json& request) {
  store::RegisteredEndpoint endpoint;
  TL_ASSIGN(endpoint.container_id, text_of(request, "container_id"));
  TL_ASSIGN(endpoint.ifname, text_of(request, "ifname"));
  TL_ASSIGN(endpoint.netns, text_of(request, "netns"));
  TL_ASSIGN(endpoint.endpoint_namespace, text_of(request, "namespace"));
  TL_ASSIGN(endpoint.name, text_of(request, "name"));
  TL_ASSIGN(endpoint.host_interface, text_of(request, "interface"));
  if (request.contains("mac")) {
    TL_ASSIGN(endpoint.mac, text_of(request, "mac"));
  }
  const json empty_list = json::array();
  const json empty_map = json::object();
  for (const json& address : request.contains("addresses") ? request["addresses"] : empty_list) {
    if (!address.is_string() || !IpAddr::parse(address.get<std::string>()))
      return fail(ErrorCode::InvalidArgument,
                  "\"addresses\" holds " + address.dump() + "; expected IP addresses");
    endpoint.addresses.push_back(address.get<std::string>());
  }
  const json& labels = request.contains("labels") ? request["labels"] : empty_map;
  for (const auto& [key, value] : labels.items()) {
    if (!value.is_string())
      return fail(ErrorCode::InvalidArgument, "label \"" + key + "\" has no string value");
    endpoint.labels[key] = value.get<std::string>();
  }
  return endpoint;
}

json endpoint_json(const store::EndpointRow& row) {
  return {{"namespace", row.endpoint_namespace},
          {"name", row.name},
          {"node", row.node},
          {"interface", row.interface},
          {"addresses", row.addresses},
          {"workload", row.workload},
          {"labels", row.labels},
          {"enforced", row.enforced},
          {"ingress_policies", row.ingress_policies},
          {"egress_policies", row.egress_policies}};
}

const char* source_name(World::Source source) {
  switch (source) {
    case World::Source::Files:
      return "files";
    case World::Source::LastGood:
      return "last-good";
    case World::Source::Nothing:
      break;
  }
  return "nothing";
}

}  // namespace

json Daemon::kernel_json() const {
  const LivingCounts living = living_ == nullptr ? LivingCounts{} : living_->counts();
  return {{"table_owned", !plane_.is_nftables() || plane_.tables->owned()},
          {"table_repairs", table_repairs_},
          {"bridge_repairs", bridges_->repairs()},
          {"bridges_unfiltered", bridges_->blind()},
          {"sparing_midstream", spare_until_.has_value()},
          {"connections",
           {{"judged_anew", living.judged},
            {"relabelled", living.relabelled},
            {"cut", living.cut},
            {"resumed", living.resumed},
            {"removed", living.removed},
            {"uncuttable", living.uncuttable},
            {"cut_now", living_ == nullptr ? 0 : living_->cut_now()}}}};
}

// The flow index, and who is given its records. Read beside the writer: its batch may take long.
void Daemon::add_store(json& status, Detail detail) {
  const std::int64_t last = recorder_->last_sequence();
  const store::StoreState state = recorder_->store_state();
  const char* level = state.level == store::StoreState::Level::Refusing ? "refusing"
                      : state.level == store::StoreState::Level::Busy   ? "busy"
                                                                        : "well";
  status["store"] = {{"path", config_.store_path},
                     {"bytes", state.bytes},
                     {"max_bytes", state.max_bytes},
                     {"records", state.records},
                     {"oldest_time", state.oldest ? json(format_rfc3339(*state.oldest)) : json()},
                     {"removed_records", state.removed_records},
                     {"state", level},
                     {"problem", state.problem},
                     {"kept_aside", state.kept_aside}};
  std::optional<store::FlowReader> reader;
  if (detail == Detail::All)
    if (auto opened = store::FlowReader::open(config_.store_path)) reader.emplace(std::move(*opened));
  const auto time_of = [&](std::int64_t sequence) {
    const auto time = reader ? reader->time_of(sequence).value_or(std::nullopt) : std::nullopt;
    return time ? json(format_rfc3339(*time)) : json();
  };
  json exports = json::array();
  for (const auto& worker : exports_) {
    const ExportStatus told = worker->status();
    json failures = json::object();
    for (std::size_t i = 0; i < told.failures.size(); ++i)
      if (told.failures[i] > 0)
        failures[std::string(name(static_cast<exporters::FailureCause>(i)))] = told.failures[i];
    exports.push_back({{"name", told.name},
                       {"type", told.type},
                       {"target", told.target},
                       {"filter", told.filter},
                       {"format", told.format},
                       {"delivered_sequence", told.delivered_sequence},
                       {"delivered_time", time_of(told.delivered_sequence)},
                       {"waiting", std::max<std::int64_t>(0, last - told.delivered_sequence)},
                       {"sent_records", told.counts.records},
                       {"sent_bytes", told.counts.bytes},
                       {"sent_messages", told.counts.messages},
                       {"skipped", told.counts.skipped},
                       {"expired", told.expired},
                       {"retries", told.retries},
                       {"failures", failures},
                       {"error", told.error}});
  }
  status["exports"] = exports;
}

void Daemon::add_books(json& status, json& warnings) {
  if (const auto books = recorder_->books()) {
    json causes = json::object();
    for (const auto& [cause, packets] : books->causes) causes[std::string(cause)] = packets;
    status["books"] = {{"kernel", books->kernel},         {"recorded", books->recorded},
                       {"waiting", books->waiting},       {"unattributed", books->unattributed},
                       {"undeclared", books->undeclared}, {"causes", causes}};
  } else {
    warnings.push_back("books: " + books.error().message);
  }
}

json Daemon::status_json(Detail detail) {
  const auto program = world_->program();
  json status{{"version", TIERLOG_VERSION},
              {"node", config_.node},
              {"cluster", config_.cluster},
              {"dataplane", config_.dataplane},
              {"pid", ::getpid()},
              {"capabilities", capabilities_},
              {"seccomp", syscalls_are_restricted()},
              {"uptime_ns", (clock_.boottime() - started_).count()},
              {"policies", program->policies.size()},
              {"rules", program->rules.size()},
              {"revision", program->revision},
              {"ready", world_->ready()},
              {"source", source_name(world_->source())},
              {"in_force_since", format_rfc3339(world_->in_force_since())},
              {"in_sync", world_->last_error().empty()},
              {"sync_error", world_->last_error()},
              {"endpoints", program->cluster->endpoints.size()},
              {"programmed", program->endpoints.size()}};
  json warnings = json::array();
  if (!plane_.notice.empty()) warnings.push_back(plane_.notice);
  for (const std::string& warning : plane_.backend->warnings()) warnings.push_back(warning);
  for (const Diagnostic& finding : world_->warnings().all()) warnings.push_back(finding.to_string());
  for (const GonePod& pod : gone_pods_) warnings.push_back(pod.to_string());
  for (const std::string& interface : lost_pods_)
    warnings.push_back(interface + " was enforced and its pod is in state.db no longer: nothing may come out of it");
  if (plane_.is_nftables() && !plane_.tables->owned())
    warnings.push_back("this kernel cannot protect the table from other programs (needs 6.9)");
  if (plane_.labels)
    for (const std::string& writer : plane_.labels->writers())
      warnings.push_back("connection labels are written by others too (" + writer +
                         "): rule ids are kept in them, verdicts and their rules may be wrong");
  if (plane_.is_nftables() && bridges_->blind())
    warnings.push_back(
        "pods under bridges are not enforced against each other: module br_netfilter is missing");
  if (living_ != nullptr && living_->counts().uncuttable != 0)
    warnings.push_back(
        "connections older than the first start that policies deny now, but that cannot be cut: " +
        std::to_string(living_->counts().uncuttable));
  if (detail == Detail::All) add_books(status, warnings);
  const store::StoreState stored = recorder_->store_state();
  if (!stored.problem.empty()) warnings.push_back("THE FLOW INDEX IS NOT WRITTEN: " + stored.problem);
  if (!stored.kept_aside.empty())
    warnings.push_back("the flow index was damaged and began anew; what it held is kept aside as " +
                       stored.kept_aside);
  json losses = json::object();
  for (const store::LossCount& loss : recorder_->losses())
    if (loss.rule == RuleId::None) losses[loss.cause] = loss.packets;
  status["losses"] = losses;
  if (!http_problem_.empty()) warnings.push_back("HTTP does not answer: " + http_problem_);
  for (const auto& worker : exports_)
    if (const ExportStatus told = worker->status(); !told.error.empty())
      warnings.push_back("export " + told.name + " fails and is tried again: " + told.error);
  const Recorder::Backlog backlog = recorder_->backlog();
  status["backlog"] = {{"records", backlog.records},
                       {"aggregated", backlog.aggregated},
                       {"refused_batches", backlog.refused},
                       {"longest_batch_ns", backlog.longest.count()}};
  if (!mismatches_->paths().empty())
    warnings.push_back(
        "the kernel and the evaluator disagreed, a defect of Tierlog; cases to reproduce it: " +
        std::to_string(mismatches_->paths().size()) + " in " +
        std::filesystem::path(mismatches_->paths().front()).parent_path().string());
  status["mismatch_cases"] = mismatches_->paths();
  status["verdicts"] = {{"per_second", recorder_->pace().per_second},
                        {"behind_ns", recorder_->pace().behind.count()}};
  add_store(status, detail);
  status["http"] = http_ && http_->answers() ? json(http_->url()) : json();
  status["log_rate"] = config_.log_rate.to_string();
  status["enforcement"] = config_.audits ? "audit" : "enforce";
  std::set<std::string> audited;
  for (const policy::ProgramEndpoint& endpoint : program->endpoints)
    if (endpoint.audited && !config_.audits)
      audited.insert(program->cluster->endpoints[endpoint.endpoint].endpoint_namespace);
  status["audited_namespaces"] = audited;
  json apart = json::array();
  for (const policy::Endpoint& endpoint : program->cluster->endpoints)
    if (endpoint.host_network && (endpoint.node.empty() || endpoint.node == config_.node))
      apart.push_back(endpoint.display());
  status["host_network"] = apart;
  status["kernel"] = kernel_json();
  status["warnings"] = warnings;
  return status;
}

Result<json> Daemon::endpoints_json() const {
  json items = json::array();
  for (const store::EndpointRow& row : logger::make_catalog(*world_->program(), clock_.wall()).endpoints)
    items.push_back(endpoint_json(row));
  return json{{"items", items}};
}

Result<json> Daemon::explain(const json& request) const {
  TL_ASSIGN(const auto from, text_of(request, "from"));
  TL_ASSIGN(const auto to, text_of(request, "to"));
  const policy::Program& program = *world_->program();
  const auto one = [&](const std::string& who, Family wanted) -> Result<IpAddr> {
    const auto address = endpoints::resolve_who(*program.cluster, world_->services(), who, wanted);
    if (address) return *address;
    return fail(ErrorCode::NotFound, "no endpoint is called \"" + who + "\"; expected ns/pod, ns/service or an address");
  };
  const std::string protocol_text = request.value("protocol", "tcp");
  const auto number_value = protocol::parse(protocol_text);
  if (!number_value)
    return fail(ErrorCode::InvalidArgument, "unknown protocol \"" + protocol_text +
                                                "\"; expected tcp, udp, sctp, icmp, icmpv6 or a number");
  const Family wanted = *number_value == protocol::kIcmpV6 ? Family::V6 : Family::V4;
  policy::Packet packet;
  TL_ASSIGN(packet.destination, one(to, wanted));
  TL_ASSIGN(packet.source, one(from, packet.destination.family));
  if (packet.source.family != packet.destination.family) {
    TL_ASSIGN(packet.destination, one(to, packet.source.family));
    if (packet.source.family != packet.destination.family)
      return fail(ErrorCode::InvalidArgument, from + " and " + to + " have no addresses of the same family");
  }
  packet.protocol = *number_value;
  TL_ASSIGN(packet.destination_port, number_of(request, "port", 65535));
  TL_ASSIGN(packet.source_port, number_of(request, "source_port", 65535));
  TL_ASSIGN(auto type, number_of(request, "icmp_type", 255));
  constexpr std::uint16_t kEchoRequestV4 = 8;
  constexpr std::uint16_t kEchoRequestV6 = 128;
  if (!request.contains("icmp_type") && protocol::is_icmp(packet.protocol))
    type = packet.protocol == protocol::kIcmp ? kEchoRequestV4 : kEchoRequestV6;
  TL_ASSIGN(const auto code, number_of(request, "icmp_code", 255));
  packet.icmp_type = static_cast<std::uint8_t>(type);
  packet.icmp_code = static_cast<std::uint8_t>(code);
  return json{{"explanation", policy::to_json(endpoints::explain(program, packet, world_->services()))}};
}

Result<json> Daemon::handle(const json& request, Trust trust) {
  const std::string op = request["op"].get<std::string>();
  if (op == "status") return json{{"status", status_json(Detail::All)}};
  if (op == "endpoints") return endpoints_json();
  if (op == "explain") return explain(request);
  const bool owner_only = op == "reload" || op == "flush" || op.rfind("cni-", 0) == 0;
  if (owner_only && trust != Trust::Owner)
    return fail(ErrorCode::Refused, "only root may ask for \"" + op + "\"");
  if (op == "reload") {
    TL_ASSIGN(const bool changed, read_files());
    return json{{"revision", world_->program()->revision}, {"changed", changed}};
  }
  if (op == "flush") {
    TL_TRY(recorder_->flush());
    TL_ASSIGN(const auto last, flows_->last_sequence());
    return json{{"records", last}};
  }
  if (op == "cni-add" || op == "cni-check") {
    TL_ASSIGN(const auto endpoint, registration_of(request));
    if (op == "cni-check") {
      TL_TRY(world_->check_endpoint(endpoint));
      return json::object();
    }
    // An older DEL of the same container must not be carried out afterwards.
    TL_TRY(replay_spool());
    TL_ASSIGN(const auto gone, world_->add_endpoint(endpoint));
    for (const store::RegisteredEndpoint& old : gone)
      spdlog::warn("{}/{} (container {}) is gone without a DEL: {}/{} has its address or interface now",
                   old.endpoint_namespace, old.name, old.container_id, endpoint.endpoint_namespace, endpoint.name);
    return json::object();
  }
  if (op == "cni-del") {
    TL_ASSIGN(const auto container_id, text_of(request, "container_id"));
    TL_ASSIGN(const auto ifname, text_of(request, "ifname"));
    TL_TRY(world_->remove_endpoint(container_id, ifname));
    return json::object();
  }
  return fail(ErrorCode::InvalidArgument, "unknown operation \"" + op + "\"");
}

}  // namespace tierlog::daemon
