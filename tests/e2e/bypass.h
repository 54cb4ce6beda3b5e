// Frames that once got past the rules, and a node with and one without enforcement to send them on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "lab/frames.h"
#include "lab/lab.h"

namespace tierlog::testing {

// Who is on the link, as a frame of the sender needs them. Plain bytes: it is filled in by other processes.
struct Link {
  lab::Mac sender, friendly, receiver, next_hop;  // next_hop: where frames for the receiver go
  IpAddr from, friends, to;                       // of the family
};

enum Modes : unsigned { kNowhere = 0, kPtp = 1, kBridge = 2, kEverywhere = 3 };
enum Families : unsigned { kV4Only = 1, kV6Only = 2, kBoth = 3 };

struct BypassCase {
  const char* name;
  Modes arrives;  // where the frame gets through a node that enforces nothing
  Families families;
  void (*shape)(lab::FrameSpec& frame, const Link& link);  // of an honest UDP frame to a denied port
  std::vector<RuleId> counted;  // one of these counts it; none: an ordinary rule, or nobody
  bool is_claim = false;        // no IP packet but an ARP reply or neighbour advertisement
};
const std::vector<BypassCase>& bypass_cases();

// A lab of three pods: t/mallory sends, t/friend may, t/victim receives.
Result<lab::Lab> bypass_lab(const std::string& cni, bool enforced, const std::string& folder);
std::string bypass_policy();

Link look_at(const lab::Lab& lab, Family family, const std::string& cni);
// Sends one frame of every case that exists in the family, then an honest sentinel; which ones arrived.
std::vector<bool> send_all(const lab::Lab& lab, const Link& link, Family family);
bool exists_in(const BypassCase& one, Family family);

// Kernel counters of reserved ids by number.
std::vector<std::uint64_t> reserved_counters(const lab::Lab& lab);

}  // namespace tierlog::testing
