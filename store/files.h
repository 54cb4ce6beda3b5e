// store/files.h - files of ours with the owner and mode they must have before SQLite opens them.
//
// SQLite gives -wal and -shm the mode and owner of the database file, so that one decides for all three.
#pragma once

#include <string>

#include "base/result.h"

namespace tierlog::store {

// Mode 0600, for state.db.
Result<void> create_private_file(const std::string& path);
// Mode 0640, group of the folder or `tierlog`; an existing database keeps what it has.
Result<void> create_readable_file(const std::string& path);

}  // namespace tierlog::store
