// policy/explain_json.h - Explanation as JSON and back (control socket, --output json).
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "policy/explain.h"

namespace tierlog::policy {

nlohmann::ordered_json to_json(const Explanation& explanation);
Result<Explanation> explanation_from_json(const nlohmann::json& json);  // Errors: InvalidArgument

}  // namespace tierlog::policy
