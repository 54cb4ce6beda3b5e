#include "policy/load.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/files.h"
#include "policy/load_kinds.h"

namespace tierlog::policy {
namespace {

namespace fs = std::filesystem;
using yaml::Fields;
using yaml::Node;

const std::vector<KindRow>& kinds() {
  static const std::vector<KindRow> all = [] {
    std::vector<KindRow> rows = calico_kinds();
    for (const auto& family : {kubernetes_kinds(), admin_kinds(), core_kinds(), host_kinds()})
      rows.insert(rows.end(), family.begin(), family.end());
    return rows;
  }();
  return all;
}

const KindRow* find_kind(const std::string& api_version, const std::string& kind) {
  for (const KindRow& row : kinds())
    if (row.kind == kind &&
        std::find(row.api_versions.begin(), row.api_versions.end(), api_version) != row.api_versions.end())
      return &row;
  return nullptr;
}

// The API versions under which a kind is read.
std::vector<std::string> versions_of(const std::string& kind) {
  std::vector<std::string> versions;
  for (const KindRow& row : kinds())
    if (row.kind == kind) versions.insert(versions.end(), row.api_versions.begin(), row.api_versions.end());
  return versions;
}

// Without such an object verdicts would be others: a policy of whatever group, and what Calico's policies
// need.
bool is_missed(const std::string& api_version, const std::string& kind) {
  const std::string group = api_version.substr(0, api_version.find('/'));
  return kind.ends_with("NetworkPolicy") || group == "projectcalico.org" || group == "crd.projectcalico.org";
}

// Objects that are no policies may stand in the same files, so a kind we do not know is no error.
std::string skipped_text(const std::string& api_version, const std::string& kind) {
  std::vector<std::string> names;
  for (const KindRow& row : kinds())
    if (std::find(row.api_versions.begin(), row.api_versions.end(), api_version) != row.api_versions.end())
      names.push_back(row.kind);
  if (kind == "Profile")
    return "kind \"Profile\" of " + api_version +
           " is not read and skipped: what no policy decides about a pod is allowed, as by its namespace's profile";
  const std::string near = nearest(kind, names);
  return "kind \"" + kind + "\" of " + api_version + " is no policy and skipped" +
         (near.empty() ? "" : " (did you mean " + near + "?)");
}

void report_unread(const Node& object, const std::string& api_version, const std::string& kind,
                   Diagnostics& findings) {
  const std::vector<std::string> versions = versions_of(kind);
  if (versions.empty()) return findings.warning(object.find("kind")->place, skipped_text(api_version, kind));
  const std::string text = "apiVersion \"" + api_version + "\" of " + kind + " is not read";
  if (is_missed(api_version, kind))
    findings.error(object.find("apiVersion")->place, text + "; expected " + yaml::one_of(versions));
  else
    findings.warning(object.find("kind")->place,
                     text + " and the object skipped; expected " + yaml::one_of(versions));
}

// Words that YAML 1.1 takes for booleans, and with it kubectl, and YAML 1.2 for text.
void warn_of_old_booleans(const Node& node, Diagnostics& findings) {
  static const std::set<std::string, std::less<>> words = {
      "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"};
  const auto look_at = [&](const Node& scalar) {
    if (scalar.kind == yaml::Kind::Scalar && !scalar.quoted && words.contains(scalar.text))
      findings.warning(scalar.place,
                       "\"" + scalar.text +
                           "\" without quotes is a boolean to kubectl, which refuses it or reads "
                           "another text; expected it in quotes");
  };
  look_at(node);
  for (const Node& item : node.items) warn_of_old_booleans(item, findings);
  for (const auto& [key, value] : node.entries) {
    look_at(key);
    warn_of_old_booleans(value, findings);
  }
}

void read_known(const KindRow& row, const Node& object, LoadContext& context) {
  row.read(object, context);
  warn_of_old_booleans(object, context.findings);
}

void read_object(const Node& object, LoadContext& context);

// "List" and "NetworkPolicyList": the items of the latter need not repeat what they are.
void read_list(const Node& object, const std::string& api_version, const std::string& kind,
               LoadContext& context) {
  Fields fields(object, "a " + kind, context.findings);
  fields.accept({"apiVersion", "kind", "metadata"});
  for (const Node* item : fields.list("items")) {
    const std::string item_kind = kind.substr(0, kind.size() - 4);
    const KindRow* row = item->find("kind") == nullptr ? find_kind(api_version, item_kind) : nullptr;
    if (row != nullptr)
      read_known(*row, *item, context);
    else
      read_object(*item, context);
  }
}

void read_object(const Node& object, LoadContext& context) {
  std::optional<std::string> api_version, kind;
  const KindRow* row = nullptr;
  {
    Fields fields(object, "an object", context.findings);
    if (!fields.is_map()) return;
    api_version = fields.require_string("apiVersion");
    kind = fields.require_string("kind");
    // The other fields are checked by the kind's own reader.
    for (const auto& entry : object.entries) fields.accept({entry.first.text});
  }
  if (!api_version || !kind) return;
  row = find_kind(*api_version, *kind);
  if (row != nullptr) return read_known(*row, object, context);
  if (kind->ends_with("List") && object.find("items") != nullptr)
    return read_list(object, *api_version, *kind, context);
  report_unread(object, *api_version, *kind, context.findings);
}

// An object, or a list of objects as calicoctl takes it.
void read_document(const Node& document, LoadContext& context) {
  if (document.kind != yaml::Kind::Sequence) return read_object(document, context);
  for (const Node& item : document.items) read_object(item, context);
}

LoadContext new_context() {
  LoadContext context;
  context.set.tiers = builtin_tiers();
  return context;
}

Loaded finish(LoadContext context, std::size_t files) {
  PolicySet& set = context.set;
  std::set<std::string> named;
  for (const Tier& tier : set.tiers) named.insert(tier.name);
  for (const Policy& policy : set.policies)
    if (named.insert(policy.tier).second)
      set.tiers.push_back({policy.tier, kNoOrder, Action::Deny, false, policy.source});
  sort_tiers(set.tiers);
  const ClusterObjects& objects = context.objects;
  if (!objects.pods.empty() || !objects.service_accounts.empty() || !objects.nodes.empty() ||
      !objects.services.empty() || !objects.selecting_services.empty() || !objects.host_endpoints.empty())
    set.objects = std::make_shared<const ClusterObjects>(std::move(context.objects));
  context.findings.sort();
  return {std::move(set), std::move(context.findings), files};
}

void read_documents(const yaml::Documents& documents, LoadContext& context) {
  context.findings.add(documents.findings);
  for (const Node& document : documents.documents) read_document(document, context);
}

// The policy files of a folder in name order.
std::vector<std::string> files_in(const std::string& folder, Diagnostics& findings) {
  auto files = yaml_files_in(folder);
  if (!files) {
    findings.error({folder, 0, 0},
                   "cannot be read: " + std::generic_category().message(files.error().errno_value) +
                       "; expected a folder of policy files");
    return {};
  }
  if (files->empty())
    findings.warning({folder, 0, 0}, "no policy files in this folder; expected *.yaml, *.yml or *.json");
  return std::move(*files);
}

void read_namespace(Fields& metadata, const MetaRules& rules, Meta& meta) {
  const auto text = metadata.string("namespace");
  if (!rules.namespaced) {
    if (text && !text->empty())
      metadata.findings().error(metadata.place_of("namespace"),
                                "a " + rules.kind + " has no namespace; expected no such field");
    return;
  }
  meta.object_namespace = text && !text->empty() ? *text : "default";
  if (!metadata.has("namespace"))
    metadata.findings().warning(metadata.node().place,
                                "no namespace; \"default\" is taken (write it as metadata.namespace)");
  else if (text && !check_name(meta.object_namespace, false, metadata.node().find("namespace")->place,
                               metadata.findings()))
    meta.valid = false;
}

}  // namespace

void read_annotations(Fields& metadata, const MetaRules& rules, Meta& meta) {
  const Node* annotations = metadata.map("annotations");
  if (annotations == nullptr) return;
  static const std::vector<std::string> known = {"tierlog.io/log", "tierlog.io/log-label",
                                                 "tierlog.io/log-rate", "tierlog.io/enforcement"};
  Diagnostics& findings = metadata.findings();
  for (const auto& [key, value] : annotations->entries) {
    if (value.is_null()) continue;
    const auto text = yaml::read_string(value, "annotation " + key.text, findings);
    if (!key.text.starts_with("tierlog.io/") || !text) continue;
    if (key.text == known[0] && rules.has_log) {
      const std::vector<std::string> words = {"deny", "allow", "all"};
      const auto at = std::find(words.begin(), words.end(), *text);
      if (at == words.end())
        findings.error(value.place, yaml::unknown_word(known[0], *text, words));
      else
        meta.log_decisions = static_cast<LogDecisions>(at - words.begin() + 1);
    } else if (key.text == known[1] && rules.has_log_label) {
      if (text->empty() || text->size() > 128 || text->find_first_of("\n\r\t") != std::string::npos)
        findings.error(value.place, known[1] + " is no label; expected one line of 1 to 128 characters");
      else
        meta.log_label = *text;
    } else if (key.text == known[2] && rules.has_log_label) {
      meta.log_rate = LogRate::parse(*text);
      if (!meta.log_rate)
        findings.error(value.place, known[2] + " \"" + *text +
                                        "\" is no rate; expected messages per second, minute, hour or day, "
                                        "such as 10/s or 100/m");
    } else if (key.text == known[3] && rules.has_enforcement) {
      if (*text != "audit" && *text != "enforce")
        findings.error(value.place, yaml::unknown_word(known[3], *text, {"enforce", "audit"}));
      meta.audited = *text == "audit";
    } else if (key.text == known[3]) {
      findings.error(key.place, known[3] + " has no meaning on a " + rules.kind + "; expected it on a Namespace");
    } else if (key.text == known[0]) {
      findings.error(key.place,
                     known[0] + " has no meaning on a " + rules.kind +
                         "; expected it on a Kubernetes NetworkPolicy or a Namespace (a Calico policy has "
                         "the action Log)");
    } else if (key.text == known[1] || key.text == known[2]) {
      findings.error(key.place,
                     key.text + " has no meaning on a " + rules.kind + "; expected it on a policy");
    } else {
      findings.error(key.place, yaml::unknown_word("annotation", key.text, known));
    }
  }
}

Meta read_meta(Fields& object, const MetaRules& rules, LoadContext& context) {
  object.accept({"apiVersion", "kind", "status"});
  Meta meta;
  meta.source = object.node().place;
  const Node* node = object.require("metadata");
  if (node == nullptr) return meta;
  Fields metadata(*node, "metadata", context.findings);
  // What an API server adds.
  metadata.accept({"uid", "creationTimestamp", "resourceVersion", "generation", "managedFields",
                   "ownerReferences", "finalizers", "selfLink", "deletionTimestamp",
                   "deletionGracePeriodSeconds", "generateName"});
  const auto name = metadata.require_string("name");
  meta.valid = name.has_value();
  if (name) {
    meta.name = *name;
    meta.valid = check_name(meta.name, rules.name_has_dots, node->find("name")->place, context.findings);
  }
  read_namespace(metadata, rules, meta);
  meta.labels = read_labels(metadata, "labels");
  read_annotations(metadata, rules, meta);
  if (!meta.valid) return meta;
  const std::string shown = rules.namespaced ? meta.object_namespace + "/" + meta.name : meta.name;
  const SourceRef place = node->find("name")->place;
  const auto [first, is_new] = context.seen.emplace(rules.kind + " " + shown, place);
  if (!is_new) {
    context.findings.error(place, "duplicate " + rules.kind + " " + shown + "; expected it once (first in " +
                                      first->second.to_string() + ")");
    meta.valid = false;
  }
  return meta;
}

const Node* require_spec(Fields& object) {
  object.require("spec");
  return object.map("spec");
}

std::string builtin_tier_name(const std::string& name) {
  if (name == "adminnetworkpolicy") return "kube-admin";
  if (name == "baselineadminnetworkpolicy") return "kube-baseline";
  return name;
}

std::string read_tier_name(Fields& spec) {
  const auto name = spec.string("tier");
  if (!name || name->empty()) return "default";
  check_name(*name, false, spec.node().find("tier")->place, spec.findings());
  return builtin_tier_name(*name);
}

Policy start_policy(PolicyKind kind, const Meta& meta) {
  Policy policy;
  policy.key = {kind, meta.object_namespace, meta.name};
  policy.tier = "default";
  policy.source = meta.source;
  policy.log_decisions = meta.log_decisions;
  return policy;
}

ReadTypes read_types(Fields& spec, std::string_view key) {
  ReadTypes types;
  const std::vector<std::string> words = {"Ingress", "Egress"};
  for (const Node* item : spec.list(key)) {
    const auto text = yaml::read_string(*item, key, spec.findings());
    if (!text) continue;
    types.given = true;
    bool* const flag = *text == words[0] ? &types.ingress : *text == words[1] ? &types.egress : nullptr;
    if (flag == nullptr)
      spec.findings().error(item->place, yaml::unknown_word("policy type", *text, words));
    else if (std::exchange(*flag, true))
      spec.findings().error(item->place, "policy type " + *text + " a second time; expected each once");
  }
  return types;
}

std::vector<SourceText> read_texts(const std::vector<std::string>& paths, Diagnostics& findings) {
  std::vector<SourceText> texts;
  const auto read = [&](const std::string& file) {
    if (auto text = yaml::read_file(file, findings)) texts.push_back({file, std::move(*text)});
  };
  for (const std::string& path : paths) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) {
      read(path);
      continue;
    }
    for (const std::string& file : files_in(path, findings)) read(file);
  }
  return texts;
}

Loaded load_texts(const std::vector<SourceText>& texts) {
  LoadContext context = new_context();
  for (const SourceText& source : texts) read_documents(yaml::parse(source.text, source.file), context);
  return finish(std::move(context), texts.size());
}

Loaded load_paths(const std::vector<std::string>& paths) {
  Diagnostics unreadable;
  Loaded loaded = load_texts(read_texts(paths, unreadable));
  for (const Diagnostic& finding : unreadable.all()) {
    std::error_code ignored;
    if (finding.severity == Severity::Error && !fs::is_directory(finding.place.file, ignored)) ++loaded.files;
  }
  loaded.findings.add(unreadable);
  loaded.findings.sort();
  return loaded;
}

Loaded load_text(std::string_view text, const std::string& name) {
  LoadContext context = new_context();
  read_documents(yaml::parse(text, name), context);
  return finish(std::move(context), 1);
}

Loaded load_trees(const std::vector<const Node*>& objects) {
  LoadContext context = new_context();
  for (const Node* object : objects) read_object(*object, context);
  return finish(std::move(context), 0);
}

}  // namespace tierlog::policy
