#include "dataplane/ebpf/limits.h"

#include <algorithm>
#include <charconv>
#include <vector>

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;

// Whose end of a tier it is: the last policy that was asked.
std::uint32_t owner_of(const policy::EndOfTier& end) {
  return end.policies.empty() ? policy::kNone : end.policies.back();
}

Result<void> check_rules(const Program& program, const Limits& limits) {
  std::vector<std::uint32_t> counted(program.policies.size(), 0);
  std::uint64_t all = 0;
  const auto add = [&](std::uint32_t policy) {
    if (policy >= counted.size() || program.policies[policy].staged) return;
    ++counted[policy];
    ++all;
  };
  for (const policy::ProgramRule& rule : program.rules) add(rule.policy);
  for (const policy::EndOfTier& end : program.ends) add(owner_of(end));
  if (all <= limits.rules) return {};
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < counted.size(); ++i) {
    before += counted[i];
    if (before > limits.rules)
      return fail(ErrorCode::InvalidArgument,
                  program.policies[i].display + ": the rules and ends of tiers of this node are " + std::to_string(all) +
                      ", and this policy's " + std::to_string(counted[i]) + " pass the limit" +
                      limit_text(&Limits::rules, limits));
  }
  return {};
}

Result<void> check_endpoints(const Program& program, const Limits& limits) {
  const std::size_t count = program.endpoints.size() + program.hosts.size();
  if (count <= limits.endpoints) return {};
  const std::size_t first = limits.endpoints;
  const std::string whose =
      first < program.endpoints.size()
          ? program.cluster->endpoints[program.endpoints[first].endpoint].display()
          : program.cluster->host_endpoints[program.hosts[first - program.endpoints.size()].endpoint].display();
  return fail(ErrorCode::InvalidArgument, whose + ": it is one of " + std::to_string(count) +
                                              " endpoints of this node" + limit_text(&Limits::endpoints, limits));
}

}  // namespace

const std::array<LimitSetting, 9>& limit_settings() {
  // Endpoints: their table is one object, found by masking. Matches and sets: what the verifier was shown.
  static const std::array<LimitSetting, 9> settings{{{"max_endpoints", &Limits::endpoints, 1, 8'192},
                                                     {"max_rules", &Limits::rules, 1, 1'000'000},
                                                     {"max_matches", &Limits::matches, 1, TL_POSITIONS},
                                                     {"max_sets", &Limits::sets, 1, TL_SETS},
                                                     {"max_flows", &Limits::flows, 1, 16'777'216},
                                                     {"max_denied_flows", &Limits::denied, 1, 4'194'304},
                                                     {"max_services", &Limits::services, 1, 1'048'576},
                                                     {"max_tuples", &Limits::tuples, 1'024, 4'194'304},
                                                     {"max_segments", &Limits::segments, 2, TL_SEGMENTS}}};
  return settings;
}

std::string limit_text(std::uint32_t Limits::*value, const Limits& limits) {
  std::string name;
  for (const LimitSetting& setting : limit_settings())
    if (setting.value == value) name = setting.name;
  return "; " + std::to_string(limits.*value) + " are the limit (ebpf." + name + ")";
}

Result<Limits> parse_limits(std::string_view text) {
  Limits limits;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const auto& settings = limit_settings();
    const auto found =
        std::find_if(settings.begin(), settings.end(), [&](const LimitSetting& one) { return one.name == name; });
    if (found == settings.end()) {
      std::string known;
      for (const LimitSetting& one : settings) known += (known.empty() ? "" : ", ") + std::string(one.name);
      return fail(ErrorCode::InvalidArgument, "unknown limit \"" + std::string(name) + "\"; expected one of " + known);
    }
    const std::string_view digits = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size() || value < found->least || value > found->most)
      return fail(ErrorCode::InvalidArgument, std::string(name) + ": \"" + std::string(digits) +
                                                  "\" is out of range; expected a number from " +
                                                  std::to_string(found->least) + " to " + std::to_string(found->most));
    limits.*found->value = value;
  }
  return limits;
}

Result<void> check_limits(const Program& program, const Limits& limits) {
  TL_TRY(check_endpoints(program, limits));
  return check_rules(program, limits);
}

}  // namespace tierlog::dataplane::ebpf
