// cli/target.h - where a command looks: which flow database, which daemon's socket.
//
//   --db / --socket, else TIERLOG_DB / TIERLOG_SOCKET, else the running lab, else the node's own
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/command.h"
#include "store/query.h"

namespace tierlog::cli {

struct TargetOptions {
  std::string db, socket, lab;
};

inline constexpr const char* kDefaultDatabase = "/var/lib/tierlog/flows.db";

// Adds --db, --socket and --lab as far as the command uses them.
void add_database_options(std::vector<Option>& options, TargetOptions& target);
void add_socket_options(std::vector<Option>& options, TargetOptions& target);

// A path, and whether somebody named it or it is what the node has by default.
struct Place {
  std::string path;
  enum class From { Option, Variable, Lab, Default } from = From::Default;
};

// Which lab is used is said on stderr. Errors: NotFound (--lab names none), InvalidArgument (several labs).
Result<Place> find_database(const TargetOptions& target);
Result<Place> find_socket(const TargetOptions& target);

// Opens the database of `find_database`; its absence says what to do.
Result<store::FlowReader> open_database(const TargetOptions& target);

// The name of the lab to use: `wanted`, else the only one, else "default". Errors as above; NotFound also
// when none is up.
Result<std::string> choose_lab(const std::string& wanted);

}  // namespace tierlog::cli
