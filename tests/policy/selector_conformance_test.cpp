// Selectors of upstream's own tests, where they are at hand: what is legal, what it matches, its canonical
// form, and where global() may stand.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "policy/load.h"
#include "policy/selector.h"
#include "tests/policy/conformance.h"

namespace tierlog::policy {
namespace {

using nlohmann::json;

class UpstreamSelectors : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = conformance::file("selectors.json");
    std::ifstream input(path);
    if (!input) GTEST_SKIP() << conformance::missing(path);
    cases_ = json::parse(input);
  }
  json cases_;
};

TEST_F(UpstreamSelectors, LegalOnesAreRead) {
  for (const std::string text : cases_.at("valid")) {
    const auto selector = Selector::parse(text);
    ASSERT_TRUE(selector) << text << ": " << selector.error().message;
    EXPECT_EQ(Selector::parse(selector->canonical())->canonical(), selector->canonical()) << text;
  }
  EXPECT_GE(cases_["valid"].size(), 50u);
}

TEST_F(UpstreamSelectors, IllegalOnesAreRefused) {
  for (const std::string text : cases_.at("invalid")) EXPECT_FALSE(Selector::parse(text)) << text;
  EXPECT_GE(cases_["invalid"].size(), 10u);
}

TEST_F(UpstreamSelectors, MatchWhatTheyMatchUpstream) {
  for (const json& one : cases_.at("eval")) {
    const std::string text = one["selector"];
    Labels labels;
    for (const auto& [key, value] : one["labels"].items()) labels[key] = value;
    const auto selector = Selector::parse(text);
    ASSERT_TRUE(selector) << text;
    EXPECT_EQ(selector->matches(labels), one["match"].get<bool>()) << text << " of " << one["labels"];
  }
  EXPECT_GE(cases_["eval"].size(), 30u);
}

TEST_F(UpstreamSelectors, HaveTheCanonicalFormOfUpstream) {
  for (const json& one : cases_.at("canonical")) {
    const auto selector = Selector::parse(one["input"].get<std::string>());
    ASSERT_TRUE(selector) << one["input"];
    EXPECT_EQ(selector->canonical(), one["canonical"].get<std::string>());
  }
}

// A GlobalNetworkPolicy with `text` in that field, as JSON.
std::string policy_with(const std::string& field, const std::string& text) {
  json spec{{"ingress", json::array({{{"action", "Allow"}}})}};
  if (field.starts_with("spec."))
    spec[field.substr(5)] = text;
  else if (field.starts_with("rule.source.") || field.starts_with("rule.destination."))
    spec["ingress"][0][field.starts_with("rule.source.") ? "source" : "destination"]
        [field.substr(field.rfind('.') + 1)] = text;
  else
    ADD_FAILURE() << "unknown field " << field;
  return json{{"apiVersion", "projectcalico.org/v3"},
              {"kind", "GlobalNetworkPolicy"},
              {"metadata", {{"name", "p"}}},
              {"spec", spec}}
      .dump();
}

TEST_F(UpstreamSelectors, GlobalStandsAloneInARulesNamespaceSelector) {
  for (const json& one : cases_.at("context_global")) {
    const Loaded loaded = load_text(policy_with(one["field"], one["selector"]), "p.json");
    EXPECT_EQ(!loaded.findings.has_errors(), one["ok"].get<bool>()) << one << "\n"
                                                                    << loaded.findings.to_string();
  }
  EXPECT_GE(cases_["context_global"].size(), 3u);
}

}  // namespace
}  // namespace tierlog::policy
