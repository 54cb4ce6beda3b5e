// store/check.h - is a flow index whole? For `tierlog store check`: reads only, also beside a writing daemon.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace tierlog::store {

struct CheckReport {
  std::vector<std::string> damage;  // one sentence each, empty: whole
  std::int64_t records = 0;
  std::int64_t rolled_records = 0;  // of these, what the roll-ups count; the rest is on its way
  std::int64_t peers = 0, texts = 0;
  std::int64_t bytes = 0, free_bytes = 0;
};

// What is done now and how far it is: a stage and a share from 0 to 1.
using CheckProgress = std::function<void(const std::string& stage, double share)>;

// The file's own structure (PRAGMA integrity_check), that every reference of a record finds its dictionary
// row, that each roll-up is the sum of its records and each dictionary row is as often used as it says.
// All of it in one snapshot. Errors: as FlowReader::open; damage is in the report.
Result<CheckReport> check_flow_index(const std::string& path, const CheckProgress& progress);

// Gives free pages back to the disk and writes the -wal into the file, in steps that a running daemon hardly
// notices; `rewrite` makes the file anew instead (dense, in the order of reading), which needs as much room
// again and the file for itself. Returns bytes before and after. Errors: Refused (no right to write),
// Unavailable (somebody else writes), Io.
struct Compacted {
  std::int64_t bytes_before = 0, bytes_after = 0;
};
Result<Compacted> compact_flow_index(const std::string& path, bool rewrite, const CheckProgress& progress);

}  // namespace tierlog::store
