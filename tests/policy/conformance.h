// tests/policy/conformance.h - where the cases of upstream's suites lie: TIERLOG_CONFORMANCE_DIR, else shared/conformance
// beside the sources. Not every clone has them: who needs them skips, naming the place.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tierlog::conformance {

inline std::string file(const std::string& name) {
  const char* given = std::getenv("TIERLOG_CONFORMANCE_DIR");
  const std::filesystem::path folder =
      given != nullptr ? std::filesystem::path(given) : std::filesystem::path(TIERLOG_SOURCE_DIR) / "../shared/conformance";
  return (folder / name).lexically_normal().string();
}

inline std::string missing(const std::string& path) {
  return "no conformance cases at " + path + "; TIERLOG_CONFORMANCE_DIR names their folder";
}

}  // namespace tierlog::conformance
