#include "dataplane/nftables/elements.h"

#include <algorithm>
#include <utility>

namespace tierlog::dataplane::nftables {
namespace {

bool out_of_order(const Element& a, const Element& b) {
  return !by_key(a, b);
}

bool in_order(const std::vector<Element>& elements) {
  return std::adjacent_find(elements.begin(), elements.end(), out_of_order) == elements.end();
}

}  // namespace

std::optional<Bytes> successor(Bytes key) {
  for (std::size_t i = key.size(); i-- > 0;)
    if (++key[i] != 0) return key;
  return std::nullopt;
}

bool by_key(const Element& a, const Element& b) {
  return a.key != b.key ? a.key < b.key : a.interval_end && !b.interval_end;
}

bool same_value(const Element& a, const Element& b) {
  if (a.verdict.has_value() != b.verdict.has_value() || a.data != b.data) return false;
  return !a.verdict || (a.verdict->kind == b.verdict->kind && a.verdict->chain == b.verdict->chain);
}

Elements sorted(std::vector<Element> elements) {
  if (!in_order(elements)) {
    std::stable_sort(elements.begin(), elements.end(), by_key);
    elements.erase(std::unique(elements.begin(), elements.end(), out_of_order), elements.end());
  }
  return elements;
}

Elements sorted(const Elements& elements) {
  return in_order(elements.all()) ? elements : sorted(std::vector<Element>(elements.all()));
}

}  // namespace tierlog::dataplane::nftables
