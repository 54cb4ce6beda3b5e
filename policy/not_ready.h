// policy/not_ready.h - the Program of a node that has no good policy set yet.
//
//   daemon/ (at a start without one), query/moment.h (the same, looked back at)
#pragma once

#include "policy/program.h"

namespace tierlog::policy {

// Every class denies at once, under the reserved ids not-ready.
void deny_everything(Program& program);

}  // namespace tierlog::policy
