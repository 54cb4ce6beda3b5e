#include "policy/not_ready.h"

namespace tierlog::policy {

void deny_everything(Program& program) {
  for (EndpointClass& endpoint_class : program.classes) {
    endpoint_class.tiers.clear();
    endpoint_class.fallback_action = Action::Deny;
    endpoint_class.fallback = endpoint_class.direction == Direction::Ingress ? reserved::kNotReadyIngress
                                                                             : reserved::kNotReadyEgress;
  }
}

}  // namespace tierlog::policy
