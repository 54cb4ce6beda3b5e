#include "store/record.h"

namespace tierlog::store {

std::string_view name(Reporter reporter) {
  return reporter == Reporter::Source ? "src" : "dst";
}

std::string_view name(Verdict verdict) {
  return verdict == Verdict::Allow ? "allow" : "deny";
}

std::string_view name(PeerKind kind) {
  switch (kind) {
    case PeerKind::Pod:
      return "pod";
    case PeerKind::Node:
      return "node";
    case PeerKind::NetworkSet:
      return "networkset";
    case PeerKind::Private:
      return "private";
    case PeerKind::Public:
      return "public";
  }
  return "private";
}

std::string_view name(EndReason reason) {
  constexpr std::string_view kNames[] = {"", "finished", "reset", "timed-out", "unanswered"};
  return kNames[static_cast<std::size_t>(reason)];
}

}  // namespace tierlog::store
