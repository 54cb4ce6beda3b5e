#include "daemon/privileges.h"

#include <cap-ng.h>
#include <sys/prctl.h>

#include <cerrno>
#include <vector>

namespace tierlog::daemon {
namespace {

// The rules, logs, connection tracking and the switches below /proc/sys/net.
constexpr unsigned kNetwork = CAP_NET_ADMIN;
// Policy files wherever root can read them: a home folder, another user's checkout.
constexpr unsigned kFiles = CAP_DAC_READ_SEARCH;
// Maps of the eBPF data plane; libcap-ng knows no name where headers are older than 5.8.
constexpr unsigned kBpf = 39;

}  // namespace

Result<void> drop_privileges(MayUseBpf bpf) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return fail(Error::from_errno(errno, "set", "no_new_privs"));
  if (capng_get_caps_process() < 0)
    return fail(Error::from_errno(errno, "read", "the process's capabilities"));
  std::vector<unsigned> wanted{kNetwork, kFiles};
  if (bpf == MayUseBpf::Yes) wanted.push_back(kBpf);
  std::vector<bool> had(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    had[i] = capng_have_capability(CAPNG_PERMITTED, wanted[i]) != 0;
  // Without CAP_SETPCAP the bounding set cannot shrink; no_new_privs makes that harmless.
  const bool bounds = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
  capng_clear(bounds ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (had[i])
      capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED), wanted[i]);
  if (capng_apply(bounds ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) < 0)
    return fail(Error::from_errno(errno, "drop", "capabilities"));
  return {};
}

std::string effective_capabilities() {
  if (capng_get_caps_process() < 0) return "unknown";
  std::string names;
  for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (capng_have_capability(CAPNG_EFFECTIVE, capability) == 0) continue;
    const char* name = capng_capability_to_name(capability);
    names += (names.empty() ? "" : ", ") + (name == nullptr ? std::to_string(capability) : std::string(name));
  }
  return names.empty() ? "none" : names;
}

}  // namespace tierlog::daemon
