// tests/lab/shrink.h - the smallest JSON value that still is what it was: what is left of a failure when
// everything that has no part in it is taken away.
#pragma once

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

namespace tierlog::lab::test {

// Leaves out list items (halves first) and fields, outermost first, as long as `is_bad` holds; what makes
// the value meaningless must make it false. Ends at a value of which nothing can be left out, or after
// `at_most`.
nlohmann::ordered_json shrink(nlohmann::ordered_json value,
                              const std::function<bool(const nlohmann::ordered_json&)>& is_bad,
                              std::chrono::seconds at_most);

}  // namespace tierlog::lab::test
