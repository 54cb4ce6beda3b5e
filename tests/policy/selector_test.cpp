#include "policy/selector.h"
#include "tests/policy/conformance.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace tierlog::policy {
namespace {

using nlohmann::json;

Selector parsed(std::string_view text) {
  const auto selector = Selector::parse(text);
  EXPECT_TRUE(selector) << text << ": " << (selector ? "" : selector.error().message);
  return selector ? *selector : Selector::all();
}

struct Match {
  const char* name;
  const char* selector;
  Labels labels;
  bool matches;
};

class SelectorMatches : public testing::TestWithParam<Match> {};

TEST_P(SelectorMatches, AsTheGrammarSays) {
  const Match& c = GetParam();
  EXPECT_EQ(parsed(c.selector).matches(c.labels), c.matches) << c.selector;
}

const Match kMatches[] = {
    {"EmptyIsAll", "", {}, true},
    {"BlanksAreAll", " \t ", {{"a", "b"}}, true},
    {"Equal", "a == 'b'", {{"a", "b"}}, true},
    {"EqualNeedsTheLabel", "a == ''", {}, false},
    {"EmptyValue", "a == ''", {{"a", ""}}, true},
    {"NotEqualMatchesAbsence", "a != 'b'", {}, true},
    {"NotEqual", "a != 'b'", {{"a", "b"}}, false},
    {"NotInMatchesAbsence", "a not in {'b'}", {}, true},
    {"NotinInOneWord", "a notin {'b', 'c'}", {{"a", "c"}}, false},
    {"InEmptySet", "a in {}", {{"a", ""}}, false},
    {"NotInEmptySet", "a not in {}", {{"a", "x"}}, true},
    {"TrailingComma", "a in {'x', 'y',}", {{"a", "y"}}, true},
    {"Contains", "a contains 'ell'", {{"a", "hello"}}, true},
    {"ContainsNeedsTheLabel", "a contains ''", {}, false},
    {"StartsWith", "a starts  with 'he'", {{"a", "hello"}}, true},
    {"StartswithEnd", "a startswith 'lo'", {{"a", "hello"}}, false},
    {"EndsWith", "a ends\twith 'lo'", {{"a", "hello"}}, true},
    {"NotBindsToTheComparison", "!a == 'x'", {{"a", "y"}}, true},
    {"NotBindsTighterThanAnd", "!a == 'x' && b == 'y'", {{"a", "x"}, {"b", "y"}}, false},
    {"AndBindsTighterThanOr", "a == '1' || b == '1' && c == '1'", {{"a", "1"}}, true},
    {"Parentheses", "(a == '1' || b == '1') && c == '1'", {{"a", "1"}}, false},
    {"ThreeNots", "!!!has(a)", {}, true},
    {"NotsWithBlanks", "! !! has(a)", {}, true},
    {"KeywordsAsLabels", "in in {'in'}", {{"in", "in"}}, true},
    {"HasAsLabel", "has == 'x'", {{"has", "x"}}, true},
    {"AllAsLabel", "all == 'x' && !global == 'y'", {{"all", "x"}}, true},
    {"LabelWithSlashAndDots", "a.b/c-d_E == 'x'", {{"a.b/c-d_E", "x"}}, true},
    {"GlobalWithoutNamespace", "global()", {}, true},
    {"GlobalWithNamespace", "global()", {{"projectcalico.org/namespace", "x"}}, false},
    {"OtherQuoteInside", "a == \"'\"", {{"a", "'"}}, true},
    {"NoEscapes", "a == '\\'", {{"a", "\\"}}, true},
    {"Utf8Value", "a == 'é'", {{"a", "é"}}, true},
};
INSTANTIATE_TEST_SUITE_P(Table, SelectorMatches, testing::ValuesIn(kMatches),
                         [](const auto& param) { return param.param.name; });

struct Canonical {
  const char* name;
  const char* selector;
  const char* canonical;
};

class SelectorCanonical : public testing::TestWithParam<Canonical> {};

TEST_P(SelectorCanonical, IsOneTextForOneMeaning) {
  const Selector selector = parsed(GetParam().selector);
  EXPECT_EQ(selector.canonical(), GetParam().canonical);
  EXPECT_EQ(parsed(selector.canonical()).canonical(), GetParam().canonical) << "it reads back as itself";
}

const Canonical kCanonical[] = {
    {"Empty", "", "all()"},
    {"Spaces", "a=='b'&&has( c )", "(a == \"b\" && has(c))"},
    {"SetsSortedOnce", "a in {'z','a','z'}", "a in {\"a\", \"z\"}"},
    {"DoubleNot", "!!a == 'x'", "a == \"x\""},
    {"TripleNot", "!!!has(a)", "!has(a)"},
    {"NotOfGroup", "!(a == 'x' || has(b))", "!(a == \"x\" || has(b))"},
    {"NotOfNotInGroup", "!(!has(b))", "has(b)"},
    {"QuoteInside", "a != '\"'", "a != '\"'"},
    {"Words", "a startswith 'x' || a endswith 'y' || a notin {}",
     "(a starts with \"x\" || a ends with \"y\" || a not in {})"},
    {"Nested", "((a == 'b'))", "a == \"b\""},
    {"MixedOperators", "has(a) && has(b) || has(c)", "((has(a) && has(b)) || has(c))"},
};
INSTANTIATE_TEST_SUITE_P(Table, SelectorCanonical, testing::ValuesIn(kCanonical),
                         [](const auto& param) { return param.param.name; });

struct Required {
  const char* name;
  const char* selector;
  const char* required;  // "label=value,value;" each
};

class SelectorRequires : public testing::TestWithParam<Required> {};

TEST_P(SelectorRequires, WhatEverybodyItMatchesHas) {
  const Selector selector = parsed(GetParam().selector);
  std::string text;
  for (const Selector::Requirement& requirement : selector.requirements()) {
    text += *requirement.label + "=";
    for (const std::string& value : *requirement.values) text += value + ",";
    text += ";";
  }
  EXPECT_EQ(text, GetParam().required);
}

const Required kRequired[] = {
    {"Nothing", "all()", ""},
    {"AValue", "a == 'x'", "a=x,;"},
    {"OneOfSome", "a in {'x', 'y'}", "a=x,y,;"},
    {"NoValueAtAll", "a in {}", "a=;"},
    {"AllOfThem", "a == 'x' && (b == 'y' && has(c)) && d != 'z'", "a=x,;b=y,;"},
    {"NotBehindOr", "a == 'x' || b == 'y'", ""},
    {"NotBehindNot", "!(a == 'x' && b == 'y')", ""},
    {"OrBesideAnd", "(a == 'x' || b == 'y') && c == 'z'", "c=z,;"},
};
INSTANTIATE_TEST_SUITE_P(Table, SelectorRequires, testing::ValuesIn(kRequired),
                         [](const auto& param) { return param.param.name; });

struct Broken {
  const char* name;
  const char* selector;
  std::size_t offset;
  const char* message;
};

class SelectorErrors : public testing::TestWithParam<Broken> {};

TEST_P(SelectorErrors, NameThePlace) {
  const auto selector = Selector::parse(GetParam().selector);
  ASSERT_FALSE(selector) << selector->canonical();
  EXPECT_EQ(selector.error().offset, GetParam().offset);
  EXPECT_EQ(selector.error().message, GetParam().message);
}

const Broken kBroken[] = {
    {"OneEqualSign", "role = 'db'", 5, "a single \"=\"; expected \"==\""},
    {"ThreeEqualSigns", "a === 'b'", 4, "\"=\" is out of place; expected a value in quotes"},
    {"OneAmpersand", "has(a) & has(b)", 7, "a single \"&\"; expected \"&&\""},
    {"OneBar", "has(a) | has(b)", 7, "a single \"|\"; expected \"||\""},
    {"NoOperator", "a b", 2,
     "\"b\" is out of place; expected ==, !=, in, not in, contains, starts with or ends with after label "
     "\"a\""},
    {"ValueWithoutQuotes", "role == db", 8, "\"db\" is out of place; expected a value in quotes"},
    {"OpenString", "role == 'db", 8, "a text without its closing quote; expected '"},
    {"OpenParenthesis", "(a == 'b'", 9, "the selector ends too early; expected \")\" or an operator"},
    {"EmptyParentheses", "()", 1,
     "\")\" is out of place; expected a label, has(), all(), global(), \"!\" or \"(\""},
    {"OpenHas", "has( foo ", 9, "the selector ends too early; expected \")\""},
    {"BlankBeforeParenthesis", "has (a)", 4,
     "\"(\" is out of place; expected ==, !=, in, not in, contains, starts with or ends with after label "
     "\"has\""},
    {"Trailing", "has(a) has(b)", 7, "\"has\" is out of place; expected &&, || or the end"},
    {"Dangling", "has(a) &&", 9,
     "the selector ends too early; expected a label, has(), all(), global(), \"!\" or \"(\""},
    {"QuotedLabel", "'b1' == b", 0, "a quoted text where a label belongs; expected a label without quotes"},
    {"SetWithoutBraces", "a in 'b'", 5, "\"'\" is out of place; expected \"{\" and values in quotes"},
    {"SetWithoutComma", "a in {'b' 'c'}", 10, "\"'\" is out of place; expected \",\" or \"}\""},
    {"NewlineIsNoBlank", "has(a)\n&& has(b)", 6, "a line break is out of place; expected &&, || or the end"},
    {"Utf8", "é == 'x'", 0,
     "\"é\" is out of place; expected a label, has(), all(), global(), \"!\" or \"(\""},
};
INSTANTIATE_TEST_SUITE_P(Table, SelectorErrors, testing::ValuesIn(kBroken),
                         [](const auto& param) { return param.param.name; });

TEST(Selector, DeepNestingIsAnErrorNotACrash) {
  const auto selector = Selector::parse(std::string(100'000, '('));
  ASSERT_FALSE(selector);
  EXPECT_EQ(selector.error().message, "more than 300 nested parentheses; expected fewer");
}

TEST(Selector, BuiltWithoutText) {
  const Selector selector =
      Selector::all_of({Selector::all(), Selector::equals("a", "x"), Selector::negate(Selector::has("b")),
                        Selector::not_in("c", {"2", "1"})});
  EXPECT_EQ(selector.canonical(), "(a == \"x\" && !has(b) && c not in {\"1\", \"2\"})");
  EXPECT_TRUE(Selector::all_of({}).is_all());
  EXPECT_EQ(Selector::all_of({Selector::has("a")}), Selector::has("a"));
  EXPECT_EQ(Selector::any_of({Selector::has("a"), Selector::in("b", {"x"})}).canonical(),
            "(has(a) || b in {\"x\"})");
  EXPECT_FALSE(Selector::any_of({}).matches({}));
  EXPECT_NE(Selector::equals("a", "\"'"), Selector::equals("a", "\"\\'"));
}

TEST(Selector, PrefixesEveryLabel) {
  EXPECT_EQ(parsed("a == 'x' && !(has(b) || c in {'y'})").with_prefix("pcsa.").canonical(),
            "(pcsa.a == \"x\" && !(has(pcsa.b) || pcsa.c in {\"y\"}))");
  EXPECT_EQ(parsed("all()").with_prefix("pcsa.").canonical(), "all()");
}

TEST(Selector, OverNamespaces) {
  EXPECT_EQ(parsed("team == 'x'").over_namespaces().canonical(), "pcns.team == \"x\"");
  EXPECT_EQ(parsed("all()").over_namespaces().canonical(), "has(projectcalico.org/namespace)");
  EXPECT_EQ(parsed(" global() ").over_namespaces().canonical(), "!has(projectcalico.org/namespace)");
  EXPECT_TRUE(parsed(" global() ").is_global());
  EXPECT_TRUE(parsed("global() || all()").uses_global());
  EXPECT_FALSE(parsed("global() || all()").is_global());
}

// The cases of the upstream parser, where they are at hand.
class SelectorConformance : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = conformance::file("selectors.json");
    std::ifstream file(path);
    if (!file) GTEST_SKIP() << conformance::missing(path);
    cases_ = json::parse(file);
  }

  json cases_;
};

TEST_F(SelectorConformance, Valid) {
  for (const json& text : cases_["valid"]) EXPECT_TRUE(Selector::parse(text.get<std::string>())) << text;
}

TEST_F(SelectorConformance, Invalid) {
  for (const json& text : cases_["invalid"]) EXPECT_FALSE(Selector::parse(text.get<std::string>())) << text;
}

TEST_F(SelectorConformance, Evaluated) {
  ASSERT_FALSE(cases_["eval"].empty());
  for (const json& c : cases_["eval"]) {
    Labels labels;
    for (const auto& [key, value] : c["labels"].items()) labels[key] = value.get<std::string>();
    EXPECT_EQ(parsed(c["selector"].get<std::string>()).matches(labels), c["match"].get<bool>()) << c;
  }
}

TEST_F(SelectorConformance, Canonical) {
  for (const json& c : cases_["canonical"])
    EXPECT_EQ(parsed(c["input"].get<std::string>()).canonical(), c["canonical"].get<std::string>());
}

}  // namespace
}  // namespace tierlog::policy
