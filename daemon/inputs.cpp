#include "daemon/inputs.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/yaml.h"
#include "policy/lint.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

constexpr const char* kKey = "last_good_set";

// Fills the values from the texts; `findings` are those of reading them.
Result<Inputs> understood(Inputs inputs, Diagnostics findings) {
  if (inputs.topology_text) {
    auto loaded = endpoints::load_topology_text(inputs.topology_text->text, inputs.topology_text->file);
    findings.add(loaded.findings);
    inputs.topology = std::move(loaded.topology);
  }
  auto loaded = policy::load_texts(inputs.policy_texts);
  findings.add(loaded.findings);
  if (!findings.has_errors()) findings.add(policy::lint(loaded.set));
  findings.sort();
  if (findings.has_errors()) {
    std::string text = findings.to_string();
    text.pop_back();  // the last line's end
    return fail(ErrorCode::InvalidArgument, std::move(text));
  }
  inputs.policies = std::move(loaded.set);
  inputs.warnings = std::move(findings);
  return inputs;
}

json to_json(const policy::SourceText& source) {
  return {{"file", source.file}, {"text", source.text}};
}

json to_json(const Inputs& inputs) {
  json policies = json::array();
  for (const policy::SourceText& source : inputs.policy_texts) policies.push_back(to_json(source));
  return {{"policies", std::move(policies)},
          {"topology", inputs.topology_text ? to_json(*inputs.topology_text) : json()}};
}

Inputs texts_of(const json& kept) {
  const auto source = [](const json& one) {
    return policy::SourceText{one.at("file").get<std::string>(), one.at("text").get<std::string>()};
  };
  Inputs inputs;
  for (const json& one : kept.at("policies")) inputs.policy_texts.push_back(source(one));
  if (!kept.at("topology").is_null()) inputs.topology_text = source(kept.at("topology"));
  return inputs;
}

Result<std::optional<json>> read_kept(store::StateDb& state) {
  TL_ASSIGN(const auto text, state.get(kKey));
  if (!text) return std::nullopt;
  json kept = json::parse(*text, nullptr, false);
  if (!kept.is_object() || !kept.contains("set") || !kept.contains("since") ||
      !kept["since"].is_number_integer())
    return fail(ErrorCode::Corrupt, "state.db: the last good policy set cannot be read");
  return kept;
}

}  // namespace

Result<Inputs> read_inputs(const Config& config) {
  Inputs inputs;
  Diagnostics findings;
  inputs.policy_texts = policy::read_texts(config.policies, findings);
  if (!config.topology.empty())
    if (auto text = yaml::read_file(config.topology, findings))
      inputs.topology_text = policy::SourceText{config.topology, std::move(*text)};
  return understood(std::move(inputs), std::move(findings));
}

Result<WallTime> keep_inputs(store::StateDb& state, const Inputs& inputs, WallTime now) {
  json set = to_json(inputs);
  const auto kept = read_kept(state);
  if (kept && *kept && (**kept)["set"] == set) return from_ns((**kept)["since"].get<std::int64_t>());
  const json fresh{{"set", std::move(set)}, {"since", to_ns(now)}};
  // Files are bytes: what is no UTF-8 was a finding before it could come into force.
  TL_TRY(state.put(kKey, fresh.dump(-1, ' ', false, json::error_handler_t::replace)));
  return now;
}

Result<std::optional<KeptInputs>> kept_inputs(store::StateDb& state) {
  TL_ASSIGN(const auto kept, read_kept(state));
  if (!kept) return std::nullopt;
  try {
    TL_ASSIGN(auto inputs, understood(texts_of((*kept)["set"]), {}));
    return KeptInputs{std::move(inputs), from_ns((*kept)["since"].get<std::int64_t>())};
  } catch (const json::exception& error) {
    return fail(ErrorCode::Corrupt,
                std::string("state.db: the last good policy set cannot be read: ") + error.what());
  }
}

}  // namespace tierlog::daemon
