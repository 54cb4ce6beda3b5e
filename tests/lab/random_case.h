// tests/lab/random_case.h - random worlds as test cases: what a user could have written, in any mixture.
//
//   seed --> topology --+--> case: policies of every kind, checks --(JSON text)--> lab::load_cases_text
// The cases are JSON and not the engine's own values, so that what fails can be made smaller by leaving
// out parts of the file, and kept as a file. The expectations in them mean nothing: whoever runs a case
// compares evaluators and kernels with each other.
#pragma once

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace tierlog::lab::test {

using Json = nlohmann::ordered_json;

class Dice {
 public:
  explicit Dice(unsigned seed) : engine_(seed) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<unsigned>(n)); }
  bool one_in(int n) { return below(n) == 0; }
  template <typename T>
  const T& of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }

 private:
  std::mt19937 engine_;
};

// Pods of three namespaces with one or both families, ports, labels, accounts; network sets, nodes, a
// Service.
Json random_topology(Dice& dice);
// Policies and `checks` checks in that topology.
Json random_case(Dice& dice, const Json& topology, const std::string& id, int checks);

}  // namespace tierlog::lab::test
