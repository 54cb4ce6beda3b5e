#include "query/filter_text.h"

#include <string>
#include <utility>

#include "query/filters.h"
#include "store/outbox.h"

namespace tierlog::query {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

Result<std::vector<std::string>> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool open = false;
  char quote = 0;
  for (const char c : text) {
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
      open = true;
    } else if (!is_space(c)) {
      word += c;
      open = true;
    } else if (std::exchange(open, false)) {
      words.push_back(std::exchange(word, {}));
    }
  }
  if (quote != 0) return fail(ErrorCode::InvalidArgument, std::string("a quote ") + quote + " without its other");
  if (open) words.push_back(word);
  return words;
}

}  // namespace

Result<std::vector<store::FieldFilter>> parse_filter_text(std::string_view text) {
  TL_ASSIGN(const auto words, words_of(text));
  std::vector<std::pair<std::string, std::string>> parameters;
  bool negate = false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--not") {
      if (std::exchange(negate, true)) return fail(ErrorCode::InvalidArgument, "--not twice; expected a filter behind it");
      continue;
    }
    if (!words[i].starts_with("--"))
      return fail(ErrorCode::InvalidArgument,
                  "\"" + words[i] + "\" is no filter; expected one such as --action deny or --logged");
    const auto equals = words[i].find('=');
    std::string name = words[i].substr(2, equals == std::string::npos ? equals : equals - 2);
    const FilterSpec* spec = find_filter(name.starts_with("not-") ? name.substr(4) : name);
    std::string value;
    if (equals != std::string::npos)
      value = words[i].substr(equals + 1);
    else if (spec == nullptr || spec->value != nullptr) {
      if (i + 1 < words.size() && !words[i + 1].starts_with("--"))
        value = words[++i];
      else if (spec != nullptr)
        return fail(ErrorCode::InvalidArgument, "--" + name + " needs a value: " + spec->help);
    }
    parameters.emplace_back((std::exchange(negate, false) ? "not-" : "") + name, value);
  }
  if (negate) return fail(ErrorCode::InvalidArgument, "--not negates the filter that follows it; nothing follows it");
  for (const auto& [name, value] : parameters) {
    const std::string plain = name.starts_with("not-") ? name.substr(4) : name;
    for (const char* range : {"since", "until", "limit", "first", "last", "order", "group-by", "top", "bins", "rate"})
      if (plain == range)
        return fail(ErrorCode::InvalidArgument,
                    "--" + plain + " is no filter of single records; leave it out: an export goes through all in order");
  }
  TL_ASSIGN(Parsed parsed, parse_query(parameters, WallTime{}));
  TL_TRY(store::check_filters(parsed.query.filters));
  return std::move(parsed.query.filters);
}

}  // namespace tierlog::query
