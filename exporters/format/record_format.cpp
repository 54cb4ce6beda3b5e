#include "exporters/format/record_format.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/diagnostics.h"
#include "store/record_json.h"

namespace tierlog::exporters {
namespace {

using Json = nlohmann::ordered_json;
using Make = Json (*)(const store::FlowRecord&, const store::Origin&);

struct Form {
  const char* name;
  Make make;
};
constexpr Form kForms[] = {
    {"tierlog", store::to_json}, {"calico", to_calico}, {"ecs", to_ecs}, {"ocsf", to_ocsf}};

Make make_of(std::string_view format) {
  for (const Form& form : kForms)
    if (format == form.name) return form.make;
  return nullptr;
}

bool is_in(std::string_view path, std::string_view outer) {
  return path == outer ||
         (path.size() > outer.size() && path.starts_with(outer) && path[outer.size()] == '.');
}

bool is_in_any(std::string_view path, const std::vector<std::string>& outers) {
  return std::any_of(outers.begin(), outers.end(), [&](const std::string& outer) { return is_in(path, outer); });
}

bool has_any_in(std::string_view path, const std::vector<std::string>& inner) {
  return std::any_of(inner.begin(), inner.end(), [&](const std::string& one) { return is_in(one, path); });
}

// Labels have keys of their own, which nobody knows beforehand.
bool is_labels(std::string_view path) {
  return path.ends_with("labels");
}

void add_paths(const Json& object, const std::string& prefix, std::vector<std::string>& paths) {
  for (const auto& [key, value] : object.items()) {
    paths.push_back(prefix + key);
    if (value.is_object() && !is_labels(paths.back())) add_paths(value, prefix + key + ".", paths);
  }
}

Json chosen(Json&& object, const std::string& prefix, const FormatOptions& options) {
  Json kept = Json::object();
  for (auto& [key, value] : object.get_ref<Json::object_t&>()) {
    const std::string path = prefix + key;
    if (is_in_any(path, options.omit)) continue;
    const bool whole = options.fields.empty() || is_in_any(path, options.fields);
    if (!whole && !has_any_in(path, options.fields)) continue;
    if (value.is_object() && !is_labels(path))
      value = chosen(std::move(value), path + ".", options);
    else if (!whole)
      continue;
    kept[key] = std::move(value);
  }
  return kept;
}

}  // namespace

const std::vector<std::string>& format_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Form& form : kForms) all.emplace_back(form.name);
    return all;
  }();
  return names;
}

store::FlowRecord full_record() {
  store::FlowRecord record;
  record.id = "018f0000-0000-7000-8000-000000000001";
  record.start = from_ns(1'795'292'047'000'000'123);
  record.end = record.start + std::chrono::seconds(10);
  record.reporter = store::Reporter::Destination;
  record.tier = "platform";
  record.policy = "platform/tenant-01/tenant-01-restrict";
  record.policy_kind = "NetworkPolicy";
  record.policy_namespace = "tenant-01";
  record.policy_name = "tenant-01-restrict";
  record.rule_index = 2;
  record.rule = RuleId{0x12a};
  record.policy_revision = 3;
  record.logged_by = {{record.policy, 0, RuleId{0x128}, "db", 0}};
  record.trace = {{Direction::Ingress, "platform", record.policy, 2, "allow"}};
  record.staged = {{"platform/tenant-01/tighten-db", store::Verdict::Deny, 0}};
  record.proto = protocol::kTcp;
  record.src = {*IpAddr::parse("10.244.1.7"), store::PeerKind::Pod, "tenant-02", "web-7c9f-x2x1z", "web",
                {{"role", "web"}}};
  record.dst = {*IpAddr::parse("10.244.1.9"), store::PeerKind::Pod, "tenant-01", "db-0", "db", {{"role", "db"}}};
  record.src_port = 41122;
  record.dst_port = 5432;
  record.dst_service = "tenant-01/db";
  record.icmp_type = 8;
  record.icmp_code = 0;
  record.connections = 1;
  record.verdict_packets = 1;
  record.packets_out = 12;
  record.packets_in = 10;
  record.bytes_out = 720;
  record.bytes_in = 640;
  record.tcp_flags = "s";
  record.ct_state = "closed";
  record.end_reason = store::EndReason::Finished;
  record.translation = store::Translation{*IpAddr::parse("10.96.0.10"), *IpAddr::parse("192.0.2.1"), 80, 61000,
                                          "tenant-01/db"};
  return record;
}

std::vector<std::string> format_paths(std::string_view format) {
  std::vector<std::string> paths;
  if (const Make make = make_of(format)) add_paths(make(full_record(), {"cluster", "node"}), "", paths);
  return paths;
}

std::vector<std::string> check_format(const FormatOptions& options) {
  std::vector<std::string> problems;
  if (make_of(options.name) == nullptr) {
    std::string list;
    for (const std::string& name : format_names()) list += (list.empty() ? "" : ", ") + name;
    return {"unknown format \"" + options.name + "\"; expected one of " + list};
  }
  const std::vector<std::string> known = format_paths(options.name);
  for (const auto* list : {&options.fields, &options.omit})
    for (const std::string& path : *list) {
      if (std::find(known.begin(), known.end(), path) != known.end()) continue;
      const std::string near = nearest(path, known);
      problems.push_back("format " + options.name + " has no field \"" + path + "\"" +
                         (near.empty() ? std::string("; docs/exporting.md lists them")
                                       : "; did you mean " + near + "?"));
    }
  return problems;
}

Json RecordFormat::to_json(const store::FlowRecord& record, const store::Origin& origin) const {
  Json json = make_of(options_.name)(record, origin);
  return is_whole() ? json : chosen(std::move(json), "", options_);
}

bool RecordFormat::keeps(std::string_view path) const {
  if (is_in_any(path, options_.omit)) return false;
  return options_.fields.empty() || is_in_any(path, options_.fields) || has_any_in(path, options_.fields);
}

void RecordFormat::append_line(std::string& text, const store::FlowRecord& record,
                               const store::Origin& origin) const {
  text += to_json(record, origin).dump(-1, ' ', false, Json::error_handler_t::replace);
  text += '\n';
}

}  // namespace tierlog::exporters
