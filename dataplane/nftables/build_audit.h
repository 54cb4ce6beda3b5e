// dataplane/nftables/build_audit.h - endpoints that are audited on a node that enforces.
//
// Their verdicts are given before all other engines' hooks, in base chains of their own, counted and told
// like any other, and carried out by nobody. Who they talk with is judged as ever:
// docs/decisions/0016-audited-namespaces.md.
#pragma once

#include "dataplane/nftables/build.h"

namespace tierlog::dataplane::nftables {

inline constexpr std::int32_t kBeforeOthers = -10;  // filter - 10

// "audit_eg4": the map of the audited among what "eg4" is for the enforced.
std::string audited_name(const std::string& set);

// Whether the Program has endpoints that are audited while others are not.
bool audits_some(const policy::Program& program, const TableOptions& options);

// Adds to the objects of a whole table what the audited endpoints need; every denial asks whom it is about.
void add_audit(TableObjects& objects, const policy::Program& program, const TableOptions& options);

}  // namespace tierlog::dataplane::nftables
