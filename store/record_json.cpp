#include "store/record_json.h"

#include <concepts>
#include <nlohmann/json.hpp>
#include <utility>

#include "store/record_fields.h"

namespace tierlog::store {
namespace {

using Json = nlohmann::ordered_json;

// What write_record() writes to.
class JsonWriter {
 public:
  explicit JsonWriter(Json::object_t& object) : object_(object) {}
  void text(const char* key, std::string_view value) {
    if (value.empty()) return add(key, Json());
    add(key, Json(value));
  }
  template <std::integral T>
  void number(const char* key, T value) {
    add(key, Json(value));
  }
  template <std::integral T>
  void number(const char* key, const std::optional<T>& value) {
    add(key, value ? Json(*value) : Json());
  }
  void labels(const char* key, const policy::Labels& labels) {
    Json map = Json::object();
    auto& entries = map.get_ref<Json::object_t&>();
    entries.reserve(labels.size());
    for (const auto& [name, value] : labels) entries.emplace_back(name, Json(value));
    add(key, std::move(map));
  }
  template <typename T>
  void list(const char* key, const std::vector<T>& entries) {
    add(key, list_of(entries));
  }

  template <typename T>
  static Json list_of(const std::vector<T>& entries) {
    Json list = Json::array();
    for (const T& entry : entries) {
      Json item = Json::object();
      JsonWriter writer(item.get_ref<Json::object_t&>());
      write_entry(entry, writer);
      list.push_back(std::move(item));
    }
    return list;
  }

 private:
  // Keys come once, in order: nothing has to be looked for.
  void add(const char* key, Json value) { object_.emplace_back(key, std::move(value)); }
  Json::object_t& object_;
};

// Not UTF-8 (a label of a foreign source) must not make a record unwritable.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string read_text(const Json& json) {
  return json.is_null() ? std::string() : json.get<std::string>();
}

template <typename T>
std::optional<T> read_optional(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional<T>(json.get<T>());
}

LoggedBy read_logged_by(const Json& json) {
  return {read_text(json.at("policy")), json.at("rule_index").get<int>(),
          RuleId{json.at("rule_id").get<std::uint32_t>()}, read_text(json.at("label")),
          json.at("suppressed").get<std::uint64_t>()};
}

TraceEntry read_trace_entry(const Json& json) {
  const bool ingress = json.at("direction").get<std::string>() == name(Direction::Ingress);
  return {ingress ? Direction::Ingress : Direction::Egress, read_text(json.at("tier")),
          read_text(json.at("policy")), read_optional<int>(json.at("rule_index")),
          json.at("result").get<std::string>()};
}

StagedVerdict read_staged_verdict(const Json& json) {
  const bool allow = json.at("action").get<std::string>() == name(Verdict::Allow);
  return {read_text(json.at("policy")), allow ? Verdict::Allow : Verdict::Deny,
          read_optional<int>(json.at("rule_index"))};
}

template <typename T>
Result<std::vector<T>> parse_list(std::string_view text, T (*read)(const Json&)) {
  if (text == "[]") return std::vector<T>();
  try {
    std::vector<T> entries;
    for (const Json& item : Json::parse(text)) entries.push_back(read(item));
    return entries;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::Corrupt, std::string("flow index holds JSON that is not ours: ") + error.what());
  }
}

}  // namespace

std::string logged_by_text(const std::vector<LoggedBy>& entries) {
  return dump(JsonWriter::list_of(entries));
}
std::string trace_text(const std::vector<TraceEntry>& entries) {
  return dump(JsonWriter::list_of(entries));
}
std::string staged_text(const std::vector<StagedVerdict>& entries) {
  return dump(JsonWriter::list_of(entries));
}

std::string labels_text(const policy::Labels& labels) {
  Json json = Json::object();
  for (const auto& [key, value] : labels) json[key] = value;
  return dump(json);
}

std::string strings_text(const std::vector<std::string>& items) {
  return dump(Json(items));
}

Result<std::vector<LoggedBy>> parse_logged_by(std::string_view text) {
  return parse_list<LoggedBy>(text, read_logged_by);
}

Result<std::vector<TraceEntry>> parse_trace(std::string_view text) {
  return parse_list<TraceEntry>(text, read_trace_entry);
}

Result<std::vector<StagedVerdict>> parse_staged(std::string_view text) {
  return parse_list<StagedVerdict>(text, read_staged_verdict);
}

Result<std::vector<std::string>> parse_strings(std::string_view text) {
  return parse_list<std::string>(text, [](const Json& item) { return item.get<std::string>(); });
}

Result<policy::Labels> parse_labels(std::string_view text) {
  policy::Labels labels;
  if (text == "{}") return labels;
  try {
    const Json json = Json::parse(text);
    for (const auto& item : json.items()) labels.emplace(item.key(), item.value().get<std::string>());
    return labels;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::Corrupt,
                std::string("flow index holds labels that are not ours: ") + error.what());
  }
}

nlohmann::ordered_json to_json(const FlowRecord& record, const Origin& origin) {
  Json json = Json::object();
  auto& object = json.get_ref<Json::object_t&>();
  object.reserve(kMostRecordKeys);
  JsonWriter writer(object);
  write_record(record, origin, writer);
  return json;
}

const std::vector<std::string>& record_keys() {
  static const std::vector<std::string> keys = [] {
    FlowRecord whole;
    whole.end_reason = EndReason::Finished;
    whole.translation = Translation{IpAddr::v4(1), IpAddr::v4(1), 1, 1, {}};
    std::vector<std::string> all;
    const Json json = to_json(whole, {});
    for (const auto& [key, value] : json.items()) all.push_back(key);
    return all;
  }();
  return keys;
}

}  // namespace tierlog::store
