// What people get wrong: at least three mistakes for each command, each with its exit code and a sentence
// that helps; and the help itself.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::Variables;
using testing_program::Words;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Mistake {
  Words words;
  int code;
  const char* expected;  // part of stderr
};

class Mistakes : public testing::TestWithParam<Mistake> {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<store::sample::Folder>();
    store::FlowStore store = store::sample::open_store(folder_->file("flows.db"));
    ASSERT_TRUE(store.put_catalog(store::sample::catalog()));
    std::ofstream(folder_->file("text.db"))
        << "this is no database, only a text that is long enough to look like one";
    std::ofstream(folder_->file("empty.yaml")) << "";
    std::ofstream(folder_->file("empty.db")) << "";
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static inline std::unique_ptr<store::sample::Folder> folder_;
};

TEST_P(Mistakes, AreAnsweredWithASentence) {
  Words words = GetParam().words;
  for (std::string& word : words)
    if (word.starts_with("@")) word = folder_->file(word.substr(1));
  const Outcome outcome = testing_program::run(
      words, {{"TIERLOG_DB", folder_->file("flows.db")}, {"TIERLOG_SOCKET", folder_->file("no.sock")}});
  EXPECT_EQ(outcome.code, GetParam().code) << outcome.err;
  EXPECT_TRUE(has(outcome.err, GetParam().expected)) << outcome.err;
  const bool sums_up =
      GetParam().words.size() > 1 && GetParam().words[0] == "lint" && outcome.out == "1 error in 1 file\n";
  EXPECT_TRUE(outcome.out.empty() || sums_up) << outcome.out;
}

const Mistake kMistakes[] = {
    {{}, 2, "a command is missing"},
    {{"deny"}, 2, "unknown command \"deny\"; did you mean denied?"},
    {{"--verbose"}, 2, "unknown command \"--verbose\""},
    {{"lab", "--hlep"}, 2, "\"lab\" needs one of: lab up, lab exec, lab down, lab list"},
    {{"lab"}, 2, "\"lab\" needs one of: lab up, lab exec, lab down, lab list"},
    {{"flows", "--polcy", "x"}, 2, "unknown option \"--polcy\" of flows; did you mean --policy?"},
    {{"flows", "x"}, 2, "\"x\" is one argument too many"},
    {{"flows", "-o", "xml"}, 2, "-o \"xml\" is no output form here; expected table|wide|json|jsonl|csv"},
    {{"flows", "--db", "/nonexistent/flows.db"}, 2, "no flow database at /nonexistent/flows.db (--db)"},
    {{"flows", "--db", "@text.db"}, 2, "text.db"},
    {{"flows", "--db", "@empty.db"}, 2, "copied without its -wal"},
    {{"flows", "--port", "99999"}, 2, "99999"},
    {{"flows", "--action", "drop"}, 2, "drop"},
    {{"flows", "--protocol", "tpc"}, 2, "tpc"},
    {{"flows", "--policy", "/(/"}, 2, "("},
    {{"flows", "--process", "curl"}, 2, "--process has no data yet"},
    {{"flows", "--domain", "example.org"}, 2, "--domain has no data yet"},
    {{"flows", "--follow", "-o", "json"}, 2, "use -o jsonl"},
    {{"flows", "--follow", "--until", "1h"}, 2, "--follow goes on"},
    {{"flows", "--since", "yesterday"}, 2, "--since \"yesterday\" is not understood"},
    {{"denied", "nobody"}, 1, "no policy matches \"nobody\""},
    {{"denied", "--action", "allow"}, 2, "unknown option \"--action\" of denied"},
    {{"denied", "isolate", "--policy", "isolate"}, 2, "give one of them"},
    {{"denied", "a", "b"}, 2, "\"b\" is one argument too many"},
    {{"policies", "x"}, 2, "one argument too many"},
    {{"policies", "--db"}, 2, "--db"},
    {{"policies", "-o", "yaml"}, 2, "-o \"yaml\""},
    {{"rules", "nobody"}, 1, "no policy matches"},
    {{"rules", "--al"}, 2, "did you mean --all?"},
    {{"rules", "/(/"}, 2, "("},
    {{"endpoints", "tenant-01/db"}, 2, "one argument too many"},
    {{"endpoints", "-o", ""}, 2, "-o \"\""},
    {{"endpoints", "--db", "@missing.db"}, 2, "missing.db"},
    {{"status"}, 3, "start it"},
    {{"status", "-o", "csv"}, 2, "expected table|json"},
    {{"status", "now"}, 2, "one argument too many"},
    {{"explain", "--from", "a/b", "--to", "c/d", "--port", "1"}, 3, "start tierlogd or a lab"},
    {{"explain", "--from", "a/b", "--to", "c/d", "--port", "x"}, 2, "--port \"x\" is not understood"},
    {{"explain", "--from", "a/b", "--to", "c/d", "--port", "1", "-f", "@empty.yaml"},
     2,
     "--topology FILE is missing"},
    {{"explain", "--from", "a/b", "--to", "c/d", "--port", "1", "--topology", "t"},
     2,
     "--topology goes with -f"},
    {{"explain", "--at", "2h", "--from", "a/b", "--to", "c/d", "--port", "1"}, 1, "keeps no policies yet"},
    {{"explain", "--at", "soon", "--from", "a/b", "--to", "c/d", "--port", "1"}, 2, "--at \"soon\""},
    {{"explain", "--record", "x", "--at", "2h"}, 2, "leave --from"},
    {{"explain", "--record", "x"}, 1, "no record has the id \"x\""},
    {{"diff"}, 2, "-f PATH is missing"},
    {{"diff", "-f", "/nonexistent"}, 2, "/nonexistent"},
    {{"diff", "-f", "@empty.yaml", "--since", "soon"}, 2, "--since \"soon\" is not understood"},
    {{"recommend"}, 2, "--namespace NS is missing"},
    {{"recommend", "--namespace", "x", "--kind", "anp"}, 2, "expected calico or kubernetes"},
    {{"recommend", "--namespace", "x"}, 1, "no pod of a namespace \"x\""},
    {{"flows", "--kind", "polcy"}, 2, "expected NetworkPolicy"},
    {{"denied", "--node", "node-9"}, 1, "node-9"},
    {{"denied", "--cluster", "c9"}, 1, "c9"},
    {{"store", "export", "--format", "csv", "@text.db"}, 2, "is there already; expected the name of a new file"},
    {{"flows", "--group-by", "polcy"}, 2, "did you mean policy?"},
    {{"flows", "--follow", "--top", "3"}, 2, "leave one out"},
    {{"flows", "--bins", "often"}, 2, "--bins \"often\" is not understood"},
    {{"flows", "--order", "bytes"}, 2, "add --group-by"},
    {{"flows", "--from", "tenant-01/db-9"}, 1, "did you mean tenant-01/db-0?"},
    {{"flows", "--workload", "bd"}, 1, "no workload is called"},
    {{"flows", "--service", "nosuch"}, 1, "no Service is called \"nosuch\", now or in any record"},
    {{"policies", "--unused", "soon"}, 2, "--unused \"soon\" is not understood"},
    {{"policies", "--history", "nobody"}, 1, "no policy matches"},
    {{"lint"}, 2, "PATH is missing"},
    {{"lint", "/nonexistent.yaml"}, 2, "/nonexistent.yaml"},
    {{"lint", "--stict", "x.yaml"}, 2, "did you mean --strict?"},
    {{"selector"}, 2, "EXPRESSION is missing"},
    {{"selector", "role is 'x'"}, 2, "selector:1:"},
    {{"selector", "role", "==", "x"}, 2, "one argument too many"},
    {{"test"}, 2, "CASE is missing"},
    {{"test", "--via", "magic", "x.yaml"}, 2, "--via \"magic\" is unknown"},
    {{"test", "-o", "csv", "x.yaml"}, 2, "expected table|json|junit"},
    {{"test", "/nonexistent.yaml"}, 2, "/nonexistent.yaml"},
    {{"store"}, 2, "\"store\" needs one of: store check, store compact, store export"},
    {{"store", "check", "--db", "@missing.db"}, 2, "missing.db"},
    {{"store", "check", "--db", "@text.db"}, 2, "text.db"},
    {{"store", "check", "-o", "csv"}, 2, "expected table|json"},
    {{"store", "compact", "now"}, 2, "one argument too many"},
    {{"store", "compact", "--rewite"}, 2, "did you mean --rewrite?"},
    {{"store", "compact", "--db", "@missing.db"}, 2, "missing.db"},
    {{"store", "export", "--format", "xml"}, 2, "unknown format \"xml\"; expected csv, jsonl or sqlite"},
    {{"store", "export", "--format", "sqlite"}, 2, "an SQLite file needs a name"},
    {{"store", "export", "--format", "sqlite", "@text.db"}, 2, "is there already"},
    {{"store", "export", "--policy", "nobody"}, 1, "no policy matches \"nobody\""},
    {{"lab", "up"}, 2, "TOPOLOGY is missing"},
    {{"lab", "upp"}, 2, "needs one of"},
    {{"lab", "exec", "a/b"}, 2, "the command is missing"},
    {{"lab", "exec"}, 2, "HOST is missing"},
    {{"lab", "exec", "a/b", "ls", "-l"}, 2, "-l"},
    {{"lab", "down", "--nme", "x"}, 2, "unknown option \"--nme\""},
    {{"lab", "down", "a", "--lab", "b"}, 2, "give one"},
    {{"lab", "list", "-o", "tree"}, 2, "-o \"tree\""},
    {{"version", "1"}, 2, "one argument too many"},
};

INSTANTIATE_TEST_SUITE_P(All, Mistakes, testing::ValuesIn(kMistakes));

class Help : public testing::TestWithParam<std::string> {};

TEST_P(Help, IsComplete) {
  Words words;
  std::istringstream parts(GetParam());
  for (std::string word; parts >> word;) words.push_back(word);
  words.push_back("--help");
  const Outcome outcome = testing_program::run(words);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_TRUE(outcome.out.starts_with("tierlog " + GetParam() + " - ")) << outcome.out;
  std::size_t examples = 0, at = 0;
  const std::string start = "\n        tierlog ";
  const std::size_t from = outcome.out.find("\nExamples\n");
  ASSERT_NE(from, std::string::npos);
  for (at = from; (at = outcome.out.find(start, at)) != std::string::npos; ++at) ++examples;
  EXPECT_GE(examples, 3u) << outcome.out;
  EXPECT_TRUE(has(outcome.out, "\nExit code\n"));
  EXPECT_FALSE(has(outcome.out, "--not-")) << "the hidden twins of filters are shown";
}

INSTANTIATE_TEST_SUITE_P(Commands, Help,
                         testing::Values("denied", "flows", "explain", "diff", "recommend", "policies",
                                         "rules", "endpoints", "status", "lint", "selector", "test",
                                         "store check", "store compact", "store export", "lab up", "lab exec",
                                         "lab down", "lab list", "version"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

TEST(ProgramHelp, ListsEveryCommandOnStdout) {
  for (const Words& words : {Words{"--help"}, Words{"-h"}, Words{"help"}}) {
    const Outcome outcome = testing_program::run(words);
    EXPECT_EQ(outcome.code, 0);
    for (const char* command :
         {"denied",       "flows",  "explain",  "diff",     "recommend", "policies",    "rules",
          "endpoints",    "status", "lint",     "selector", "test",      "store check", "store compact",
          "store export", "lab up", "lab exec", "lab down", "lab list",  "version"})
      EXPECT_TRUE(has(outcome.out, std::string("\n    ") + command + " ")) << command;
  }
}

TEST(Version, IsSaid) {
  EXPECT_EQ(testing_program::run({"version"}).out, "tierlog " TIERLOG_VERSION "\n");
  EXPECT_EQ(testing_program::run({"--version"}).out, "tierlog " TIERLOG_VERSION "\n");
}

TEST(Help, OfAGroupOfCommandsListsThem) {
  const testing_program::Outcome outcome = testing_program::run({"lab", "--help"}, {});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_TRUE(has(outcome.out, "  tierlog lab up ")) << outcome.out;
  EXPECT_TRUE(has(outcome.out, "  tierlog lab down ")) << outcome.out;
}

}  // namespace
}  // namespace tierlog::cli
