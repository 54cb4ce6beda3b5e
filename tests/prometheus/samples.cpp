#include "tests/prometheus/samples.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>

namespace tierlog::testing {
namespace {

[[noreturn]] void refuse(const std::string& line, const char* why) {
  throw std::runtime_error(std::string(why) + ": " + line);
}

std::string quoted(const std::string& line, std::size_t& at) {
  if (line[at] != '"') refuse(line, "no quote");
  std::string value;
  for (++at; at < line.size() && line[at] != '"'; ++at) {
    if (line[at] != '\\') {
      value += line[at];
      continue;
    }
    ++at;
    if (line[at] == 'n')
      value += '\n';
    else if (line[at] == '\\' || line[at] == '"')
      value += line[at];
    else
      refuse(line, "unknown escape");
  }
  if (at >= line.size()) refuse(line, "no end of a value");
  ++at;
  return value;
}

Sample parse(const std::string& line) {
  Sample sample;
  std::size_t at = line.find_first_of("{ ");
  if (at == std::string::npos) refuse(line, "no value");
  sample.name = line.substr(0, at);
  if (line[at] == '{') {
    for (++at; line[at] != '}';) {
      const auto equals = line.find('=', at);
      if (equals == std::string::npos) refuse(line, "no label");
      const std::string name = line.substr(at, equals - at);
      at = equals + 1;
      if (!sample.labels.emplace(name, quoted(line, at)).second) refuse(line, "the same label twice");
      if (line[at] == ',') ++at;
    }
    ++at;
  }
  if (line[at] != ' ') refuse(line, "no blank before the value");
  char* end = nullptr;
  sample.value = std::strtod(line.c_str() + at + 1, &end);
  if (*end != '\0') refuse(line, "something behind the value");
  return sample;
}

std::string key_of(const Sample& sample) {
  std::string key = sample.name;
  for (const auto& [name, value] : sample.labels) key += "\n" + name + "=" + value;
  return key;
}

}  // namespace

Samples::Samples(const std::string& text) {
  std::istringstream lines(text);
  std::set<std::string> series, families;
  std::string family;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      if (!families.insert(family).second) refuse(line, "the family is there twice");
      types_[family] = line.substr(line.rfind(' ') + 1);
    }
    if (line.starts_with("#")) continue;
    Sample sample = parse(line);
    if (sample.name != family && sample.name != family + "_total") refuse(line, "not of the running family");
    if (!series.insert(key_of(sample)).second) refuse(line, "the series is there twice");
    all_.push_back(std::move(sample));
  }
}

std::string Samples::type_of(const std::string& family) const {
  const auto found = types_.find(family);
  return found == types_.end() ? "" : found->second;
}

std::vector<Sample> Samples::find(const std::string& name, const Labels& wanted) const {
  std::vector<Sample> found;
  for (const Sample& sample : all_) {
    if (sample.name != name) continue;
    const bool all = std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
      const auto there = sample.labels.find(label.first);
      return there != sample.labels.end() && there->second == label.second;
    });
    if (all) found.push_back(sample);
  }
  return found;
}

std::optional<double> Samples::value(const std::string& name, const Labels& wanted) const {
  const auto found = find(name, wanted);
  if (found.empty()) return std::nullopt;
  double sum = 0;
  for (const Sample& sample : found) sum += sample.value;
  return sum;
}

}  // namespace tierlog::testing
