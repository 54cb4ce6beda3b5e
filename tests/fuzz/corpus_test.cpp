// The kept inputs of the fuzzers, and some thousand damaged copies of them, through the same functions. The damage
// is the same in every run; what libFuzzer finds on its own (docs/adding.md) is kept as one more input.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/targets.h"

namespace tierlog::fuzz {
namespace {

constexpr int kDamagedCopies = 60;  // of each input

std::vector<std::string> corpus_of(const std::string& target) {
  std::vector<std::string> paths, inputs;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(TIERLOG_SOURCE_DIR) + "/tests/fuzz/corpus/" + target))
    paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// Cuts, doubles, swaps and overwrites bytes, as fuzzers do.
std::string damaged(std::string text, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? std::size_t{0} : static_cast<std::size_t>(random() % n); };
  const std::string odd = std::string("{}[]&*!|>\"'%@`:,-#?\n\t\0\xff\xc3()=", 27);
  for (std::size_t i = 0, times = 1 + below(6); i < times && !text.empty(); ++i) {
    const std::size_t at = below(text.size());
    switch (below(5)) {
      case 0:
        text[at] = odd[below(odd.size())];
        break;
      case 1:
        text.erase(at, 1 + below(20));
        break;
      case 2:
        text.insert(at, text.substr(below(text.size()), 1 + below(40)));
        break;
      case 3:
        text.resize(at);
        break;
      default:
        std::swap(text[at], text[below(text.size())]);
    }
  }
  return text;
}

class Corpus : public testing::TestWithParam<Target> {};

TEST_P(Corpus, NeitherCrashesNorHangs) {
  const Target target = GetParam();
  const auto inputs = corpus_of(target.name);
  ASSERT_GE(inputs.size(), 3u) << "the corpus is kept in the tree";
  std::mt19937 random(4);
  for (const std::string& input : inputs) {
    target.run(input);
    for (int i = 0; i < kDamagedCopies; ++i) target.run(damaged(input, random));
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Corpus, testing::ValuesIn(kTargets),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace tierlog::fuzz
