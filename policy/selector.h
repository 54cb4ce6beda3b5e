// policy/selector.h - Calico's selector expressions: text -> tree -> true or false for some labels.
//
//   YAML selector / Kubernetes labelSelector --> [Selector] --> policy/resolve.h (who is selected)
//                                                         `--> policy/compile.h (address sets)
//
// Source of the grammar: "Selector grammar" of the policy semantics, see docs/semantics.md.
// Immutable and cheap to copy (the tree is shared); equal canonical text = same meaning.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>
#include "policy/labels.h"

namespace tierlog::policy {

struct SelectorError {
  std::size_t offset = 0;  // bytes from the start of the expression to what is wrong
  std::string message;     // "what is wrong; what was expected"
};

class Selector {
 public:
  struct Node;  // in selector.cpp

  Selector();  // all()
  static tl::expected<Selector, SelectorError> parse(std::string_view text);

  // The same expressions without text, for labelSelectors and for namespace limits.
  static Selector all();
  static Selector has(std::string label);
  static Selector equals(std::string label, std::string value);
  static Selector in(std::string label, std::vector<std::string> values);
  static Selector not_in(std::string label, std::vector<std::string> values);  // matches absence
  static Selector negate(const Selector& operand);
  static Selector all_of(const std::vector<Selector>& operands);  // all() when empty; all() operands drop out
  static Selector any_of(const std::vector<Selector>& operands);

  bool matches(const Labels& labels) const;
  // "(a == \"b\" && !has(c))": sets sorted, blanks and quotes as in the semantics.
  const std::string& canonical() const;
  bool is_all() const;       // exactly all() or empty
  bool is_global() const;    // exactly global()
  bool uses_global() const;  // global() somewhere in it
  // Every label name with `prefix` in front (namespace selectors see "pcns." labels).
  Selector with_prefix(std::string_view prefix) const;
  // As a namespaceSelector means it: labels get "pcns.", all() is whatever has a namespace, global()
  // whatever has none.
  Selector over_namespaces() const;

  // What everybody whom it matches has: one of these values of this label. Valid as long as the selector.
  struct Requirement {
    const std::string* label = nullptr;
    const std::vector<std::string>* values = nullptr;
  };
  std::vector<Requirement> requirements() const;

  bool operator==(const Selector& other) const { return canonical() == other.canonical(); }

 private:
  explicit Selector(std::shared_ptr<const Node> root);
  std::shared_ptr<const Node> root_;
  std::shared_ptr<const std::string> canonical_;
};

}  // namespace tierlog::policy
