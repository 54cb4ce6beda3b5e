// query/board.h - the board of policies: what each allowed, denied, passed and logged, and its rates.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/groups.h"
#include "store/query.h"

namespace tierlog::query {

// Rates are over the last minute.
inline constexpr std::chrono::seconds kRateOver{60};

struct BoardRow {
  store::PolicyActivity activity;
  store::Sums rate;  // what it decided in that time
};

struct Board {
  std::vector<BoardRow> rows;  // in evaluation order
  std::vector<std::string> notes;
  std::string empty;  // why there is nothing, and what to try
};

// `unused`: as typed (30d, a time): only policies that nothing has hit since. Errors: InvalidArgument for it.
Result<Board> board(store::FlowReader& reader, const std::optional<std::string>& unused, WallTime now);
std::string item_of(const BoardRow& row);

}  // namespace tierlog::query
