// The Fluent Bit configurations that are shipped: both forms can be read and say the same, and every field that they
// name is one that a record of that format has.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/yaml.h"
#include "exporters/format/record_format.h"

namespace tierlog::exporters {
namespace {

namespace fs = std::filesystem;
const std::string kFolder = TIERLOG_SOURCE_DIR "/exporters/fluentbit/configs";

// "inputs/forward" -> its settings.
using Plugins = std::multimap<std::string, std::map<std::string, std::string>>;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

Plugins read_yaml(const std::string& path) {
  Plugins plugins;
  const auto documents = yaml::parse_file(path);
  EXPECT_FALSE(documents.findings.has_errors()) << documents.findings.to_string();
  if (documents.documents.size() != 1) return plugins;
  const yaml::Node& top = documents.documents.front();
  const auto add = [&](const std::string& section, const yaml::Node& list) {
    for (const yaml::Node& item : list.items) {
      std::map<std::string, std::string> settings;
      for (const auto& [key, value] : item.entries) settings[key.text] = value.text;
      plugins.emplace(section + "/" + settings["name"], settings);
    }
  };
  if (const yaml::Node* pipeline = top.find("pipeline"))
    for (const auto& [section, list] : pipeline->entries) add(section.text, list);
  if (const yaml::Node* parsers = top.find("parsers")) add("parsers", *parsers);
  return plugins;
}

// The classic form: [SECTION] and lines of "key value".
Plugins read_classic(const std::string& path) {
  Plugins plugins;
  std::string section;
  std::map<std::string, std::string> settings;
  const auto finish = [&] {
    if (!settings.empty() && section != "services") plugins.emplace(section + "/" + settings["name"], settings);
    settings.clear();
  };
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  for (std::string line; std::getline(file, line);) {
    const auto begin = line.find_first_not_of(' ');
    if (begin == std::string::npos || line[begin] == '#') continue;
    if (line[begin] == '[') {
      finish();
      EXPECT_EQ(begin, 0u) << line;
      section = lower(line.substr(1, line.find(']') - 1)) + "s";
      continue;
    }
    EXPECT_EQ(begin, 4u) << "settings are indented: " << line;
    const auto end = line.find(' ', begin);
    if (end == std::string::npos) {
      ADD_FAILURE() << path << ": no value: " << line;
      continue;
    }
    settings[line.substr(begin, end - begin)] = line.substr(line.find_first_not_of(' ', end));
  }
  finish();
  return plugins;
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(kFolder))
    if (entry.path().extension() == ".yaml") found.push_back(entry.path().stem());
  std::sort(found.begin(), found.end());
  return found;
}

TEST(FluentBitConfigurations, AreThereForEveryDestination) {
  EXPECT_EQ(names(), (std::vector<std::string>{"clickhouse", "elasticsearch", "file", "loki", "s3", "secure", "stdout"}));
}

TEST(FluentBitConfigurations, SayTheSameInBothForms) {
  for (const std::string& name : names()) {
    Plugins classic = read_classic(kFolder + "/" + name + ".conf");
    if (name == "file") classic.merge(read_classic(kFolder + "/parsers.conf"));
    const Plugins yaml = read_yaml(kFolder + "/" + name + ".yaml");
    EXPECT_GE(yaml.size(), 2u) << name;
    EXPECT_EQ(yaml, classic) << name;
  }
}

// Paths in settings that name fields; nothing else may.
std::vector<std::string> fields_of(const std::map<std::string, std::string>& settings) {
  std::vector<std::string> fields;
  for (const char* key : {"id_key", "time_key", "nested_under"})
    if (const auto found = settings.find(key); found != settings.end()) fields.push_back(found->second);
  if (const auto found = settings.find("label_keys"); found != settings.end()) {
    std::istringstream list(found->second);
    for (std::string field; std::getline(list, field, ',');)
      fields.push_back(field.substr(field.find('$') + 1));
  }
  return fields;
}

std::vector<std::string> unknown_fields(const std::string& name, const std::string& format) {
  std::vector<std::string> unknown;
  const auto known = format_paths(format);
  std::size_t count = 0;
  for (const auto& [plugin, settings] : read_yaml(kFolder + "/" + name + ".yaml"))
    for (const std::string& field : fields_of(settings)) {
      ++count;
      if (std::find(known.begin(), known.end(), field) == known.end()) unknown.push_back(field);
    }
  EXPECT_GT(count, 0u) << name;
  return unknown;
}

TEST(FluentBitConfigurations, NameFieldsThatRecordsHave) {
  EXPECT_TRUE(unknown_fields("elasticsearch", "ecs").empty());
  EXPECT_TRUE(unknown_fields("loki", "tierlog").empty());
  EXPECT_TRUE(unknown_fields("file", "tierlog").empty());
  // The control: the fields of one format are not those of another.
  EXPECT_FALSE(unknown_fields("loki", "ocsf").empty());
}

TEST(FluentBitConfigurations, TheTableHasColumnsOfRecords) {
  const auto known = format_paths("tierlog");
  std::ifstream file(kFolder + "/clickhouse.sql");
  std::size_t columns = 0;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("    ")) continue;
    const std::string column = line.substr(4, line.find(' ', 4) - 4);
    ++columns;
    EXPECT_NE(std::find(known.begin(), known.end(), column), known.end()) << column;
  }
  EXPECT_GT(columns, 25u);
}

}  // namespace
}  // namespace tierlog::exporters
