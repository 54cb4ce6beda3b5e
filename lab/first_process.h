// lab/first_process.h - the process that is the lab: pid 1 of its pid namespace, owner of its node.
//
//   caller --> keeper --unshare mount, net, pid--> [first process]: reaps, and waits to be killed
// Its network namespace is the node's. With its end the kernel ends every process of the lab, and with
// them all its namespaces, links, mounts and rules. WithCaller: caller, keeper and first process die in
// a row. UntilDown: the keeper leaves at once, and the first process lives on once it is released; until
// then it ends with its maker too, so that a lab that was never finished does not stay.
#pragma once

#include "base/result.h"
#include "lab/lab.h"
#include "lab/mounts.h"
#include "lab/process.h"
#include "lab/report.h"

namespace tierlog::lab {

struct FirstProcess {
  ProcessId id;
  pid_t keeper = 0;  // the caller's child, to be waited for when the first process has ended; 0: none
};

struct StartedFirst {
  FirstProcess process;
  Report tether;  // the lab ends with it, unless it is released
};

Result<StartedFirst> start_first_process(LabOptions::Life life, const MountPlan& mounts);
// Kills it and waits until all of the lab is gone.
Result<void> end_first_process(const FirstProcess& first);

}  // namespace tierlog::lab
