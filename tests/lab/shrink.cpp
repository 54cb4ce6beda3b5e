#include "tests/lab/shrink.h"

#include <algorithm>
#include <string>
#include <vector>

namespace tierlog::lab::test {
namespace {

using Json = nlohmann::ordered_json;
using Pointer = Json::json_pointer;
using Clock = std::chrono::steady_clock;

class Shrinking {
 public:
  Shrinking(Json value, const std::function<bool(const Json&)>& is_bad, std::chrono::seconds at_most)
      : value_(std::move(value)), is_bad_(is_bad), end_(Clock::now() + at_most) {}

  Json run() {
    while (pass()) {
    }
    return std::move(value_);
  }

 private:
  // True when something was left out.
  bool pass() {
    bool any = false;
    // By levels: whole policies go before their rules, rules before their fields.
    std::vector<Pointer> level{Pointer()};
    while (!level.empty()) {
      std::vector<Pointer> next;
      for (const Pointer& at : level) {
        if (!value_.contains(at)) continue;
        any = smaller(at) || any;
        add_children(at, next);
      }
      level = std::move(next);
    }
    return any;
  }

  void add_children(const Pointer& at, std::vector<Pointer>& children) const {
    const Json& node = value_.at(at);
    if (node.is_array())
      for (std::size_t i = 0; i < node.size(); ++i) children.push_back(at / i);
    if (node.is_object())
      for (const auto& [key, child] : node.items()) children.push_back(at / key);
  }

  bool smaller(const Pointer& at) {
    const Json& node = value_.at(at);
    if (node.is_array()) return fewer_items(at);
    return node.is_object() && fewer_fields(at);
  }

  bool fewer_items(const Pointer& at) {
    bool any = false;
    for (std::size_t width = value_.at(at).size(); width > 0; width /= 2)
      for (std::size_t first = 0; first < value_.at(at).size();) {
        Json candidate = value_;
        Json& list = candidate.at(at);
        const auto from = list.begin() + static_cast<std::ptrdiff_t>(first);
        list.erase(from, from + static_cast<std::ptrdiff_t>(std::min(width, list.size() - first)));
        if (take(std::move(candidate)))
          any = true;
        else
          first += width;
      }
    return any;
  }

  bool fewer_fields(const Pointer& at) {
    bool any = false;
    std::vector<std::string> keys;
    for (const auto& [key, child] : value_.at(at).items()) keys.push_back(key);
    for (const std::string& key : keys) {
      Json candidate = value_;
      candidate.at(at).erase(key);
      any = take(std::move(candidate)) || any;
    }
    return any;
  }

  bool take(Json candidate) {
    if (Clock::now() > end_ || !is_bad_(candidate)) return false;
    value_ = std::move(candidate);
    return true;
  }

  Json value_;
  const std::function<bool(const Json&)>& is_bad_;
  const Clock::time_point end_;
};

}  // namespace

Json shrink(Json value, const std::function<bool(const Json&)>& is_bad, std::chrono::seconds at_most) {
  return Shrinking(std::move(value), is_bad, at_most).run();
}

}  // namespace tierlog::lab::test
