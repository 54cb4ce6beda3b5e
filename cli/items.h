// cli/items.h - what listings give to -o json, jsonl and csv: one JSON object a row, as text.
#pragma once

#include <string>

#include "base/diagnostics.h"
#include "lab/lab.h"
#include "query/items.h"

namespace tierlog::cli {

using query::item_of;  // what the flow index holds
std::string item_of(const Diagnostic& finding);
std::string item_of(const lab::Lab& lab);

}  // namespace tierlog::cli
