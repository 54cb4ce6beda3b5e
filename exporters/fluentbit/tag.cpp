#include "exporters/fluentbit/tag.h"

#include <algorithm>
#include <iterator>

#include "base/diagnostics.h"

namespace tierlog::exporters::fluentbit {
namespace {

using store::FlowRecord;
using store::Origin;

struct Field {
  const char* name;
  std::string (*value)(const FlowRecord&, const Origin&);
};

// What has few values: each value is a chunk of its own.
constexpr Field kFields[] = {
    {"action", [](const FlowRecord& r, const Origin&) { return std::string(name(r.action)); }},
    {"cluster", [](const FlowRecord&, const Origin& o) { return o.cluster; }},
    {"direction", [](const FlowRecord& r, const Origin&) { return std::string(name(r.direction)); }},
    {"dst_kind", [](const FlowRecord& r, const Origin&) { return std::string(name(r.dst.kind)); }},
    {"dst_namespace", [](const FlowRecord& r, const Origin&) { return r.dst.peer_namespace; }},
    {"node", [](const FlowRecord&, const Origin& o) { return o.node; }},
    {"policy_kind", [](const FlowRecord& r, const Origin&) { return r.policy_kind; }},
    {"policy_name", [](const FlowRecord& r, const Origin&) { return r.policy_name; }},
    {"policy_namespace", [](const FlowRecord& r, const Origin&) { return r.policy_namespace; }},
    {"proto", [](const FlowRecord& r, const Origin&) { return protocol::name(r.proto); }},
    {"reason", [](const FlowRecord& r, const Origin&) { return std::string(name(r.reason)); }},
    {"reporter", [](const FlowRecord& r, const Origin&) { return std::string(name(r.reporter)); }},
    {"src_kind", [](const FlowRecord& r, const Origin&) { return std::string(name(r.src.kind)); }},
    {"src_namespace", [](const FlowRecord& r, const Origin&) { return r.src.peer_namespace; }},
    {"tier", [](const FlowRecord& r, const Origin&) { return r.tier; }},
};

bool is_plain(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

}  // namespace

std::vector<std::string> tag_fields() {
  std::vector<std::string> names;
  for (const Field& field : kFields) names.emplace_back(field.name);
  return names;
}

Result<TagPattern> TagPattern::parse(std::string_view text) {
  TagPattern pattern;
  if (text.empty()) return tierlog::fail(ErrorCode::InvalidArgument, "the tag is empty; expected one like tierlog.flows");
  while (true) {
    const auto open = text.find_first_of("{}");
    pattern.texts_.emplace_back(text.substr(0, open));
    if (open == std::string_view::npos) return pattern;
    const auto close = text.find('}', open);
    if (text[open] == '}' || close == std::string_view::npos)
      return tierlog::fail(ErrorCode::InvalidArgument, "a brace without its other; expected {FIELD}, such as {action}");
    const std::string wanted(text.substr(open + 1, close - open - 1));
    const auto found =
        std::find_if(std::begin(kFields), std::end(kFields), [&](const Field& field) { return wanted == field.name; });
    if (found == std::end(kFields)) {
      const std::string near = nearest(wanted, tag_fields());
      std::string list;
      for (const std::string& one : tag_fields()) list += (list.empty() ? "" : ", ") + one;
      return tierlog::fail(ErrorCode::InvalidArgument, "unknown field {" + wanted + "}; " +
                                                           (near.empty() ? "expected one of " + list
                                                                         : "did you mean {" + near + "}?"));
    }
    pattern.fields_.push_back(static_cast<std::size_t>(found - std::begin(kFields)));
    text.remove_prefix(close + 1);
  }
}

void TagPattern::append(std::string& tag, const FlowRecord& record, const Origin& origin) const {
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    tag += texts_[i];
    if (i == fields_.size()) return;
    std::string value = kFields[fields_[i]].value(record, origin);
    std::replace_if(value.begin(), value.end(), [](char c) { return !is_plain(c); }, '_');
    tag += value.empty() ? "none" : value;
  }
}

}  // namespace tierlog::exporters::fluentbit
