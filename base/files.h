// base/files.h - reading whole files and listing folders: never waits, never throws.
//
// Whoever can put a name into a folder that is read can make it a pipe without a writer, a device
// without an end or a link to itself. Only regular files are read (links are followed).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"

namespace tierlog {

// The bytes of the file at `path`; of one that is larger than `max_bytes` its first max_bytes + 1. A
// pipe or terminal is read only as a descriptor that the caller was started with (/dev/stdin, /dev/fd/N).
// Errors: InvalidArgument "is a named pipe; expected a regular file" (without the path), or as
// Error::from_errno says it.
Result<std::string> read_file(const std::string& path, std::size_t max_bytes);

// The names in a folder, sorted. Errors: as Error::from_errno says them.
Result<std::vector<std::string>> names_in(const std::string& folder);

// Paths of what is called *.yaml, *.yml or *.json in a folder and is no folder itself, sorted.
Result<std::vector<std::string>> yaml_files_in(const std::string& folder);

}  // namespace tierlog
