// dataplane/ebpf/encode_class.h - one endpoint class as an object of the arena (layout.h, struct tl_class).
//
//   policy/program.h class --cells.h--> positions --[encode_class]--> Blob --> arena
//
// Every cell gets a bit position. Positions are no order: what lies together is what is asked together, so
// that a packet touches few words of 64; inside a word they ascend by priority, and the walk takes the best
// of the words. Log rules have words of their own, by priority
// (docs/decisions/0025-ebpf-classes-are-data.md).
#pragma once

#include <functional>

#include "base/result.h"
#include "dataplane/ebpf/blob.h"
#include "dataplane/ebpf/cells.h"
#include "dataplane/ebpf/limits.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

// Where a rule counts. Errors: no slot is left.
using SlotOf = std::function<Result<std::uint32_t>(RuleId)>;

struct EncodedClass {
  Blob blob;  // its generation is 0
  std::uint32_t positions = 0;
};

// Errors: InvalidArgument with the limit, the number and the policy that is beyond it.
Result<EncodedClass> encode_class(const policy::Program& program, std::uint32_t endpoint_class,
                                  GroupNumbers& groups, const SlotOf& slot_of, const Limits& limits = {});

}  // namespace tierlog::dataplane::ebpf
