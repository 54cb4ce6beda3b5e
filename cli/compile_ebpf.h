// cli/compile_ebpf.h - `tierlog compile --via ebpf`: the objects that the eBPF programs would read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/limits.h"
#include "policy/program.h"

namespace tierlog::cli {

// The words of 64 positions that one tier of a class takes, and whose matches lie there, in order.
struct EbpfTier {
  std::string tier;
  std::uint32_t first_word = 0, words = 0, log_words = 0;
  std::vector<RuleId> positions;  // by position, without padding; Log rules last
  RuleId end{};                   // None: the tier has no end
};
struct EbpfClass {
  std::uint32_t index = 0;
  std::string direction;
  std::vector<std::string> endpoints;  // "ns/pod"
  std::uint32_t bytes = 0;
  std::vector<EbpfTier> tiers;
  RuleId fallback{};
};
struct EbpfObjects {
  std::vector<EbpfClass> classes;  // those that an endpoint has
  std::uint32_t address_bytes = 0;
};

// Errors: InvalidArgument with the limit that is passed.
Result<EbpfObjects> ebpf_objects(const policy::Program& program, const dataplane::ebpf::Limits& limits);
std::string text_of(const EbpfObjects& objects);

}  // namespace tierlog::cli
