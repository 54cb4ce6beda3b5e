#include "policy/explain_json.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tierlog::policy {
namespace {

using Json = nlohmann::ordered_json;

// Records and this form have lower-case values; people see the policy API's spelling.
std::string lower(std::string_view text) {
  std::string result(text);
  if (!result.empty()) result[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(result[0])));
  return result;
}

std::string capital(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

Json index_or_null(const std::optional<int>& index) {
  return index ? Json(*index) : Json(nullptr);
}

Json to_json(const ExplainedStep& step) {
  return {{"tier", text_or_null(step.tier)},
          {"policy", text_or_null(step.policy)},
          {"policy_kind", text_or_null(step.policy_kind)},
          {"rule_index", index_or_null(step.rule_index)},
          {"rule_id", number(step.rule)},
          {"policy_revision", step.revision},
          {"action", text_or_null(lower(step.action))},
          {"result", name(step.result)},
          {"staged", step.staged},
          {"decides", step.decides},
          {"why", step.why},
          {"text", step.text},
          {"source", step.source}};
}

Json to_json(const std::optional<ExplainedDirection>& direction) {
  if (!direction) return nullptr;
  Json trace = Json::array();
  for (const ExplainedStep& step : direction->steps) trace.push_back(to_json(step));
  return {{"direction", tierlog::name(direction->direction)},
          {"endpoint", direction->endpoint},
          {"action", lower(name(direction->action))},
          {"reason", tierlog::name(direction->reason)},
          {"tiers", direction->tiers},
          {"skipped_tiers", direction->skipped_tiers},
          {"trace", std::move(trace)}};
}

// The deciding step with its direction; null where no policy was asked.
Json decider(const Explanation& explanation) {
  const std::optional<ExplainedDirection>* found = nullptr;
  for (const auto* candidate : {&explanation.host_ingress, &explanation.egress, &explanation.ingress, &explanation.host_egress})
    if (found == nullptr && *candidate && (*candidate)->action == Action::Deny) found = candidate;
  for (const auto* candidate : {&explanation.ingress, &explanation.egress, &explanation.host_ingress, &explanation.host_egress})
    if (found == nullptr && *candidate) found = candidate;
  if (found == nullptr || (*found)->steps.empty()) return nullptr;
  const auto& direction = *found;
  const ExplainedStep& step = direction->steps.back();
  return {{"direction", tierlog::name(direction->direction)},
          {"tier", text_or_null(step.tier)},
          {"policy", text_or_null(step.policy)},
          {"rule", index_or_null(step.rule_index)},
          {"rule_id", number(step.rule)}};
}

template <typename T, std::size_t n>
T value_named(const std::array<T, n>& values, const std::string& text) {
  for (const T value : values)
    if (lower(name(value)) == text) return value;
  throw std::invalid_argument("unknown value \"" + text + "\"");
}

Action action_named(const std::string& text) {
  return value_named(std::array{Action::Allow, Action::Deny, Action::Pass, Action::Log}, text);
}

StepResult result_named(const std::string& text) {
  return value_named(std::array{StepResult::NoMatch, StepResult::Logged, StepResult::Passed,
                                StepResult::Allowed, StepResult::Denied},
                     text);
}

Reason reason_named(const std::string& text) {
  for (int i = 0; i <= static_cast<int>(Reason::Other); ++i)
    if (tierlog::name(static_cast<Reason>(i)) == text) return static_cast<Reason>(i);
  throw std::invalid_argument("unknown reason \"" + text + "\"");
}

std::string text_of(const nlohmann::json& value) {
  return value.is_null() ? "" : value.get<std::string>();
}

IpAddr address_of(const nlohmann::json& value) {
  const auto address = IpAddr::parse(value.get<std::string>());
  if (!address) throw std::invalid_argument(value.get<std::string>() + " is no address");
  return *address;
}

ExplainedStep step_of(const nlohmann::json& json) {
  ExplainedStep step;
  step.tier = text_of(json.at("tier"));
  step.policy = text_of(json.at("policy"));
  step.policy_kind = text_of(json.at("policy_kind"));
  if (!json.at("rule_index").is_null()) step.rule_index = json.at("rule_index").get<int>();
  step.rule = RuleId{json.at("rule_id").get<std::uint32_t>()};
  step.revision = json.at("policy_revision").get<std::uint32_t>();
  step.action = capital(text_of(json.at("action")));
  step.result = result_named(json.at("result").get<std::string>());
  step.staged = json.at("staged").get<bool>();
  step.decides = json.at("decides").get<bool>();
  step.why = json.at("why").get<std::string>();
  step.text = json.at("text").get<std::string>();
  step.source = json.at("source").get<std::string>();
  return step;
}

std::optional<ExplainedDirection> direction_of(const nlohmann::json& json) {
  if (json.is_null()) return std::nullopt;
  ExplainedDirection direction;
  direction.direction =
      json.at("direction").get<std::string>() == "egress" ? Direction::Egress : Direction::Ingress;
  direction.endpoint = json.at("endpoint").get<std::string>();
  direction.action = action_named(json.at("action").get<std::string>());
  direction.reason = reason_named(json.at("reason").get<std::string>());
  direction.tiers = json.at("tiers").get<std::vector<std::string>>();
  direction.skipped_tiers = json.at("skipped_tiers").get<std::vector<std::string>>();
  for (const auto& step : json.at("trace")) direction.steps.push_back(step_of(step));
  return direction;
}

Json to_json(const ExplainedService& service) {
  Json backends = Json::array();
  for (const ExplainedService::Backend& backend : service.backends)
    backends.push_back({{"ip", backend.address.to_string()},
                        {"port", backend.port},
                        {"name", backend.name},
                        {"action", lower(name(backend.action))}});
  return {{"name", service.name},
          {"ip", service.address.to_string()},
          {"port", service.port},
          {"has_port", service.has_port},
          {"backends", std::move(backends)}};
}

ExplainedService service_of(const nlohmann::json& json) {
  ExplainedService service{json.at("name").get<std::string>(), address_of(json.at("ip")),
                           json.at("port").get<std::uint16_t>(), json.at("has_port").get<bool>(), {}};
  for (const auto& backend : json.at("backends"))
    service.backends.push_back({address_of(backend.at("ip")), backend.at("port").get<std::uint16_t>(),
                                backend.at("name").get<std::string>(),
                                action_named(capital(backend.at("action").get<std::string>()))});
  return service;
}

Packet packet_of(const nlohmann::json& json) {
  Packet packet;
  packet.source = address_of(json.at("src_ip"));
  packet.destination = address_of(json.at("dst_ip"));
  const std::string proto = json.at("proto").get<std::string>();
  const auto number = protocol::parse(proto);
  if (!number) throw std::invalid_argument("unknown protocol \"" + proto + "\"");
  packet.protocol = *number;
  packet.source_port = json.at("src_port").get<std::uint16_t>();
  packet.destination_port = json.at("dst_port").get<std::uint16_t>();
  if (protocol::is_icmp(packet.protocol)) {
    packet.icmp_type = json.at("icmp_type").get<std::uint8_t>();
    packet.icmp_code = json.at("icmp_code").get<std::uint8_t>();
  }
  return packet;
}

}  // namespace

nlohmann::ordered_json to_json(const Explanation& explanation) {
  const Packet& packet = explanation.packet;
  const bool icmp = protocol::is_icmp(packet.protocol);
  Json json = {{"action", lower(name(explanation.action))},
          {"proto", protocol::name(packet.protocol)},
          {"src_ip", packet.source.to_string()},
          {"src_port", packet.source_port},
          {"src_name", explanation.source_name},
          {"dst_ip", packet.destination.to_string()},
          {"dst_port", packet.destination_port},
          {"dst_name", explanation.destination_name},
          {"icmp_type", icmp ? Json(packet.icmp_type) : Json(nullptr)},
          {"icmp_code", icmp ? Json(packet.icmp_code) : Json(nullptr)},
          {"decides", decider(explanation)},
          {"egress", to_json(explanation.egress)},
          {"ingress", to_json(explanation.ingress)}};
  if (explanation.host_ingress) json["host_ingress"] = to_json(explanation.host_ingress);
  if (explanation.host_egress) json["host_egress"] = to_json(explanation.host_egress);
  if (explanation.service) json["service"] = to_json(*explanation.service);
  if (explanation.by_policies_alone) json["by_policies_alone"] = to_json(explanation.by_policies_alone);
  return json;
}

Result<Explanation> explanation_from_json(const nlohmann::json& json) {
  try {
    Explanation explanation;
    explanation.packet = packet_of(json);
    explanation.source_name = json.at("src_name").get<std::string>();
    explanation.destination_name = json.at("dst_name").get<std::string>();
    explanation.action = action_named(json.at("action").get<std::string>());
    explanation.egress = direction_of(json.at("egress"));
    explanation.ingress = direction_of(json.at("ingress"));
    if (json.contains("host_ingress")) explanation.host_ingress = direction_of(json.at("host_ingress"));
    if (json.contains("host_egress")) explanation.host_egress = direction_of(json.at("host_egress"));
    if (json.contains("service")) explanation.service = service_of(json.at("service"));
    if (json.contains("by_policies_alone"))
      explanation.by_policies_alone = direction_of(json.at("by_policies_alone"));
    return explanation;
  } catch (const std::exception& error) {
    return fail(ErrorCode::InvalidArgument, std::string("explanation: ") + error.what());
  }
}

}  // namespace tierlog::policy
