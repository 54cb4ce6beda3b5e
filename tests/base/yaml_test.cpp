#include "base/yaml.h"

#include <gtest/gtest.h>

#include "base/fields.h"

namespace tierlog::yaml {
namespace {

Node only_document(std::string_view text) {
  Documents result = parse(text, "f");
  EXPECT_EQ(result.findings.to_string(), "") << text;
  EXPECT_EQ(result.documents.size(), 1u) << text;
  return result.documents.empty() ? Node{} : result.documents.front();
}

std::string at(const SourceRef& place) {
  return std::to_string(place.line) + ":" + std::to_string(place.column);
}

// Follows keys and [indices]: "a.b.[1]".
const Node* walk(const Node& root, std::string_view path) {
  const Node* node = &root;
  while (node != nullptr && !path.empty()) {
    const auto dot = path.find('.');
    const std::string_view step = path.substr(0, dot);
    path = dot == std::string_view::npos ? "" : path.substr(dot + 1);
    if (step.starts_with('['))
      node = &node->items.at(static_cast<std::size_t>(step[1] - '0'));
    else
      node = node->find(step);
  }
  return node;
}

struct Place {
  const char* name;
  const char* text;
  const char* path;
  const char* place;
};

class YamlPlaces : public testing::TestWithParam<Place> {};

TEST_P(YamlPlaces, AreWhereThePersonLooks) {
  const Node root = only_document(GetParam().text);
  const Node* node = walk(root, GetParam().path);
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(at(node->place), GetParam().place);
}

const Place kPlaces[] = {
    {"Plain", "a: 1\nbb: two\n", "bb", "2:5"},
    {"Quoted", "a: 'x'\n", "a", "1:4"},
    {"InMapOfMap", "a:\n  b:\n    c: 1\n", "a.b.c", "3:8"},
    {"Map", "a:\n  b: 1\n", "a", "2:3"},
    {"FlowMap", "a: {b: {c: 1}}\n", "a.b", "1:8"},
    {"ListItem", "a:\n- x\n- y\n", "a.[1]", "3:3"},
    {"ListItemMap", "a:\n  - b: 1\n    c: 2\n", "a.[0]", "2:5"},
    {"BehindComments", "# one\n\n# two\na: 1 # x\nb: 2\n", "b", "5:4"},
    {"BytesNotCharacters", "a: {é: x, b: y}\n", "a.b", "1:15"},
    {"WindowsLines", "a: 1\r\nb: 2\r\n", "b", "2:4"},
    {"EmptyValueIsAtItsKey", "a:\nb: 1\n", "a", "1:1"},
    {"WrittenNull", "a: ~\nb: null\n", "b", "2:4"},
    {"BehindAnAnchor", "a: &x\n  b: 1\nc: &y 5\n", "c", "3:7"},
    {"BehindATag", "a: !!str 5\n", "a", "1:10"},
    {"JsonTabs", "{\n\t\"a\": {\n\t\t\"b\": [1,\n\t\t 2]\n\t}\n}", "a.b.[1]", "4:4"},
    {"ByteOrderMark",
     "\xef\xbb\xbf"
     "a: 1\n",
     "a", "1:4"},
    {"ByteOrderMarkInALine", "x: 1\n\xef\xbb\xbf# from another file\na: 1\n", "a", "3:4"},
    {"BehindAPairOfSurrogates", R"({"x": "\ud83d\ude00", "a": 1})", "a", "1:28"},
};
INSTANTIATE_TEST_SUITE_P(Table, YamlPlaces, testing::ValuesIn(kPlaces),
                         [](const auto& param) { return param.param.name; });

struct Inside {
  const char* name;
  const char* text;
  std::size_t offset;
  const char* place;
};

class YamlInsideScalars : public testing::TestWithParam<Inside> {};

TEST_P(YamlInsideScalars, OffsetsHavePlaces) {
  const Node root = only_document(GetParam().text);
  EXPECT_EQ(at(root.find("a")->place_at(GetParam().offset)), GetParam().place) << root.find("a")->text;
}

const Inside kInside[] = {
    {"Plain", "a: hello\n", 2, "1:6"},
    {"End", "a: hello\n", 5, "1:9"},
    {"DoubleQuotes", "a: \"hello\"\n", 2, "1:7"},
    {"SingleQuotes", "a: 'hello'\n", 0, "1:5"},
    {"DoubledQuote", "a: 'it''s x'\n", 5, "1:11"},
    {"Escape", "a: \"x\\\"y\\\" z\"\n", 5, "1:12"},
    {"BehindAPairOfSurrogates",
     R"(a: "\ud83d\ude00 has)"
     "(b)\"\n",
     5, "1:18"},
    {"AtAPairOfSurrogates",
     R"(a: "x \uD83D\uDE00)"
     "\"\n",
     2, "1:7"},
    {"BehindOtherEscapes",
     R"(a: "\u00e9\t\x41\U0001f600)"
     "b\"\n",
     8, "1:27"},
    {"Folded", "a: >-\n  one\n  two three\n", 8, "3:7"},
    {"Literal", "a: |\n    one\n    two\n", 4, "3:5"},
    {"LiteralIndented", "a: |\n  one\n    two\n", 6, "3:5"},
    {"PlainOverLines", "a: one\n  two\n", 4, "2:3"},
    {"QuotedOverLines", "a: \"one\n\n  two\"\n", 4, "3:3"},
    {"TaggedString", "a: !!str 567\n", 1, "1:11"},
};
INSTANTIATE_TEST_SUITE_P(Table, YamlInsideScalars, testing::ValuesIn(kInside),
                         [](const auto& param) { return param.param.name; });

struct Kinds {
  const char* name;
  const char* text;
  const char* kind;
  std::optional<std::int64_t> as_int;
  std::optional<double> as_double;
  std::optional<bool> as_bool;
};

class YamlKinds : public testing::TestWithParam<Kinds> {};

TEST_P(YamlKinds, Scalars) {
  const Node root = only_document("a: " + std::string(GetParam().text) + "\n");
  const Node& node = *root.find("a");
  EXPECT_EQ(node.kind_name(), GetParam().kind);
  EXPECT_EQ(node.as_int(), GetParam().as_int);
  EXPECT_EQ(node.as_double(), GetParam().as_double);
  EXPECT_EQ(node.as_bool(), GetParam().as_bool);
}

const Kinds kKinds[] = {
    {"Word", "x", "a string", {}, {}, {}},
    {"Number", "5", "a number", 5, 5, {}},
    {"Negative", "-5", "a number", -5, -5, {}},
    {"Zero", "0", "a number", 0, 0, {}},
    {"Fraction", "1.5", "a number", {}, 1.5, {}},
    {"Exponent", "1e3", "a number", {}, 1000, {}},
    {"LeadingZero", "010", "a number", {}, 10, {}},
    {"Quoted", "\"5\"", "a string", {}, {}, {}},
    {"SingleQuoted", "'true'", "a string", {}, {}, {}},
    {"True", "true", "a boolean", {}, {}, true},
    {"YesIsAWord", "yes", "a string", {}, {}, {}},
    {"Infinity", ".inf", "a string", {}, {}, {}},
    {"Nan", "nan", "a string", {}, {}, {}},
    {"Address", "10.0.0.1", "a string", {}, {}, {}},
    {"Range", "1:5", "a string", {}, {}, {}},
    {"TooLarge", "99999999999999999999", "a number", {}, 99999999999999999999.0, {}},
    {"Null", "~", "null", {}, {}, {}},
    {"QuotedNull", "'null'", "a string", {}, {}, {}},
    {"EmptyString", "''", "a string", {}, {}, {}},
    {"List", "[]", "a list", {}, {}, {}},
    {"Map", "{}", "a map", {}, {}, {}},
};
INSTANTIATE_TEST_SUITE_P(Table, YamlKinds, testing::ValuesIn(kKinds),
                         [](const auto& param) { return param.param.name; });

struct Wrong {
  const char* name;
  std::string text;
  const char* findings;
};

class YamlFindings : public testing::TestWithParam<Wrong> {};

TEST_P(YamlFindings, NameThePlace) {
  EXPECT_EQ(parse(GetParam().text, "f").findings.to_string(), GetParam().findings);
}

const Wrong kWrong[] = {
    {"DuplicateKey", "a: 1\nb: 2\na: 3\n",
     "f:3:1: duplicate key \"a\"; expected each key once (first in line 1)\n"},
    {"DuplicateInFlow", "{a: 1, a: 2}",
     "f:1:8: duplicate key \"a\"; expected each key once (first in line 1)\n"},
    {"ListAsKey", "? [a]\n: b\n", "f:1:3: a map or list as a key; expected a plain key\n"},
    {"AliasOfItself", "a: &x\n  b: *x\n",
     "f:2:6: an alias inside the value that it stands for; expected an alias of an earlier value\n"},
    {"UnknownAlias", "a: *x\n",
     "f:1:4: not well-formed: the referenced anchor is not defined; expected YAML or JSON\n"},
    {"UnknownTag", "a: !secret x\n",
     "f:1:12: unknown tag \"!secret\"; expected a plain value without a tag, or quotes around a value that "
     "begins "
     "with !\n"},
    {"BangWithoutQuotes", "a: !has(x)\nb: 1\n",
     "f:1:4: unknown tag \"!has(x)\"; expected a plain value without a tag, or quotes around a value that "
     "begins "
     "with !\n"},
    {"LoneBang", "a: ! has(x)\nb: 1\n",
     "f:1:4: a ! alone is a tag without meaning; expected quotes around a value that begins with !\n"},
    {"OpenSingleQuote", "a: 'has(x)\n", "f:1:4: a quote that is never closed; expected another '\n"},
    {"OpenDoubleQuote", "a: \"x == 'y'\n", "f:1:4: a quote that is never closed; expected another \"\n"},
    {"OpenList", "{\"a\": [1, {\"b\": 2}", "f:1:1: a { that is never closed; expected }\n"},
    {"Tab", "a:\n\tb: 1\n", "f:2:3: a tab in the indentation; expected spaces\n"},
    {"NotText", std::string("a: b\nc: \x80\n"), "f:2:4: a byte that is no text; expected UTF-8\n"},
    {"Nul", std::string("a: \0", 4), "f:1:4: a byte that is no text; expected UTF-8\n"},
    {"Overlong", "a: \xc0\xaf\n", "f:1:4: a byte that is no text; expected UTF-8\n"},
    {"HighSurrogateAlone", R"({"a": "x\ud83d"})",
     "f:1:9: an escape that is no character; expected one, or a whole pair such as \\ud83d\\ude00\n"},
    {"LowSurrogateAlone", R"({"a": "\ude00\ud83d"})",
     "f:1:8: an escape that is no character; expected one, or a whole pair such as \\ud83d\\ude00\n"},
    {"SurrogateBehindAnEscapedBackslash", R"({"a": "\\ud83d\ude00"})",
     "f:1:15: an escape that is no character; expected one, or a whole pair such as \\ud83d\\ude00\n"},
    {"TwoBrokenDocuments", "a: [\n---\nb: }\n---\nc: 1\n",
     "f:2:1: not well-formed: end of sequence flow not found; expected YAML or JSON\n"
     "f:3:4: not well-formed: illegal flow end; expected YAML or JSON\n"},
};
INSTANTIATE_TEST_SUITE_P(Table, YamlFindings, testing::ValuesIn(kWrong),
                         [](const auto& param) { return param.param.name; });

// RFC 8259, section 7: only double quotes make them one character.
TEST(Yaml, EscapedSurrogatesAreOneCharacter) {
  const Node root = only_document(
      "double: \"x\\ud83d\\ude00y\\uD834\\uDD1E\"\n"
      "single: '\\ud83d\\ude00 \\uD834\\uDD1E'\n"
      "plain: \\uD83D\\uDE00 z\n"
      "block: | # \\uD83D\\uDE00\n  \\ud83d\\ude00\n"
      "\"key \\ud83d\\ude00\": \"\\\\ud83d\\\\ude00\"\n");
  EXPECT_EQ(root.find("double")->text, "x\xf0\x9f\x98\x80y\xf0\x9d\x84\x9e");
  EXPECT_EQ(root.find("single")->text, "\\ud83d\\ude00 \\uD834\\uDD1E");
  EXPECT_EQ(root.find("plain")->text, "\\uD83D\\uDE00 z");
  EXPECT_EQ(root.find("block")->text, "\\ud83d\\ude00\n");
  ASSERT_NE(root.find("key \xf0\x9f\x98\x80"), nullptr);
  EXPECT_EQ(root.find("key \xf0\x9f\x98\x80")->text, "\\ud83d\\ude00");
}

// Four of these stand for a pair inside: a text that has them itself keeps them.
TEST(Yaml, CharactersThatStandForNoneAreKept) {
  const std::string own = "\xef\xb7\x90\xef\xb7\x91\xef\xb7\x92\xef\xb7\xaf";
  EXPECT_EQ(only_document("a: \"" + own + "\"\n").find("a")->text, own);
  EXPECT_EQ(parse("a: \"" + own + "\"\nb: \"\\ud83d\\ude00\"\n", "f").findings.errors(), 1u);
}

TEST(Yaml, ByteOrderMarksOfFilesPutTogether) {
  const std::string mark = "\xef\xbb\xbf";
  const Documents two =
      parse(mark + "---\na: 1\n---\n" + mark + "a: 2\n" + mark + "---\r\na: \"" + mark + "3\"\n", "f");
  EXPECT_EQ(two.findings.to_string(), "");
  ASSERT_EQ(two.documents.size(), 3u);
  EXPECT_EQ(at(two.documents[1].find("a")->place), "4:4");
  EXPECT_EQ(two.documents[2].find("a")->text, mark + "3");
}

TEST(Yaml, DocumentsWithoutContentAreLeftOut) {
  EXPECT_EQ(parse("---\n# nothing\n---\na: 1\n---\n...\n", "f").documents.size(), 1u);
  EXPECT_TRUE(parse("", "f").documents.empty());
}

TEST(Yaml, AliasesAreCopies) {
  const Node root = only_document("a: &x {b: [1, 2]}\nc: *x\n");
  EXPECT_EQ(walk(root, "c.b.[1]")->text, "2");
  EXPECT_EQ(at(walk(root, "c.b.[1]")->place), "1:15") << "an item stands where it was written";
}

TEST(Yaml, MergeKeysFillIn) {
  const Node root = only_document("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n  z: 4\n");
  EXPECT_EQ(walk(root, "use.x")->text, "1");
  EXPECT_EQ(walk(root, "use.y")->text, "3");
  EXPECT_EQ(root.find("use")->find("<<"), nullptr);
}

TEST(Yaml, AliasBombsAreRefused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int j = 0; j < 9; ++j) text += ", " + last;
    text += "]\n";
  }
  const Documents result = parse(text, "f");
  ASSERT_EQ(result.findings.errors(), 1u);
  EXPECT_NE(result.findings.to_string().find("aliases stand for more than 500000 values"), std::string::npos);
}

TEST(Yaml, TextThatBelongsToNothingEndsTheReading) {
  const Documents result = parse("\"a\", \"b\"\n", "f");
  EXPECT_EQ(result.findings.to_string(),
            "f:1:4: text that belongs to no value; expected --- before another document\n");
  EXPECT_EQ(parse("---\n---\n--- a\n...\n--- b\n---\n", "f").documents.size(), 2u);
}

TEST(Yaml, DepthIsBoundedThroughAliasesToo) {
  EXPECT_EQ(parse(std::string(64, '[') + std::string(64, ']'), "f").findings.to_string(), "");
  EXPECT_EQ(parse(std::string(65, '[') + std::string(65, ']'), "f").findings.to_string(),
            "f:1:65: nested more than 64 levels deep; expected a flatter document\n");
  std::string text = "a0: &a0 [x]\n";
  for (int i = 1; i < 100; ++i)
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + "]\n";
  EXPECT_NE(parse(text, "f").findings.to_string().find("nested more than 64 levels deep"), std::string::npos);
}

TEST(Yaml, SizeIsBounded) {
  Limits limits;
  limits.max_bytes = 10;
  EXPECT_EQ(parse("a: 1234567890\n", "f", limits).findings.to_string(),
            "f: larger than 10 bytes; expected a smaller file\n");
}

TEST(Yaml, FilesThatCannotBeRead) {
  EXPECT_EQ(parse_file("/nowhere/x.yaml").findings.to_string(),
            "/nowhere/x.yaml: cannot be read: No such file or directory; expected a YAML or JSON file\n");
  EXPECT_EQ(parse_file("/tmp").findings.to_string(),
            "/tmp: is a folder; expected a regular file\n");
}

TEST(Fields, ReadTypesAndReportTheRest) {
  const Node root =
      only_document("name: x\ncount: 5\nflag: true\nlist: [a, 5]\nnothing: ~\ncolour: gren\ncuont: 6\n");
  Diagnostics findings;
  {
    Fields fields(root, "a thing", findings);
    EXPECT_EQ(fields.string("name"), "x");
    EXPECT_EQ(fields.integer("count", 0, 9), 5);
    EXPECT_EQ(fields.boolean("flag"), true);
    EXPECT_EQ(fields.strings("list"), std::vector<std::string>{"a"});
    EXPECT_EQ(fields.get("nothing"), nullptr);
    EXPECT_EQ(fields.choice("colour", {"red", "green"}), std::nullopt);
    EXPECT_EQ(fields.require("missing"), nullptr);
  }
  findings.sort();
  EXPECT_EQ(findings.to_string(),
            "f:1:1: missing field \"missing\" in a thing; it is required\n"
            "f:4:11: list: \"5\" is a number; expected a string (write it in quotes)\n"
            "f:6:9: unknown colour \"gren\"; expected red or green (did you mean green?)\n"
            "f:7:1: unknown field \"cuont\" in a thing; expected colour, count, flag, list, missing, name or "
            "nothing "
            "(did you mean count?)\n");
}

}  // namespace
}  // namespace tierlog::yaml
