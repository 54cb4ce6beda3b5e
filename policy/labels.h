// policy/labels.h - labels, and the names under which selectors see what is no label of its own.
//
// An endpoint's *effective* labels (policy/cluster.h, effective_labels) are its own plus, as in Calico:
// projectcalico.org/{name,namespace,orchestrator,serviceaccount}, its namespace's labels under "pcns."
// and its service account's under "pcsa.". Every selector in policy/model.h is written against those.
#pragma once

#include <map>
#include <string>

namespace tierlog::policy {

using Labels = std::map<std::string, std::string, std::less<>>;

namespace label {
inline constexpr const char* kName = "projectcalico.org/name";
inline constexpr const char* kNamespace = "projectcalico.org/namespace";
inline constexpr const char* kOrchestrator = "projectcalico.org/orchestrator";  // "k8s" on pods
inline constexpr const char* kServiceAccount = "projectcalico.org/serviceaccount";
inline constexpr const char* kKubernetesNamespaceName = "kubernetes.io/metadata.name";
inline constexpr const char* kNamespacePrefix = "pcns.";
inline constexpr const char* kServiceAccountPrefix = "pcsa.";
}  // namespace label

}  // namespace tierlog::policy
