// base/diagnostics.h - what is wrong with a user's file: every finding, each with its place.
//
// A parser of user input collects findings and goes on; its caller prints all of them and exits 2 if one
// is an error. Text: "FILE:LINE:COL: what is wrong; what was expected", warnings with "warning: " before
// the message. LINE and COL are 1-based, COL counts bytes; 0 = the finding has no place in the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tierlog {

struct SourceRef {
  std::string file;
  int line = 0;
  int column = 0;

  std::string to_string() const;  // "FILE:LINE:COL", shorter where parts are unknown
  bool operator==(const SourceRef&) const = default;
};

enum class Severity { Error, Warning };

struct Diagnostic {
  Severity severity = Severity::Error;
  SourceRef place;
  std::string message;

  std::string to_string() const;
  bool operator==(const Diagnostic&) const = default;
};

class Diagnostics {
 public:
  void error(SourceRef place, std::string message);
  void warning(SourceRef place, std::string message);
  void add(const Diagnostics& other);

  const std::vector<Diagnostic>& all() const { return all_; }
  bool has_errors() const { return errors_ > 0; }
  std::size_t errors() const { return errors_; }
  std::size_t warnings() const { return all_.size() - errors_; }
  // By file, line, column; equal findings once.
  void sort();
  std::string to_string() const;  // one line a finding, each ended by a newline

 private:
  std::vector<Diagnostic> all_;
  std::size_t errors_ = 0;
};

// The candidate nearest to `word` by edit distance (case does not count), empty when none is near enough
// to be a typing error.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace tierlog
