// dataplane/conntrack_settings.h - the kernel's conntrack switches that the daemon owns.
//
// Without nf_conntrack_acct there are no bytes; with nf_conntrack_events at its default (2) a connection
// that began while nobody listened never tells its end; nf_conntrack_timestamp gives times, nothing depends
// on it. All are per network namespace and may be set back by anybody's sysctl: check them now and then.
#pragma once

#include <string>
#include <vector>

namespace tierlog::dataplane {

// A switch that did not stand as it must.
struct SettingChange {
  std::string name;     // net.netfilter.nf_conntrack_acct
  std::string was;      // empty when it could not be read
  std::string wanted;   //
  std::string problem;  // empty: it is set now; else why not ("open …: EROFS: …")
  bool required = true;
};

// Reads each switch of this thread's network namespace and sets those that stand otherwise.
std::vector<SettingChange> set_conntrack_switches();

}  // namespace tierlog::dataplane
