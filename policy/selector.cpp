#include "policy/selector.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

namespace tierlog::policy {

struct Selector::Node {
  enum class Op {
    All,
    Global,
    Has,
    Equals,
    NotEquals,
    Contains,
    StartsWith,
    EndsWith,
    In,
    NotIn,
    Not,
    And,
    Or
  };
  Op op = Op::All;
  std::string label;
  std::vector<std::string> values;  // one, or a sorted set
  std::vector<std::shared_ptr<const Node>> operands;
};

namespace {

using Node = Selector::Node;
using NodePtr = std::shared_ptr<const Node>;
using Op = Node::Op;

constexpr std::size_t kMaxLabelLength = 512;
constexpr int kMaxDepth = 300;

NodePtr leaf(Op op, std::string label = {}, std::vector<std::string> values = {}) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->label = std::move(label);
  node->values = std::move(values);
  if (op == Op::In || op == Op::NotIn) {
    std::sort(node->values.begin(), node->values.end());
    node->values.erase(std::unique(node->values.begin(), node->values.end()), node->values.end());
  }
  return node;
}

NodePtr branch(Op op, std::vector<NodePtr> operands) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->operands = std::move(operands);
  return node;
}

NodePtr negated(const NodePtr& operand) {
  return operand->op == Op::Not ? operand->operands.front() : branch(Op::Not, {operand});
}

bool is_space(char c) {
  return c == ' ' || c == '\t';
}

bool is_label_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         c == '/' || c == '-';
}

// Recursive descent over the grammar of the semantics; the first error ends it.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  tl::expected<NodePtr, SelectorError> parse() {
    skip_space();
    if (done()) return leaf(Op::All);
    NodePtr root = parse_or();
    if (!error_) skip_space();
    if (!error_ && !done()) fail(at_, found() + "; expected &&, || or the end");
    if (error_) return tl::make_unexpected(*error_);
    return root;
  }

 private:
  bool done() const { return at_ >= text_.size(); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  void skip_space() {
    while (is_space(peek())) ++at_;
  }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  NodePtr fail(std::size_t offset, std::string message) {
    if (!error_) error_ = SelectorError{offset, std::move(message)};
    return nullptr;
  }
  // What stands here, for a message.
  std::string found() const {
    if (done()) return "the selector ends too early";
    if (peek() == '\n' || peek() == '\r') return "a line break is out of place";
    if (is_label_char(peek())) {
      std::size_t end = at_;
      while (end < text_.size() && is_label_char(text_[end])) ++end;
      return "\"" + std::string(text_.substr(at_, std::min(end - at_, std::size_t{40}))) +
             "\" is out of place";
    }
    // A character of several bytes is shown whole.
    std::size_t length = 1;
    while ((static_cast<unsigned char>(peek(length)) & 0xc0) == 0x80) ++length;
    return "\"" + std::string(text_.substr(at_, length)) + "\" is out of place";
  }

  NodePtr parse_chain(Op op, std::string_view sign, NodePtr (Parser::*next)());
  NodePtr parse_or() { return parse_chain(Op::Or, "||", &Parser::parse_and); }
  NodePtr parse_and() { return parse_chain(Op::And, "&&", &Parser::parse_operation); }
  NodePtr parse_operation();
  NodePtr parse_primary();
  NodePtr parse_parentheses();
  NodePtr parse_call();
  NodePtr parse_comparison();
  NodePtr parse_value(Op op, std::string label);
  NodePtr parse_set(Op op, std::string label);
  std::optional<std::string> parse_label();
  std::optional<std::string> parse_string();
  bool close_call();
  // "starts with" and "startswith".
  bool take_two(std::string_view first, std::string_view second);

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::optional<SelectorError> error_;
};

NodePtr Parser::parse_chain(Op op, std::string_view sign, NodePtr (Parser::*next)()) {
  std::vector<NodePtr> operands;
  do {
    NodePtr operand = (this->*next)();
    if (!operand) return nullptr;
    operands.push_back(std::move(operand));
    skip_space();
  } while (take(sign));
  if (peek() == sign[0] && peek(1) != sign[0])
    return fail(at_, "a single \"" + std::string(1, sign[0]) + "\"; expected \"" + std::string(sign) + "\"");
  return operands.size() == 1 ? operands.front() : branch(op, std::move(operands));
}

NodePtr Parser::parse_operation() {
  bool negate = false;
  skip_space();
  while (peek() == '!') {
    negate = !negate;
    ++at_;
    skip_space();
  }
  const NodePtr operand = parse_primary();
  return operand && negate ? negated(operand) : operand;
}

NodePtr Parser::parse_primary() {
  if (peek() == '(') return parse_parentheses();
  const std::string_view rest = text_.substr(at_);
  if (rest.starts_with("has(") || rest.starts_with("all(") || rest.starts_with("global("))
    return parse_call();
  if (is_label_char(peek())) return parse_comparison();
  if (peek() == '"' || peek() == '\'')
    return fail(at_, "a quoted text where a label belongs; expected a label without quotes");
  return fail(at_, found() + "; expected a label, has(), all(), global(), \"!\" or \"(\"");
}

NodePtr Parser::parse_parentheses() {
  const std::size_t opened = at_++;
  if (++depth_ > kMaxDepth)
    return fail(opened, "more than " + std::to_string(kMaxDepth) + " nested parentheses; expected fewer");
  NodePtr inner = parse_or();
  if (!inner) return nullptr;
  skip_space();
  if (!take(")")) return fail(at_, found() + "; expected \")\" or an operator");
  --depth_;
  return inner;
}

bool Parser::close_call() {
  skip_space();
  if (take(")")) return true;
  fail(at_, found() + "; expected \")\"");
  return false;
}

NodePtr Parser::parse_call() {
  if (take("all(")) return close_call() ? leaf(Op::All) : nullptr;
  if (take("global(")) return close_call() ? leaf(Op::Global) : nullptr;
  take("has(");
  skip_space();
  auto label = parse_label();
  return label && close_call() ? leaf(Op::Has, std::move(*label)) : nullptr;
}

std::optional<std::string> Parser::parse_label() {
  const std::size_t start = at_;
  while (is_label_char(peek())) ++at_;
  if (at_ == start) {
    fail(at_, found() + "; expected a label");
    return std::nullopt;
  }
  if (at_ - start > kMaxLabelLength) {
    fail(start, "a label of " + std::to_string(at_ - start) + " characters; expected at most " +
                    std::to_string(kMaxLabelLength));
    return std::nullopt;
  }
  return std::string(text_.substr(start, at_ - start));
}

bool Parser::take_two(std::string_view first, std::string_view second) {
  const std::size_t start = at_;
  if (!take(first)) return false;
  skip_space();
  if (take(second)) return true;
  at_ = start;
  return false;
}

NodePtr Parser::parse_comparison() {
  auto label = parse_label();
  if (!label) return nullptr;
  skip_space();
  if (take("==")) return parse_value(Op::Equals, std::move(*label));
  if (take("!=")) return parse_value(Op::NotEquals, std::move(*label));
  if (take("contains")) return parse_value(Op::Contains, std::move(*label));
  if (take_two("starts", "with")) return parse_value(Op::StartsWith, std::move(*label));
  if (take_two("ends", "with")) return parse_value(Op::EndsWith, std::move(*label));
  if (take_two("not", "in")) return parse_set(Op::NotIn, std::move(*label));
  if (take("in")) return parse_set(Op::In, std::move(*label));
  if (peek() == '=') return fail(at_, "a single \"=\"; expected \"==\"");
  return fail(at_, found() +
                       "; expected ==, !=, in, not in, contains, starts with or ends with after label \"" +
                       *label + "\"");
}

NodePtr Parser::parse_value(Op op, std::string label) {
  skip_space();
  auto value = parse_string();
  return value ? leaf(op, std::move(label), {std::move(*value)}) : nullptr;
}

NodePtr Parser::parse_set(Op op, std::string label) {
  skip_space();
  if (!take("{")) return fail(at_, found() + "; expected \"{\" and values in quotes");
  std::vector<std::string> values;
  for (skip_space(); !take("}"); skip_space()) {
    auto value = parse_string();
    if (!value) return nullptr;
    values.push_back(std::move(*value));
    skip_space();
    if (take("}")) break;
    if (!take(",")) return fail(at_, found() + "; expected \",\" or \"}\"");
  }
  return leaf(op, std::move(label), std::move(values));
}

std::optional<std::string> Parser::parse_string() {
  const char quote = peek();
  if (quote != '"' && quote != '\'') {
    fail(at_, found() + "; expected a value in quotes");
    return std::nullopt;
  }
  const std::size_t end = text_.find(quote, at_ + 1);
  if (end == std::string_view::npos) {
    fail(at_, "a text without its closing quote; expected " + std::string(1, quote));
    return std::nullopt;
  }
  std::string value(text_.substr(at_ + 1, end - at_ - 1));
  at_ = end + 1;
  return value;
}

std::string quoted(const std::string& value) {
  if (value.find('"') == std::string::npos) return "\"" + value + "\"";
  if (value.find('\'') == std::string::npos) return "'" + value + "'";
  // No selector text can say this; labels of foreign objects can, and equal text must mean the same.
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += separator;
    text += part;
  }
  return text;
}

std::string print(const Node& node) {
  const auto compare = [&](const char* sign) { return node.label + sign + quoted(node.values.front()); };
  const auto set = [&](const char* sign) {
    std::vector<std::string> values;
    for (const std::string& value : node.values) values.push_back(quoted(value));
    return node.label + sign + "{" + joined(values, ", ") + "}";
  };
  const auto chain = [&](const char* sign) {
    std::vector<std::string> operands;
    for (const NodePtr& operand : node.operands) operands.push_back(print(*operand));
    return "(" + joined(operands, sign) + ")";
  };
  switch (node.op) {
    case Op::All:
      return "all()";
    case Op::Global:
      return "global()";
    case Op::Has:
      return "has(" + node.label + ")";
    case Op::Equals:
      return compare(" == ");
    case Op::NotEquals:
      return compare(" != ");
    case Op::Contains:
      return compare(" contains ");
    case Op::StartsWith:
      return compare(" starts with ");
    case Op::EndsWith:
      return compare(" ends with ");
    case Op::In:
      return set(" in ");
    case Op::NotIn:
      return set(" not in ");
    case Op::Not:
      return "!" + print(*node.operands.front());
    case Op::And:
      return chain(" && ");
    case Op::Or:
      return chain(" || ");
  }
  return {};
}

bool compare_value(const Node& node, const std::string* value) {
  const auto listed = [&] { return std::binary_search(node.values.begin(), node.values.end(), *value); };
  switch (node.op) {
    case Op::Has:
      return value != nullptr;
    case Op::Equals:
      return value != nullptr && *value == node.values.front();
    case Op::NotEquals:
      return value == nullptr || *value != node.values.front();
    case Op::Contains:
      return value != nullptr && value->find(node.values.front()) != std::string::npos;
    case Op::StartsWith:
      return value != nullptr && value->starts_with(node.values.front());
    case Op::EndsWith:
      return value != nullptr && value->ends_with(node.values.front());
    case Op::In:
      return value != nullptr && listed();
    case Op::NotIn:
      return value == nullptr || !listed();
    default:
      return false;
  }
}

bool evaluate(const Node& node, const Labels& labels) {
  const auto holds = [&](const NodePtr& operand) { return evaluate(*operand, labels); };
  switch (node.op) {
    case Op::All:
      return true;
    case Op::Global:
      return labels.find(label::kNamespace) == labels.end();
    case Op::Not:
      return !holds(node.operands.front());
    case Op::And:
      return std::all_of(node.operands.begin(), node.operands.end(), holds);
    case Op::Or:
      return std::any_of(node.operands.begin(), node.operands.end(), holds);
    default:
      break;
  }
  const auto found = labels.find(node.label);
  return compare_value(node, found == labels.end() ? nullptr : &found->second);
}

bool contains(const Node& node, Op op) {
  return node.op == op || std::any_of(node.operands.begin(), node.operands.end(),
                                      [op](const NodePtr& operand) { return contains(*operand, op); });
}

// A copy with each node without operands replaced by what `change` makes of it.
NodePtr rewrite(const NodePtr& node, const std::function<NodePtr(const NodePtr&)>& change) {
  if (node->operands.empty()) return change(node);
  std::vector<NodePtr> operands;
  for (const NodePtr& operand : node->operands) operands.push_back(rewrite(operand, change));
  return branch(node->op, std::move(operands));
}

void collect_requirements(const Node& node, std::vector<Selector::Requirement>& into) {
  if (node.op == Op::Equals || node.op == Op::In) into.push_back({&node.label, &node.values});
  if (node.op == Op::And)
    for (const NodePtr& operand : node.operands) collect_requirements(*operand, into);
}

NodePtr prefixed(const NodePtr& node, std::string_view prefix) {
  if (node->label.empty()) return node;
  auto copy = std::make_shared<Node>(*node);
  copy->label = std::string(prefix) + node->label;
  return copy;
}

}  // namespace

Selector::Selector() : Selector(leaf(Op::All)) {}

Selector::Selector(std::shared_ptr<const Node> root)
    : root_(std::move(root)), canonical_(std::make_shared<const std::string>(print(*root_))) {}

tl::expected<Selector, SelectorError> Selector::parse(std::string_view text) {
  auto root = Parser(text).parse();
  if (!root) return tl::make_unexpected(std::move(root.error()));
  return Selector(std::move(*root));
}

Selector Selector::all() {
  return Selector();
}
Selector Selector::has(std::string label) {
  return Selector(leaf(Op::Has, std::move(label)));
}

Selector Selector::equals(std::string label, std::string value) {
  return Selector(leaf(Op::Equals, std::move(label), {std::move(value)}));
}

Selector Selector::in(std::string label, std::vector<std::string> values) {
  return Selector(leaf(Op::In, std::move(label), std::move(values)));
}

Selector Selector::not_in(std::string label, std::vector<std::string> values) {
  return Selector(leaf(Op::NotIn, std::move(label), std::move(values)));
}

Selector Selector::negate(const Selector& operand) {
  return Selector(negated(operand.root_));
}

Selector Selector::all_of(const std::vector<Selector>& operands) {
  std::vector<NodePtr> nodes;
  for (const Selector& operand : operands)
    if (!operand.is_all()) nodes.push_back(operand.root_);
  if (nodes.empty()) return all();
  return nodes.size() == 1 ? Selector(nodes.front()) : Selector(branch(Op::And, std::move(nodes)));
}

Selector Selector::any_of(const std::vector<Selector>& operands) {
  std::vector<NodePtr> nodes;
  for (const Selector& operand : operands) nodes.push_back(operand.root_);
  return nodes.size() == 1 ? Selector(nodes.front()) : Selector(branch(Op::Or, std::move(nodes)));
}

bool Selector::matches(const Labels& labels) const {
  return evaluate(*root_, labels);
}
const std::string& Selector::canonical() const {
  return *canonical_;
}
bool Selector::is_all() const {
  return root_->op == Op::All;
}
bool Selector::is_global() const {
  return root_->op == Op::Global;
}
bool Selector::uses_global() const {
  return contains(*root_, Op::Global);
}

std::vector<Selector::Requirement> Selector::requirements() const {
  std::vector<Requirement> found;
  collect_requirements(*root_, found);
  return found;
}

Selector Selector::with_prefix(std::string_view prefix) const {
  return Selector(rewrite(root_, [prefix](const NodePtr& node) { return prefixed(node, prefix); }));
}

Selector Selector::over_namespaces() const {
  return Selector(rewrite(root_, [](const NodePtr& node) {
    if (node->op == Op::All) return leaf(Op::Has, label::kNamespace);
    if (node->op == Op::Global) return negated(leaf(Op::Has, label::kNamespace));
    return prefixed(node, label::kNamespacePrefix);
  }));
}

}  // namespace tierlog::policy
