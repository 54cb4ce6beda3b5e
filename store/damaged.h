// store/damaged.h - telling a damaged flow index from one that is not ours, and keeping it aside.
#pragma once

#include <string>

#include "base/result.h"

namespace tierlog::store {

// That the file is whole as far as its head says, but of another program or of a newer Tierlog: not to be
// touched by us. False for what SQLite cannot read.
bool belongs_to_others(const std::string& path);

// Renames FILE, FILE-wal to FILE.corrupt-TIME and FILE.corrupt-TIME-wal, so that `sqlite3 .recover` can read
// them, and takes FILE-shm away. Returns the new name.
Result<std::string> keep_aside(const std::string& path);

}  // namespace tierlog::store
