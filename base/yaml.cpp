#include "base/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <system_error>
#include <unordered_map>
#include <unordered_set>

#include "base/files.h"
#include "base/yaml_text.h"

namespace tierlog::yaml {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// Thrown by the builder through yaml-cpp's parser, which has no other way to be stopped.
struct Refused {
  SourceRef place;
  std::string message;
};

// A position in the text, moved forward only.
struct Cursor {
  std::string_view text;
  std::size_t at = 0;
  int line = 1;
  int column = 1;

  bool done() const { return at >= text.size(); }
  char peek() const { return done() ? '\0' : text[at]; }
  void step() {
    if (done()) return;
    if (text[at++] == '\n') {
      ++line;
      column = 1;
    } else {
      ++column;
    }
  }
};

// Lays a scalar's value over its raw text, byte by byte, where they are not simply the same: block and
// folded scalars, escapes, doubled quotes.
std::vector<TextPiece> align(const std::string& value, Cursor raw) {
  const char style = raw.peek();
  if (style == '|' || style == '>')
    while (!raw.done() && raw.peek() != '\n') raw.step();
  else if (style == '"' || style == '\'')
    raw.step();
  const auto skippable = [&](char c) {
    return is_blank(c) || (style == '"' && c == '\\') || (style == '\'' && c == '\'');
  };
  std::vector<TextPiece> pieces;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const bool may_escape = style == '"' && raw.peek() == '\\';
    if (const std::size_t escape = may_escape ? escape_length(raw.text.substr(raw.at)) : 0; escape > 0) {
      pieces.push_back({i, raw.line, raw.column});
      for (std::size_t step = 0; step < escape; ++step) raw.step();
      i += std::max<std::size_t>(utf8_length(std::string_view(value).substr(i)), 1) - 1;
      continue;
    }
    if (is_blank(value[i]) && raw.peek() != value[i]) continue;
    Cursor found = raw;
    while (!found.done() && found.peek() != value[i] && skippable(found.peek())) found.step();
    if (found.peek() != value[i]) continue;
    raw = found;
    const bool follows = !pieces.empty() && pieces.back().line == raw.line &&
                         pieces.back().column + static_cast<int>(i - pieces.back().offset) == raw.column;
    if (!follows) pieces.push_back({i, raw.line, raw.column});
    raw.step();
  }
  return pieces;
}

// Whether the quote, or the { or [, at `at` finds its other half.
bool is_closed(Cursor at) {
  std::string open;  // what still needs its other half
  do {
    const char c = at.peek();
    const bool quoted = !open.empty() && (open.back() == '"' || open.back() == '\'');
    if (quoted) {
      if (open.back() == '"' && c == '\\')
        at.step();
      else if (c == open.back())
        open.pop_back();
    } else if (c == '"' || c == '\'' || c == '{' || c == '[') {
      open += c;
    } else if ((c == '}' || c == ']') && !open.empty()) {
      open.pop_back();
    }
    at.step();
  } while (!open.empty() && !at.done());
  return open.empty();
}

struct Anchored {
  Node node;
  std::size_t nodes = 0;
  std::size_t depth = 0;
};

// One map or list that is not closed yet.
struct Frame {
  Node node;
  std::size_t anchor = 0;
  std::size_t nodes_before = 0;
  std::size_t deepest = 0;  // levels below this one
  bool wants_key = true;    // of a map
  std::unordered_set<std::string> keys;
};

// yaml-cpp's events -> Node trees.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const ParserText& source, const std::string& file, const Limits& limits, Documents& result)
      : source_(source), text_(source.text()), file_(file), limits_(limits), result_(result) {}

  // The text handed to the parser starts here.
  void start_at(const Cursor& start) {
    start_ = start;
    last_document_.reset();
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    // What cannot begin a document, such as a comma, yaml-cpp takes for an empty one, for ever.
    const Cursor at = cursor(mark);
    if (last_document_ == at.at)
      throw Refused{place(at.line, at.column), "text that belongs to no value; expected --- before another document"};
    last_document_ = at.at;
    frames_.clear();
    anchors_.clear();
    root_ = Node{};
  }
  void OnDocumentEnd() override {
    if (root_.kind != Kind::Null) result_.documents.push_back(std::move(root_));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override;
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Kind::Sequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Kind::Map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

  SourceRef place(int line, int column) const { return {file_, line, column}; }
  Cursor cursor(const YAML::Mark& mark) const {
    if (mark.is_null()) return start_;
    return {text_, std::min(text_.size(), start_.at + static_cast<std::size_t>(mark.pos)),
            start_.line + mark.line, mark.column + 1};
  }

 private:
  Cursor value_start(const YAML::Mark& mark) const;
  SourceRef place_of_nothing(const Cursor& next) const;
  bool in_key_position() const {
    return !frames_.empty() && frames_.back().node.kind == Kind::Map && frames_.back().wants_key;
  }
  void count(std::size_t nodes, std::size_t depth, const SourceRef& where);
  void check_tag(const std::string& tag, const SourceRef& where);
  void open(Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor);
  void close();
  void deliver(Node node, std::size_t depth);
  void take_key(Frame& frame, Node key);
  static void merge(Node& map);

  const ParserText& source_;
  std::string_view text_;
  const std::string& file_;
  const Limits& limits_;
  Documents& result_;
  Cursor start_;
  Node root_;
  std::vector<Frame> frames_;
  std::unordered_map<YAML::anchor_t, Anchored> anchors_;
  std::size_t nodes_ = 0, copied_ = 0;
  std::optional<std::size_t> last_document_;  // where it began
};

// yaml-cpp marks a node with an anchor or tag at that property; people look for the value.
Cursor TreeBuilder::value_start(const YAML::Mark& mark) const {
  Cursor at = cursor(mark);
  while (at.peek() == '&' || at.peek() == '!') {
    while (!at.done() && !is_blank(at.peek())) at.step();
    while (!at.done() && is_blank(at.peek())) at.step();
  }
  return at;
}

// yaml-cpp marks an empty value at the token behind it, which may stand lines below.
SourceRef TreeBuilder::place_of_nothing(const Cursor& next) const {
  const std::string_view rest = text_.substr(std::min(next.at, text_.size()));
  if (rest.starts_with('~') || rest.starts_with("null") || rest.starts_with("Null") ||
      rest.starts_with("NULL"))
    return place(next.line, next.column);
  if (frames_.empty()) return place(next.line, next.column);
  const Frame& frame = frames_.back();
  if (frame.node.kind == Kind::Map && !frame.node.entries.empty())
    return frame.node.entries.back().first.place;
  if (frame.node.kind == Kind::Sequence && !frame.node.items.empty()) return frame.node.items.back().place;
  return frame.node.place;
}

void TreeBuilder::count(std::size_t nodes, std::size_t depth, const SourceRef& where) {
  nodes_ += nodes;
  if (nodes_ > limits_.max_nodes)
    throw Refused{where, "more than " + std::to_string(limits_.max_nodes) +
                             " values; expected a smaller file, or fewer uses of aliases"};
  if (frames_.size() + depth > limits_.max_depth)
    throw Refused{where, "nested more than " + std::to_string(limits_.max_depth) +
                             " levels deep; expected a flatter document"};
}

void TreeBuilder::check_tag(const std::string& tag, const SourceRef& where) {
  if (tag.empty() || tag == "?" || tag == "!" || tag.starts_with("tag:yaml.org,2002:")) return;
  result_.findings.error(where, "unknown tag \"" + tag +
                                    "\"; expected a plain value without a tag, or quotes around a value that begins with !");
}

void TreeBuilder::OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) {
  Node node;
  node.place = place_of_nothing(cursor(mark));
  count(1, 1, node.place);
  if (anchor != 0) anchors_[anchor] = {node, 1, 1};
  deliver(std::move(node), 1);
}

void TreeBuilder::OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) {
  const Cursor at = cursor(mark);
  const SourceRef where = place(at.line, at.column);
  const auto found = anchors_.find(anchor);
  if (found == anchors_.end())
    throw Refused{where,
                  "an alias inside the value that it stands for; expected an alias of an earlier value"};
  count(found->second.nodes, found->second.depth, where);
  copied_ += found->second.nodes;
  if (copied_ > limits_.max_copied)
    throw Refused{where, "aliases stand for more than " + std::to_string(limits_.max_copied) +
                             " values; expected fewer uses of aliases"};
  Node copy = found->second.node;
  deliver(std::move(copy), found->second.depth);
}

void TreeBuilder::OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                           const std::string& value) {
  const Cursor start = value_start(mark);
  Node node;
  node.kind = Kind::Scalar;
  node.text = value;
  // The header of a block scalar is not its text.
  const bool block = start.peek() == '|' || start.peek() == '>';
  source_.restore(node.text, block ? text_.find('\n', start.at) : start.at, start.peek() == '"');
  node.place = place(start.line, start.column);
  node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
  const bool has_quote = start.peek() == '"' || start.peek() == '\'';
  const Cursor property = cursor(mark);
  if (property.peek() == '!') {
    const SourceRef where = place(property.line, property.column);
    if (value.empty() && !has_quote) node.place = where;  // not at what comes next
    check_tag(tag, node.place);
    // YAML drops it: `! has(a)` would be the opposite of what stands there.
    if (tag == "!" && !has_quote && start.peek() != '|' && start.peek() != '>')
      result_.findings.error(where,
                             "a ! alone is a tag without meaning; expected quotes around a value that begins with !");
  } else {
    check_tag(tag, node.place);
  }
  // yaml-cpp takes the end of the file for the end of the text.
  if (has_quote && node.quoted && !is_closed(start))
    throw Refused{node.place, std::string("a quote that is never closed; expected another ") + start.peek()};
  const std::string_view raw =
      text_.substr(std::min(start.at + (has_quote ? 1 : 0), text_.size()), node.text.size());
  if (raw != node.text || node.quoted != has_quote) node.pieces = align(node.text, start);
  count(1, 1, node.place);
  if (anchor != 0) anchors_[anchor] = {node, 1, 1};
  deliver(std::move(node), 1);
}

void TreeBuilder::open(Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
  const Cursor start = value_start(mark);
  Frame frame;
  frame.node.kind = kind;
  frame.node.place = place(start.line, start.column);
  frame.anchor = anchor;
  frame.nodes_before = nodes_;
  check_tag(tag, frame.node.place);
  if (in_key_position()) {
    const char opens = start.peek();
    if ((opens == '{' || opens == '[') && !is_closed(start))
      throw Refused{frame.node.place,
                    std::string("a ") + opens + " that is never closed; expected " + (opens == '{' ? '}' : ']')};
    throw Refused{frame.node.place, "a map or list as a key; expected a plain key"};
  }
  count(1, 1, frame.node.place);
  frames_.push_back(std::move(frame));
}

void TreeBuilder::close() {
  Frame frame = std::move(frames_.back());
  frames_.pop_back();
  if (frame.node.kind == Kind::Map) merge(frame.node);
  if (frame.anchor != 0)
    anchors_[frame.anchor] = {frame.node, nodes_ - frame.nodes_before, frame.deepest + 1};
  deliver(std::move(frame.node), frame.deepest + 1);
}

void TreeBuilder::deliver(Node node, std::size_t depth) {
  if (frames_.empty()) {
    root_ = std::move(node);
    return;
  }
  Frame& frame = frames_.back();
  frame.deepest = std::max(frame.deepest, depth);
  if (frame.node.kind == Kind::Sequence) {
    frame.node.items.push_back(std::move(node));
  } else if (frame.wants_key) {
    take_key(frame, std::move(node));
    frame.wants_key = false;
  } else {
    frame.node.entries.back().second = std::move(node);
    frame.wants_key = true;
  }
}

void TreeBuilder::take_key(Frame& frame, Node key) {
  if (key.kind != Kind::Scalar) {
    result_.findings.error(key.place, "a key without text; expected a plain key");
    key.kind = Kind::Scalar;
  }
  if (!frame.keys.insert(key.text).second) {
    const Node* first = nullptr;
    for (const auto& entry : frame.node.entries)
      if (first == nullptr && entry.first.text == key.text) first = &entry.first;
    result_.findings.error(key.place, "duplicate key \"" + key.text +
                                          "\"; expected each key once (first in line " +
                                          std::to_string(first->place.line) + ")");
  }
  frame.node.entries.push_back({std::move(key), Node{}});
}

// YAML's merge key: "<<: *defaults" gives the map those entries that it does not have itself.
void TreeBuilder::merge(Node& map) {
  const auto is_merge = [](const auto& entry) {
    const Node& value = entry.second;
    const auto is_map = [](const Node& item) { return item.kind == Kind::Map; };
    return entry.first.text == "<<" && !entry.first.quoted &&
           (is_map(value) ||
            (value.kind == Kind::Sequence && std::all_of(value.items.begin(), value.items.end(), is_map)));
  };
  const auto found = std::find_if(map.entries.begin(), map.entries.end(), is_merge);
  if (found == map.entries.end()) return;
  const Node merged = std::move(found->second);
  map.entries.erase(found);
  const auto add = [&map](const Node& source) {
    for (const auto& entry : source.entries)
      if (map.find(entry.first.text) == nullptr) map.entries.push_back(entry);
  };
  if (merged.kind == Kind::Map) add(merged);
  for (const Node& item : merged.items) add(item);
}

bool check_text(std::string_view text, const std::string& file, Diagnostics& findings) {
  Cursor at{text};
  while (!at.done()) {
    const std::size_t length = at.peek() == '\0' ? 0 : utf8_length(text.substr(at.at));
    if (length == 0) {
      findings.error({file, at.line, at.column}, "a byte that is no text; expected UTF-8");
      return false;
    }
    for (std::size_t i = 0; i < length; ++i) at.step();
  }
  return true;
}

// Behind a malformed document the next one starts at a line "---": its findings are wanted too.
Cursor next_document(Cursor at, const Cursor& start) {
  const auto begins = [&at] { return at.text.substr(std::min(at.at, at.text.size())).starts_with("---"); };
  if (at.column == 1 && at.at > start.at && begins()) return at;
  while (!at.done()) {
    while (!at.done() && at.peek() != '\n') at.step();
    at.step();
    if (begins()) return at;
  }
  return at;
}

// yaml-cpp finds half a pair of surrogates when it is behind the escape.
std::optional<Cursor> half_pair(const YAML::ParserException& problem, Cursor at) {
  if (!problem.msg.starts_with("invalid unicode") || at.at == 0) return std::nullopt;
  const std::size_t escape = at.text.rfind('\\', at.at - 1);
  if (escape == std::string_view::npos || static_cast<int>(at.at - escape) >= at.column) return std::nullopt;
  at.column -= static_cast<int>(at.at - escape);
  at.at = escape;
  return at;
}

std::string yaml_complaint(const YAML::ParserException& problem, const Cursor& at) {
  const std::size_t line = at.text.rfind('\n', at.at == 0 ? 0 : at.at - 1);
  const std::string_view start = at.text.substr(line == std::string_view::npos ? 0 : line + 1);
  const std::string_view blanks = start.substr(0, start.find_first_not_of(" \t"));
  // JSON may be indented as it likes.
  const std::size_t first = at.text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && (at.text[first] == '{' || at.text[first] == '[');
  if (!json && blanks.find('\t') != std::string_view::npos)
    return "a tab in the indentation; expected spaces";
  return "not well-formed: " + problem.msg + "; expected YAML or JSON";
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  for (const auto& entry : entries)
    if (entry.first.text == key) return &entry.second;
  return nullptr;
}

bool Node::is_null() const {
  return kind == Kind::Null;
}

std::string Node::kind_name() const {
  if (kind == Kind::Null) return "null";
  if (kind == Kind::Map) return "a map";
  if (kind == Kind::Sequence) return "a list";
  if (as_bool()) return "a boolean";
  return as_double() ? "a number" : "a string";
}

std::optional<std::int64_t> Node::as_int() const {
  if (kind != Kind::Scalar || quoted || text.empty()) return std::nullopt;
  // A leading zero means octal to some readers of YAML and nothing to others.
  const std::size_t digits = text[0] == '-' ? 1 : 0;
  if (text.size() > digits + 1 && text[digits] == '0') return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> Node::as_double() const {
  if (kind != Kind::Scalar || quoted || text.empty()) return std::nullopt;
  if (text.find_first_not_of("0123456789.eE+-") != std::string::npos) return std::nullopt;
  const std::size_t sign = text[0] == '+' ? 1 : 0;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data() + sign, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool Node::is_odd_number() const {
  if (kind != Kind::Scalar || quoted) return false;
  std::string_view digits = text;
  if (digits.starts_with('-') || digits.starts_with('+')) digits.remove_prefix(1);
  const auto only = [](std::string_view part, std::string_view of) {
    return !part.empty() && part.find_first_not_of(of) == std::string_view::npos;
  };
  for (const auto& [prefix, of] : {std::pair<std::string_view, std::string_view>{"0x", "0123456789abcdefABCDEF_"},
                                   {"0o", "01234567_"}, {"0b", "01_"}, {"0", "0123456789_"}})
    if (digits.starts_with(prefix) && only(digits.substr(prefix.size()), of)) return true;
  return text.find_first_of("eE") != std::string::npos && as_double().has_value();
}

std::optional<bool> Node::as_bool() const {
  if (kind != Kind::Scalar || quoted) return std::nullopt;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

SourceRef Node::place_at(std::size_t offset) const {
  SourceRef at = place;
  if (pieces.empty()) {
    at.column += static_cast<int>(offset + (quoted ? 1 : 0));
    return at;
  }
  const TextPiece* piece = &pieces.front();
  for (const TextPiece& candidate : pieces)
    if (candidate.offset <= offset) piece = &candidate;
  at.line = piece->line;
  at.column = piece->column + static_cast<int>(offset - std::min(offset, piece->offset));
  return at;
}

Documents parse(std::string_view bytes, const std::string& file_name, const Limits& limits) {
  Documents result;
  if (bytes.size() > limits.max_bytes) {
    result.findings.error({file_name, 0, 0}, "larger than " + std::to_string(limits.max_bytes) +
                                                 " bytes; expected a smaller file");
    return result;
  }
  const ParserText source(bytes);
  const std::string_view text = source.text();
  if (!check_text(text, file_name, result.findings)) return result;
  TreeBuilder builder(source, file_name, limits, result);
  Cursor start{text};
  // Every new start copies the rest of the text; nobody repairs more than this many documents at a time.
  for (int starts = 0; !start.done() && starts < 50; ++starts) {
    builder.start_at(start);
    try {
      std::istringstream stream{std::string(source.for_parser().substr(start.at))};
      YAML::Parser parser(stream);
      while (parser.HandleNextDocument(builder)) {
      }
      break;
    } catch (const YAML::ParserException& problem) {
      const Cursor at = builder.cursor(problem.mark);
      if (const auto half = half_pair(problem, at))
        result.findings.error(
            builder.place(half->line, half->column),
            "an escape that is no character; expected one, or a whole pair such as \\ud83d\\ude00");
      else
        result.findings.error(builder.place(at.line, at.column), yaml_complaint(problem, at));
      start = next_document(at, start);
    } catch (const Refused& refused) {
      result.findings.error(refused.place, refused.message);
      break;
    }
  }
  return result;
}

std::optional<std::string> read_file(const std::string& path, Diagnostics& findings, const Limits& limits) {
  auto text = tierlog::read_file(path == "-" ? "/dev/stdin" : path, limits.max_bytes);
  if (text) return std::move(*text);
  const int number = text.error().errno_value;
  findings.error({path, 0, 0}, number == 0 ? text.error().message
                                           : "cannot be read: " + std::generic_category().message(number) +
                                                 "; expected a YAML or JSON file");
  return std::nullopt;
}

Documents parse_file(const std::string& path, const Limits& limits) {
  Documents result;
  const auto text = read_file(path, result.findings, limits);
  return text ? parse(*text, path, limits) : result;
}

}  // namespace tierlog::yaml
