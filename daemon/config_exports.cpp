#include "daemon/config_exports.h"

#include <algorithm>
#include <functional>
#include <map>

#include "base/time.h"
#include "daemon/config_values.h"
#include "exporters/fluentbit/tag.h"
#include "exporters/format/record_format.h"
#include "query/filter_text.h"

namespace tierlog::daemon {
namespace {

using Type = ExportConfig::Type;
using exporters::FileOptions;
using std::chrono::milliseconds;
using yaml::Kind;
using yaml::Node;

using Read = std::function<void(const Node& value, ExportConfig& target, Diagnostics& findings)>;

constexpr std::size_t kLeastChunk = 4096;
constexpr std::size_t kMostChunk = 64U << 20;
constexpr std::uint64_t kLeastFile = 64U << 10;

bool read_text(const Node& value, std::string& into, Diagnostics& findings, const char* what = "a string") {
  if (value.kind != Kind::Scalar || value.is_null() || value.text.empty()) {
    expected(value, findings, what);
    return false;
  }
  into = value.text;
  return true;
}

void read_truth(const Node& value, bool& into, Diagnostics& findings) {
  if (const auto truth = value.as_bool())
    into = *truth;
  else
    expected(value, findings, "true or false");
}

void read_time(const Node& value, milliseconds& into, Diagnostics& findings, bool or_never) {
  const auto parsed = or_never && value.text == "0" ? std::optional(Nanoseconds(0)) : parse_duration(value.text);
  if (value.kind == Kind::Scalar && parsed && ((or_never && parsed->count() == 0) || *parsed >= milliseconds(100)))
    into = std::chrono::duration_cast<milliseconds>(*parsed);
  else
    findings.error(value.place, "\"" + value.text + "\" is no time; expected at least 100ms, such as 5s or 24h" +
                                    (or_never ? ", or 0 for never" : ""));
}

void read_list(const Node& value, std::vector<std::string>& into, Diagnostics& findings) {
  if (value.kind != Kind::Sequence) return expected(value, findings, "a list of fields");
  for (const Node& item : value.items) {
    std::string text;
    if (read_text(item, text, findings, "the name of a field")) into.push_back(text);
  }
}

// The keys of a map inside an entry.
using Keys = std::map<std::string, std::function<void(const Node&, Diagnostics&)>>;
void read_map(const Node& map, const Keys& keys, Diagnostics& findings) {
  if (map.kind != Kind::Map) return expected(map, findings, "a map");
  for (const auto& [key, value] : map.entries) {
    const auto found = keys.find(key.text);
    if (found != keys.end()) {
      found->second(value, findings);
      continue;
    }
    std::vector<std::string> known;
    for (const auto& [name, read] : keys) known.push_back(name);
    unknown_key(key, known, findings);
  }
}

void read_tls(const Node& value, ExportConfig& target, Diagnostics& findings) {
  exporters::TlsOptions& tls = target.forward.tls;
  if (const auto truth = value.as_bool()) {
    tls.on = *truth;
    return;
  }
  tls.on = true;
  if (value.kind != Kind::Map) return expected(value, findings, "a map, or true or false");
  const auto text = [](std::string& into) {
    return [&into](const Node& node, Diagnostics& found) { read_text(node, into, found); };
  };
  read_map(value,
           {{"ca", text(tls.ca)},
            {"cert", text(tls.cert)},
            {"key", text(tls.key)},
            {"server_name", text(tls.server_name)},
            {"verify", [&tls](const Node& node, Diagnostics& found) { read_truth(node, tls.verify, found); }}},
           findings);
  if (tls.cert.empty() != tls.key.empty())
    findings.error(value.place, "tls has only one of cert and key; expected both");
}

void read_auth(const Node& value, ExportConfig& target, Diagnostics& findings) {
  exporters::AuthOptions& auth = target.forward.auth;
  auth.on = true;
  const auto text = [](std::string& into) {
    return [&into](const Node& node, Diagnostics& found) { read_text(node, into, found); };
  };
  read_map(value,
           {{"shared_key_file", text(auth.shared_key_file)},
            {"user", text(auth.user)},
            {"password_file", text(auth.password_file)},
            {"hostname", text(auth.hostname)}},
           findings);
  if (auth.user.empty() != auth.password_file.empty())
    findings.error(value.place, "auth has only one of user and password_file; expected both");
}

void read_rotate(const Node& value, ExportConfig& target, Diagnostics& findings) {
  FileOptions& file = target.file;
  read_map(value,
           {{"size",
             [&file](const Node& node, Diagnostics& found) {
               const auto bytes = parse_bytes(node.text);
               if (node.kind == Kind::Scalar && bytes && (*bytes == 0 || *bytes >= kLeastFile))
                 file.rotate_bytes = *bytes;
               else
                 found.error(node.place, "\"" + node.text +
                                             "\" is no size; expected at least 64KiB, such as 100MiB, or 0 for never");
             }},
            {"every", [&file](const Node& node, Diagnostics& found) { read_time(node, file.rotate_every, found, true); }},
            {"keep",
             [&file](const Node& node, Diagnostics& found) {
               if (const auto number = node.as_int(); number && *number >= 0 && *number <= 10'000)
                 file.keep = static_cast<std::size_t>(*number);
               else
                 found.error(node.place, "\"" + node.text + "\" is out of range; expected a number from 0 to 10000");
             }}},
           findings);
}

void read_fsync(const Node& value, ExportConfig& target, Diagnostics& findings) {
  using Sync = FileOptions::Sync;
  if (value.text == "always") {
    target.file.sync = Sync::Always;
  } else if (value.text == "never") {
    target.file.sync = Sync::Never;
  } else if (const auto time = parse_duration(value.text); time && *time >= milliseconds(100)) {
    target.file.sync = Sync::Every;
    target.file.sync_every = std::chrono::duration_cast<milliseconds>(*time);
  } else {
    findings.error(value.place, "\"" + value.text + "\" is no policy; expected always, never or a time such as 1s");
  }
}

void read_chunk(const Node& value, ExportConfig& target, Diagnostics& findings) {
  const auto bytes = parse_bytes(value.text);
  if (value.kind == Kind::Scalar && bytes && *bytes >= kLeastChunk && *bytes <= kMostChunk)
    target.forward.max_chunk_bytes = *bytes;
  else
    findings.error(value.place, "\"" + value.text + "\" is no size; expected from 4KiB to 64MiB");
}

void read_filter(const Node& value, ExportConfig& target, Diagnostics& findings) {
  if (!read_text(value, target.filter, findings, "filters as text, such as \"--action deny --logged\"")) return;
  auto filters = query::parse_filter_text(target.filter);
  if (filters)
    target.filters = std::move(*filters);
  else
    findings.error(value.place, "filter: " + filters.error().message);
}

struct Key {
  const char* name;
  bool fluentbit, file;
  Read read;
};

const std::vector<Key>& keys() {
  const auto forward_text = [](std::string exporters::ForwardOptions::*field) {
    return [field](const Node& value, ExportConfig& target, Diagnostics& findings) {
      read_text(value, target.forward.*field, findings);
    };
  };
  static const std::vector<Key> table{
      {"type", true, true, [](const Node&, ExportConfig&, Diagnostics&) {}},
      {"name", true, true,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) { read_text(value, target.name, findings); }},
      {"host", true, false, forward_text(&exporters::ForwardOptions::host)},
      {"port", true, false,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         if (const auto port = read_number(value, 1, findings)) target.forward.port = *port;
       }},
      {"socket", true, false, forward_text(&exporters::ForwardOptions::socket)},
      {"tag", true, false,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         if (!read_text(value, target.forward.tag, findings)) return;
         if (const auto tag = exporters::fluentbit::TagPattern::parse(target.forward.tag); !tag)
           findings.error(value.place, "tag: " + tag.error().message);
       }},
      {"tls", true, false, read_tls},
      {"auth", true, false, read_auth},
      {"compress", true, false,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         if (value.text == "gzip")
           target.forward.compression = exporters::Compression::Gzip;
         else if (value.text != "none")
           findings.error(value.place, "unknown compression \"" + value.text + "\"; expected gzip or none");
       }},
      {"chunk_size", true, false, read_chunk},
      {"timeout", true, false,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         read_time(value, target.forward.timeout, findings, false);
       }},
      {"path", false, true,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         if (read_text(value, target.file.path, findings) && target.file.path.front() != '/')
           findings.error(value.place, "\"" + value.text + "\" is no absolute path; expected one such as "
                                       "/var/log/tierlog/flows.jsonl");
       }},
      {"rotate", false, true, read_rotate},
      {"fsync", false, true, read_fsync},
      {"filter", true, true, read_filter},
      {"fields", true, true,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         read_list(value, target.forward.format.fields, findings);
       }},
      {"omit", true, true,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         read_list(value, target.forward.format.omit, findings);
       }},
      {"format", true, true,
       [](const Node& value, ExportConfig& target, Diagnostics& findings) {
         read_text(value, target.forward.format.name, findings);
       }},
  };
  return table;
}

Type type_of(const Node& item, Diagnostics& findings) {
  const Node* type = item.find("type");
  if (type == nullptr || type->text == "fluentbit") return Type::Fluentbit;
  if (type->text == "file") return Type::File;
  findings.error(type->place, "unknown export \"" + type->text + "\"; expected fluentbit or file");
  return Type::Fluentbit;
}

const Node& place_of(const Node& item, const char* key) {
  const Node* found = item.find(key);
  return found == nullptr ? item : *found;
}

}  // namespace

ExportConfig read_export(const Node& item, std::size_t place, Diagnostics& findings) {
  ExportConfig target;
  if (item.kind != Kind::Map) {
    expected(item, findings, "a map with type, host, port and tag");
    return target;
  }
  target.type = type_of(item, findings);
  const bool is_file = target.type == Type::File;
  target.name = (is_file ? "file-" : "fluentbit-") + std::to_string(place);
  for (const auto& [key, value] : item.entries) {
    const auto found = std::find_if(keys().begin(), keys().end(), [&](const Key& one) { return key.text == one.name; });
    if (found == keys().end()) {
      std::vector<std::string> known;
      for (const Key& one : keys())
        if (is_file ? one.file : one.fluentbit) known.emplace_back(one.name);
      unknown_key(key, known, findings);
    } else if (!(is_file ? found->file : found->fluentbit)) {
      findings.error(key.place, "\"" + key.text + "\" is no key of type " + (is_file ? "file" : "fluentbit"));
    } else {
      found->read(value, target, findings);
    }
  }
  if (is_file && target.file.path.empty())
    findings.error(item.place, "an export of type file without path; expected one such as /var/log/tierlog/flows.jsonl");
  if (item.find("socket") != nullptr && (item.find("host") != nullptr || item.find("port") != nullptr))
    findings.error(place_of(item, "socket").place, "socket beside host or port; expected one of both");
  for (const std::string& problem : exporters::check_format(target.forward.format))
    findings.error(place_of(item, target.forward.format.fields.empty() && target.forward.format.omit.empty() ? "format"
                            : item.find("fields") != nullptr                                                 ? "fields"
                                                                                                             : "omit")
                       .place,
                   problem);
  target.file.format = target.forward.format;
  return target;
}

void check_names(const Node& list, const std::vector<ExportConfig>& exports, Diagnostics& findings) {
  for (std::size_t i = 0; i < exports.size() && i < list.items.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      if (exports[i].name == exports[j].name)
        findings.error(place_of(list.items[i], "name").place,
                       "a second export called \"" + exports[i].name + "\"; expected a name of its own: its cursor has it");
      if (exports[i].type == Type::File && exports[j].type == Type::File && exports[i].file.path == exports[j].file.path)
        findings.error(place_of(list.items[i], "path").place,
                       "a second export into " + exports[i].file.path + "; expected a file of its own");
    }
}

}  // namespace tierlog::daemon
