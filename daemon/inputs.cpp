#include "daemon/inputs.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/yaml.h"
#include "policy/lint.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

constexpr const char* kKey = "last_good_set";

json to_json(const policy::SourceText& source) {
  return {{"file", source.file}, {"text", source.text}};
}

json to_json(const InputTexts& texts) {
  json policies = json::array();
  for (const policy::SourceText& source : texts.policies) policies.push_back(to_json(source));
  return {{"policies", std::move(policies)},
          {"topology", texts.topology ? to_json(*texts.topology) : json()}};
}

InputTexts texts_of(const json& kept) {
  const auto source = [](const json& one) {
    return policy::SourceText{one.at("file").get<std::string>(), one.at("text").get<std::string>()};
  };
  InputTexts texts;
  for (const json& one : kept.at("policies")) texts.policies.push_back(source(one));
  if (!kept.at("topology").is_null()) texts.topology = source(kept.at("topology"));
  return texts;
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

InputTexts read_texts(const Config& config) {
  InputTexts texts;
  texts.policies = policy::read_texts(config.policies, texts.findings);
  if (!config.topology.empty())
    if (auto text = yaml::read_file(config.topology, texts.findings))
      texts.topology = policy::SourceText{config.topology, std::move(*text)};
  return texts;
}

Result<Inputs> understand(InputTexts texts) {
  Inputs inputs{.texts = std::move(texts), .policies = {}, .topology = {}, .warnings = {}};
  Diagnostics findings = inputs.texts.findings;
  if (inputs.texts.topology) {
    auto loaded = endpoints::load_topology_text(inputs.texts.topology->text, inputs.texts.topology->file);
    findings.add(loaded.findings);
    inputs.topology = std::move(loaded.topology);
  }
  auto loaded = policy::load_texts(inputs.texts.policies);
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

Result<Inputs> read_inputs(const Config& config) {
  return understand(read_texts(config));
}

Result<WallTime> keep_inputs(store::StateDb& state, const Inputs& inputs, WallTime now) {
  json set = to_json(inputs.texts);
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
    TL_ASSIGN(auto inputs, understand(texts_of((*kept)["set"])));
    return KeptInputs{std::move(inputs), from_ns((*kept)["since"].get<std::int64_t>())};
  } catch (const json::exception& error) {
    return fail(ErrorCode::Corrupt,
                std::string("state.db: the last good policy set cannot be read: ") + error.what());
  }
}

}  // namespace tierlog::daemon
