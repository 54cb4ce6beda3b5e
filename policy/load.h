// policy/load.h - policy files -> PolicySet and findings. The only room that knows the APIs' fields.
//
//   *.yaml *.yml *.json --base/yaml.h--> trees --[load]--> PolicySet + Diagnostics
//
// Every kind is one row of a table in load.cpp (apiVersion, kind, reader), so a new API is a new file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/yaml.h"
#include "policy/model.h"

namespace tierlog::policy {

struct Loaded {
  PolicySet set;
  Diagnostics findings;  // with errors: `set` is incomplete and must not be enforced
  std::size_t files = 0;
};

struct SourceText {
  std::string file;
  std::string text;

  bool operator==(const SourceText&) const = default;
};

// The texts of files, and of folders (not recursive) in name order. What cannot be read is a finding.
std::vector<SourceText> read_texts(const std::vector<std::string>& paths, Diagnostics& findings);
// Texts as one set, whose findings name them as files.
Loaded load_texts(const std::vector<SourceText>& texts);
// Both, one after the other.
Loaded load_paths(const std::vector<std::string>& paths);
// One text, as if it were the file `name`.
Loaded load_text(std::string_view text, const std::string& name);
// Objects that are already trees (policies inside a test case).
Loaded load_trees(const std::vector<const yaml::Node*>& objects);

}  // namespace tierlog::policy
