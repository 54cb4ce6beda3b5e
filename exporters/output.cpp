#include "exporters/output.h"

namespace tierlog::exporters {

std::string_view name(FailureCause cause) {
  static constexpr std::array<std::string_view, kFailureCauses> kNames{
      "connect", "tls", "handshake", "send", "no-answer", "closed", "wrong-answer", "disk", "index"};
  return kNames.at(static_cast<std::size_t>(cause));
}

}  // namespace tierlog::exporters
