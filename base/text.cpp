#include "base/text.h"

#include <cstddef>

namespace tierlog {

std::string with_commas(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (auto i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3)
    text.insert(static_cast<std::size_t>(i), 1, ',');
  return text;
}

std::string counted(std::uint64_t count, std::string_view singular) {
  std::string word(singular);
  if (count != 1) {
    if (word.ends_with('y') && !word.ends_with("ey")) {
      word.replace(word.size() - 1, 1, "ies");
    } else {
      word += 's';
    }
  }
  return with_commas(count) + " " + word;
}

std::string under_tier(std::string_view display) {
  const auto slash = display.find('/');
  if (slash == std::string_view::npos) return std::string(display);
  return std::string(display.substr(slash + 1));
}

}  // namespace tierlog
