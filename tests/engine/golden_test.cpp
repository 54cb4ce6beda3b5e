// The Program that the example policies compile to, against the stored text. After a wanted change:
//   TIERLOG_UPDATE_GOLDENS=1 build/dev/tests/engine_golden_test
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "endpoints/topology.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::policy {
namespace {

const std::string kRoot = TIERLOG_SOURCE_DIR;
const std::string kGolden = kRoot + "/tests/engine/golden/examples.txt";

std::string read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::string compiled_examples() {
  const Loaded loaded = load_paths({kRoot + "/examples/policies"});
  EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  const endpoints::LoadedTopology topology =
      endpoints::load_topology(kRoot + "/examples/topologies/tenants.yaml");
  EXPECT_FALSE(topology.findings.has_errors()) << topology.findings.to_string();
  MemoryRuleIds ids;
  const auto program = compile(loaded.set, std::make_shared<Cluster>(topology.topology.cluster), ids);
  EXPECT_TRUE(program);
  return program ? program->dump() : "";
}

TEST(Golden, ExamplePolicies) {
  const std::string actual = compiled_examples();
  if (std::getenv("TIERLOG_UPDATE_GOLDENS") != nullptr) std::ofstream(kGolden) << actual;
  std::istringstream expected_lines(read(kGolden)), actual_lines(actual);
  std::string expected_line, actual_line;
  for (int number = 1;; ++number) {
    const bool more = static_cast<bool>(std::getline(expected_lines, expected_line));
    ASSERT_EQ(static_cast<bool>(std::getline(actual_lines, actual_line)), more) << kGolden << ":" << number;
    if (!more) break;
    ASSERT_EQ(actual_line, expected_line) << kGolden << ":" << number;
  }
}

TEST(Golden, EverySelectorOfTheExamplesSelectsSomething) {
  EXPECT_EQ(compiled_examples().find(" selects 0"), std::string::npos);
}

}  // namespace
}  // namespace tierlog::policy
