#include "cli/policy_names.h"

#include "base/diagnostics.h"
#include "cli/format.h"

namespace tierlog::cli {

std::string nearest_policy(const std::string& typed, const std::vector<std::string>& displays) {
  std::vector<std::string> forms;
  std::vector<const std::string*> owners;
  for (const std::string& display : displays) {
    const std::string name = display.substr(display.rfind('/') + 1);
    for (const std::string& form : {name, under_tier(display), display}) {
      forms.push_back(form);
      owners.push_back(&display);
    }
  }
  const std::string close = nearest(typed, forms);
  for (std::size_t i = 0; i < forms.size(); ++i)
    if (!close.empty() && forms[i] == close) return *owners[i];
  return {};
}

Result<std::vector<std::string>> require_policies(store::FlowReader& reader, const std::string& pattern) {
  TL_ASSIGN(std::vector<std::string> found, reader.match_policies(pattern));
  if (!found.empty()) return found;
  TL_ASSIGN(const std::vector<std::string> known, reader.policy_names());
  std::string sentence = "no policy matches \"" + pattern + "\"";
  if (known.empty()) {
    sentence += "; the database knows no policy yet (has the daemon loaded any? `tierlog status`)";
  } else {
    const std::string close = nearest_policy(pattern, known);
    if (!close.empty()) sentence += "; did you mean " + close + "?";
    sentence += " (`tierlog policies` lists all)";
  }
  return fail(ErrorCode::NotFound, std::move(sentence));
}

}  // namespace tierlog::cli
