// store/schema.h - the tables and views of flows.db, and how a file comes to have them.
//
// Tables hold integers and references into dictionaries (peer, rule_revision, text: written once, never
// changed); the views give them the record's names. Only the views are an interface: see docs/sql.md.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "store/sqlite.h"

namespace tierlog::store {

inline constexpr std::int64_t kApplicationId = 0x546c6f67;  // "Tlog", in the file's header

// The reference to "[]" in table `text`, there from the beginning.
inline constexpr std::int64_t kEmptyListText = 1;

// That the file is empty or ours; reads only. Errors: Corrupt (another program's, or no database), Io.
Result<void> refuse_foreign(sqlite::Database& database, const std::string& path);

// SELECT of the addresses that pods of this node have or had, by the history of endpoints.
extern const char* const kLocalAddresses;

// Brings an opened file that is not foreign to kSchemaVersion: makes the schema in an empty file,
// migrates an older one. Errors: Corrupt (a newer schema), Io.
Result<void> migrate(sqlite::Database& database, const std::string& path);

// That the file is a flow index of this version. Errors: Corrupt.
Result<void> check_schema(sqlite::Database& database, const std::string& path);

}  // namespace tierlog::store
