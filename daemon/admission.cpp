#include "daemon/admission.h"

#include <algorithm>
#include <array>

namespace tierlog::daemon {
namespace {

using store::RegisteredEndpoint;

std::string shown(const RegisteredEndpoint& pod) {
  return pod.endpoint_namespace + "/" + pod.name;
}

struct NoPods {
  const char* prefix;
  const char* what;
};
constexpr std::array kNoPods{NoPods{"0.0.0.0/8", "no host's address"},
                             NoPods{"127.0.0.0/8", "a loopback address"},
                             NoPods{"224.0.0.0/4", "a multicast address"},
                             NoPods{"255.255.255.255/32", "the broadcast address"},
                             NoPods{"::/128", "no host's address"},
                             NoPods{"::1/128", "the loopback address"},
                             NoPods{"::ffff:0.0.0.0/96", "an IPv4 address in IPv6 clothes"},
                             NoPods{"ff00::/8", "a multicast address"}};

// What `address` is when no pod can have it; "" otherwise.
std::string why_no_pods(const IpAddr& address, const HostView& host) {
  for (const NoPods& kind : kNoPods)
    if (const auto prefix = Cidr::parse(kind.prefix);
        prefix && prefix->address.family == address.family && prefix->contains(address))
      return kind.what;
  const auto own = host.addresses();
  return std::ranges::find(own, address) == own.end() ? "" : "an address of this node";
}

// A veth is gone with its other end. One of that name may be another pod's by now: then what is left of
// the old one, if anything, is its network namespace.
bool lives(const RegisteredEndpoint& old, const RegisteredEndpoint& fresh, const HostView& host) {
  if (old.host_interface != fresh.host_interface) return host.has_interface(old.host_interface);
  return old.netns != fresh.netns && host.has_netns(old.netns);
}

std::string refusal(const RegisteredEndpoint& fresh, const std::string& what, const RegisteredEndpoint& other) {
  return shown(fresh) + " cannot be enforced: " + what + " is that of " + shown(other) + " (container " +
         other.container_id + "), which is still there; expected one of its own, or DEL of the other first";
}

// Errors: the two cannot both be enforced. True: the old one is gone.
Result<bool> supersedes(const RegisteredEndpoint& fresh, const RegisteredEndpoint& old, const HostView& host) {
  if (old.container_id == fresh.container_id && old.ifname == fresh.ifname) return true;
  const auto shared = std::ranges::find_first_of(fresh.addresses, old.addresses);
  const bool same_address = shared != fresh.addresses.end();
  if (!same_address && old.host_interface != fresh.host_interface) return false;
  if (!lives(old, fresh, host)) return true;
  return fail(ErrorCode::Refused,
              refusal(fresh, same_address ? "address " + *shared : "interface " + fresh.host_interface, old));
}

Result<void> check_alone(const RegisteredEndpoint& fresh, const HostView& host) {
  if (!host.has_interface(fresh.host_interface))
    return fail(ErrorCode::InvalidArgument, shown(fresh) + " cannot be enforced: interface \"" + fresh.host_interface +
                                                "\" is not in the network namespace of tierlogd; expected the host's "
                                                "end of the pod's interface");
  if (fresh.addresses.empty())
    return fail(ErrorCode::InvalidArgument, shown(fresh) + " cannot be enforced: it has no address; expected one");
  for (const std::string& text : fresh.addresses) {
    const auto address = IpAddr::parse(text);
    const std::string why = address ? why_no_pods(*address, host) : "no IP address";
    if (!why.empty())
      return fail(ErrorCode::InvalidArgument,
                  shown(fresh) + " cannot be enforced: " + text + " is " + why + "; expected an address of the pod");
  }
  return {};
}

Result<void> check_elsewhere(const RegisteredEndpoint& fresh, const std::vector<policy::Endpoint>& known,
                             const std::string& node) {
  for (const policy::Endpoint& other : known) {
    if (other.node.empty() || other.node == node || other.display() == shown(fresh)) continue;
    for (const IpAddr& address : other.addresses)
      if (std::ranges::find(fresh.addresses, address.to_string()) != fresh.addresses.end())
        return fail(ErrorCode::Refused, shown(fresh) + " cannot be enforced: address " + address.to_string() +
                                            " is that of " + other.display() + " on node " + other.node +
                                            "; expected one of its own");
  }
  return {};
}

// Compared as texts: of one address there is one.
RegisteredEndpoint canonical(RegisteredEndpoint pod) {
  for (std::string& text : pod.addresses)
    if (const auto address = IpAddr::parse(text)) text = address->to_string();
  return pod;
}

}  // namespace

Result<std::vector<RegisteredEndpoint>> admit(const RegisteredEndpoint& given,
                                              const std::vector<RegisteredEndpoint>& registered,
                                              const std::vector<policy::Endpoint>& known, const std::string& node,
                                              const HostView& host) {
  const RegisteredEndpoint fresh = canonical(given);
  TL_TRY(check_alone(fresh, host));
  TL_TRY(check_elsewhere(fresh, known, node));
  std::vector<RegisteredEndpoint> superseded;
  for (const RegisteredEndpoint& old : registered) {
    TL_ASSIGN(const bool gone, supersedes(fresh, canonical(old), host));
    if (gone) superseded.push_back(old);
  }
  return superseded;
}

}  // namespace tierlog::daemon
