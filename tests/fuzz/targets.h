// tests/fuzz/targets.h - what reads other people's bytes, one function a reader: libFuzzer calls it with
// inputs of its own (preset fuzz), the corpus test with those that are kept (tests/fuzz/corpus/NAME).
#pragma once

#include <string_view>

namespace tierlog::fuzz {

// Each must neither crash nor hang, whatever the bytes are; some check what they got.
void policies(std::string_view bytes);  // YAML -> policy set -> lint
void selector(std::string_view bytes);  // text -> selector; its canonical form reads back as itself
void cni(std::string_view bytes);       // the plugin's configuration on stdin
void cases(std::string_view bytes);     // policy test cases with their topologies
void answers(std::string_view bytes);   // what a Forward receiver says: HELO, PONG, acks

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
};
inline constexpr Target kTargets[] = {{"policies", policies}, {"selector", selector}, {"cni", cni}, {"cases", cases}, {"answers", answers}};

}  // namespace tierlog::fuzz
