// daemon/inputs.h - what people give the daemon to enforce: policies and topology, as texts and as values.
//
//   files --read_inputs--> Inputs --> World --in force--> keep_inputs --> state.db
//                             ^--------- kept_inputs, when the files are bad at a start
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/result.h"
#include "base/time.h"
#include "daemon/config.h"
#include "endpoints/topology.h"
#include "policy/load.h"
#include "store/state_db.h"

namespace tierlog::daemon {

struct InputTexts {
  std::vector<policy::SourceText> policies;
  std::optional<policy::SourceText> topology;
  Diagnostics findings;  // of reading

  // Nothing was missed, and there is nothing in one that is not in the other.
  bool same_as(const InputTexts& other) const {
    return !findings.has_errors() && !other.findings.has_errors() && policies == other.policies &&
           topology == other.topology;
  }
};

struct Inputs {
  InputTexts texts;
  // What the texts say.
  policy::PolicySet policies;
  endpoints::Topology topology;
  Diagnostics warnings;
};

InputTexts read_texts(const Config& config);
// Errors: InvalidArgument with all findings, those of reading too, one a line.
Result<Inputs> understand(InputTexts texts);
// Both, one after the other.
Result<Inputs> read_inputs(const Config& config);

struct KeptInputs {
  Inputs inputs;
  WallTime since{};  // when they came into force
};

// Makes these texts the last good set. The same texts again keep their time, which is returned.
Result<WallTime> keep_inputs(store::StateDb& state, const Inputs& inputs, WallTime now);
// The last good set, if there ever was one. Errors: InvalidArgument (this program finds mistakes in it),
// Corrupt.
Result<std::optional<KeptInputs>> kept_inputs(store::StateDb& state);

}  // namespace tierlog::daemon
