// Commands on policy files: lint, selector, explain -f, test.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::run;
using testing_program::Words;
using Json = nlohmann::json;

const std::string kPolicies = TIERLOG_SOURCE_DIR "/examples/policies";
const std::string kTopology = TIERLOG_SOURCE_DIR "/examples/topologies/tenants.yaml";

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Files : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_.file(name)) << text;
    return folder_.file(name);
  }
  store::sample::Folder folder_;
};

constexpr const char* kTwoMistakes = R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec:
  selector: role = 'x'
  ingress:
  - action: Dney
)";

TEST_F(Files, CompileForEbpfRefusesWhatIsBeyondALimit) {
  const auto compile = [](Words more) {
    Words words{"compile", "-f", kPolicies, "--topology", kTopology};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  EXPECT_EQ(compile({"--via", "ebpf"}).code, 0);
  const Outcome refused = compile({"--via", "ebpf", "--limits", "max_rules=3"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(has(refused.err, "pass the limit; 3 are the limit (ebpf.max_rules)")) << refused.err;
  const Outcome unknown = compile({"--via", "ebpf", "--limits", "max_rule=3"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(has(unknown.err, "unknown limit \"max_rule\"; expected one of max_endpoints, ")) << unknown.err;
  EXPECT_EQ(compile({"--limits", "max_rules=3"}).code, 2) << "of nftables there are none";
}

TEST_F(Files, LintOfGoodFilesIsQuiet) {
  const Outcome outcome = run({"lint", kPolicies});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(has(outcome.out, " policies in ")) << outcome.out;
}

TEST_F(Files, LintSaysAllFindingsWithPlaces) {
  const std::string file = write("bad.yaml", kTwoMistakes);
  const Outcome outcome = run({"lint", file});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_TRUE(has(outcome.err, file + ":5:")) << outcome.err;
  EXPECT_TRUE(has(outcome.err, file + ":7:")) << outcome.err;
  EXPECT_EQ(outcome.out, "2 errors in 1 file\n");
}

TEST_F(Files, LintItemsAreTheFindings) {
  const std::string file = write("bad.yaml", kTwoMistakes);
  const Outcome outcome = run({"lint", "-o", "json", file});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "");
  const Json items = Json::parse(outcome.out)["items"];
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0]["severity"], "error");
  EXPECT_EQ(items[0]["line"], 5);
}

TEST_F(Files, LintWarningsCountOnlyWhenStrict) {
  const std::string file = write("log-only.yaml", R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec:
  selector: all()
  ingress:
  - action: Log
)");
  const Outcome lenient = run({"lint", file});
  EXPECT_EQ(lenient.code, 0);
  EXPECT_TRUE(has(lenient.err, "warning: ")) << lenient.err;
  const Outcome strict = run({"lint", "--strict", file});
  EXPECT_EQ(strict.code, 2);
  EXPECT_FALSE(has(strict.err, "warning: ")) << strict.err;
  EXPECT_EQ(strict.out, "1 error in 1 file\n");
}

TEST_F(Files, LintNamesDomainNamesAndIsStrictAboutThem) {
  const std::string file = write("domains.yaml", R"(apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Admin
  priority: 5
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{domainNames: ["*.example.com"]}]}
  - {action: Pass, to: [{domainNames: [x.example.com]}]}
)");
  const Outcome lenient = run({"lint", file});
  EXPECT_EQ(lenient.code, 0);
  EXPECT_EQ(lenient.err, file + ":9:28: warning: domainNames as a peer cannot be enforced; this rule allows nothing\n" +
                             file + ":10:26: warning: domainNames as a peer cannot be enforced; this rule denies "
                                    "everything instead\n");
  const Outcome strict = run({"lint", "--strict", file});
  EXPECT_EQ(strict.code, 2);
  EXPECT_EQ(strict.out, "2 errors in 1 file\n");
  EXPECT_TRUE(has(strict.err, ":9:28: domainNames as a peer cannot be enforced")) << strict.err;
}

struct SelectorCase {
  const char* name;
  Words words;
  int code;
  const char* out;
};

class Selectors : public testing::TestWithParam<SelectorCase> {};

TEST_P(Selectors, Answer) {
  Words words = {"selector"};
  words.insert(words.end(), GetParam().words.begin(), GetParam().words.end());
  const Outcome outcome = run(words);
  EXPECT_EQ(outcome.code, GetParam().code) << outcome.err;
  EXPECT_EQ(outcome.out, GetParam().out);
}

INSTANTIATE_TEST_SUITE_P(
    Expressions, Selectors,
    testing::Values(SelectorCase{"canonical", {"a=='b'&&!has(c)"}, 0, "(a == \"b\" && !has(c))\n"},
                    SelectorCase{"set", {"a in {'y','x','x'}"}, 0, "a in {\"x\", \"y\"}\n"},
                    SelectorCase{"empty", {""}, 0, "all()\n"},
                    SelectorCase{"true", {"a == 'b'", "--labels", "a=b,c=d"}, 0, "true\n"},
                    SelectorCase{"false", {"a == 'b'", "--labels", "a=c"}, 1, "false\n"},
                    SelectorCase{"absent", {"a != 'b'", "--labels", ""}, 0, "true\n"},
                    SelectorCase{"negated", {"!has(a)", "--labels=b=c"}, 0, "true\n"},
                    SelectorCase{"invalid", {"role =="}, 2, ""},
                    SelectorCase{"bad_labels", {"all()", "--labels", "a"}, 2, ""},
                    SelectorCase{"label_twice", {"all()", "--labels", "a=b,a=c"}, 2, ""}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Selector, PointsAtTheMistake) {
  EXPECT_TRUE(has(run({"selector", "role = 'x'"}).err, "selector:1:6: "))
      << run({"selector", "role = 'x'"}).err;
  EXPECT_TRUE(has(run({"selector", "role = 'x'"}).err, "\n       ^\n"));
}

Words explain(Words more) {
  more.insert(more.begin(), {"explain", "-f", kPolicies, "--topology", kTopology});
  return more;
}

TEST(Explain, ShowsWhoDecidesAndWhere) {
  const Outcome outcome = run(explain({"--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "5432"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(
      outcome.out.starts_with("DENY  tenant-02/web (10.244.1.7) -> tenant-01/db (10.244.1.9) 5432/tcp\n\n"))
      << outcome.out;
  for (const char* part : {"egress from tenant-02/web", "ingress to tenant-01/db",
                           "tenant-01/tenant-01-restrict  [0] Log", "source is not role == 'api'", "[2] Deny",
                           "30-platform.yaml:24", "staged    platform/tenant-01/tighten-db would deny"})
    EXPECT_TRUE(has(outcome.out, part)) << part << "\n" << outcome.out;
  EXPECT_FALSE(has(outcome.out, "Last seen"));
}

TEST(Explain, JsonNamesTheDecider) {
  const Outcome outcome =
      run(explain({"--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "5432", "-o", "json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json answer = Json::parse(outcome.out);
  EXPECT_EQ(answer["action"], "deny");
  EXPECT_EQ(answer["decides"]["policy"], "platform/tenant-01/tenant-01-restrict");
  EXPECT_EQ(answer["decides"]["rule"], 2);
}

struct ExplainCase {
  const char* name;
  Words words;
  int code;
  const char* expected;  // part of stdout, or of stderr when the code is not 0
};

class ExplainAnswers : public testing::TestWithParam<ExplainCase> {};

TEST_P(ExplainAnswers, AreAsAsked) {
  const Outcome outcome = run(explain(GetParam().words));
  EXPECT_EQ(outcome.code, GetParam().code) << outcome.err;
  EXPECT_TRUE(has(GetParam().code == 0 ? outcome.out : outcome.err, GetParam().expected))
      << outcome.out << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(
    Questions, ExplainAnswers,
    testing::Values(
        ExplainCase{
            "allowed", {"--from", "tenant-01/api", "--to", "tenant-01/db", "--port", "5432"}, 0, "ALLOW  "},
        ExplainCase{"outside",
                    {"--from", "203.0.113.9", "--to", "tenant-01/db", "--port", "5432"},
                    0,
                    "outside 203.0.113.9 -> tenant-01/db (10.244.1.9)"},
        ExplainCase{"v6_follows_the_address",
                    {"--from", "2001:db8::1", "--to", "tenant-01/db", "--port", "5432"},
                    0,
                    "tenant-01/db (fd00:244:1::9)"},
        ExplainCase{"ping",
                    {"--from", "tenant-01/web", "--to", "tenant-01/db", "--protocol", "icmp"},
                    0,
                    "icmp echo-request"},
        ExplainCase{"unknown_pod",
                    {"--from", "tenant-02/wbe", "--to", "tenant-01/db", "--port", "1"},
                    1,
                    "did you mean tenant-02/web?"},
        ExplainCase{"bare_name",
                    {"--from", "batch", "--to", "tenant-01/db", "--port", "1"},
                    1,
                    "did you mean tenant-02/batch?"},
        ExplainCase{"no_port", {"--from", "tenant-02/web", "--to", "tenant-01/db"}, 2, "--port is missing"},
        ExplainCase{"port_without_ports",
                    {"--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "1", "--protocol", "icmp"},
                    2,
                    "icmp has no ports"},
        ExplainCase{"port_too_big",
                    {"--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "65536"},
                    2,
                    "expected 0 to 65535"},
        ExplainCase{"protocol",
                    {"--from", "a/b", "--to", "c/d", "--protocol", "tpc", "--port", "1"},
                    2,
                    "--protocol \"tpc\" is unknown"},
        ExplainCase{"no_from", {"--to", "tenant-01/db", "--port", "1"}, 2, "--from is missing"},
        ExplainCase{
            "families", {"--from", "2001:db8::1", "--to", "10.0.0.1", "--port", "1"}, 2, "one family"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(Files, ExplainOfBadFilesSaysAllFindings) {
  const std::string file = write("bad.yaml", kTwoMistakes);
  const Outcome outcome = run({"explain", "-f", file, "--topology", kTopology, "--from", "tenant-02/web",
                               "--to", "tenant-01/db", "--port", "5432"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(has(outcome.err, file + ":5:") && has(outcome.err, file + ":7:")) << outcome.err;
}

std::string test_case(const std::string& expect) {
  return "id: one\n"
         "topology:\n"
         "  namespaces: [{name: a}]\n"
         "  pods: [{name: p, namespace: a, ip: 10.0.0.1}, {name: q, namespace: a, ip: 10.0.0.2}]\n"
         "policies:\n"
         "- apiVersion: networking.k8s.io/v1\n"
         "  kind: NetworkPolicy\n"
         "  metadata: {name: none, namespace: a}\n"
         "  spec: {podSelector: {}, policyTypes: [Ingress]}\n"
         "checks:\n"
         "- {from: {pod: a/p}, to: {pod: a/q}, protocol: TCP, port: 80, expect: " +
         expect + "}\n";
}

TEST_F(Files, TestSaysWhatPassed) {
  const Outcome outcome = run({"test", write("case.yaml", test_case("deny"))});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "ok    one  1 check\n1 case passed, 0 failed, 0 skipped, via model\n");
}

TEST_F(Files, TestSaysWhatFailed) {
  const std::string file = write("case.yaml", test_case("allow"));
  const Outcome outcome = run({"test", "--via", "model", file});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_TRUE(has(outcome.out, "FAIL  one\n")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, "check 0: a/p -> a/q 80/tcp: ")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, file + ":11")) << outcome.out;
  const Json json = Json::parse(run({"test", file, "-o", "json"}).out);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["cases"][0]["checks"][0]["verdict"], "deny");
  EXPECT_TRUE(has(run({"test", file, "-o", "junit"}).out, "<testsuite"));
}

}  // namespace
}  // namespace tierlog::cli
