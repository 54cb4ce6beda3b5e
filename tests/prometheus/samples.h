// tests/prometheus/samples.h - an answer of /metrics read back: strictly, so that what Prometheus would
// refuse fails.
#pragma once

#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace tierlog::testing {

using Labels = std::map<std::string, std::string>;

struct Sample {
  std::string name;
  Labels labels;
  double value = 0;
};

class Samples {
 public:
  // Throws std::runtime_error for a line that is none.
  explicit Samples(const std::string& text);

  const std::vector<Sample>& all() const { return all_; }
  std::string type_of(const std::string& family) const;
  // Those whose labels hold all of `wanted`.
  std::vector<Sample> find(const std::string& name, const Labels& wanted = {}) const;
  // Their sum; nothing when there is none.
  std::optional<double> value(const std::string& name, const Labels& wanted = {}) const;

 private:
  std::vector<Sample> all_;
  std::map<std::string, std::string> types_;
};

}  // namespace tierlog::testing
