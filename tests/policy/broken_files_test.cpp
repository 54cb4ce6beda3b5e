// Each broken/NAME.yaml (or .json) and, word for word, all its findings in broken/NAME.expected.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "policy/load.h"

namespace tierlog::policy {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(TIERLOG_SOURCE_DIR) / "tests" / "policy" / "broken";

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> broken_files() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder))
    if (entry.path().extension() != ".expected") names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class BrokenFile : public testing::TestWithParam<std::string> {};

TEST_P(BrokenFile, GivesAllItsFindings) {
  const fs::path path = kFolder / GetParam();
  fs::path expected = path;
  expected.replace_extension(".expected");
  const Loaded loaded = load_text(content(path), GetParam());
  EXPECT_TRUE(loaded.findings.has_errors());
  EXPECT_EQ(loaded.findings.to_string(), content(expected));
}

INSTANTIATE_TEST_SUITE_P(Files, BrokenFile, testing::ValuesIn(broken_files()), [](const auto& param) {
  std::string name = param.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

TEST(BrokenFiles, AreAtLeastThirty) {
  EXPECT_GE(broken_files().size(), 30u);
}

}  // namespace
}  // namespace tierlog::policy
