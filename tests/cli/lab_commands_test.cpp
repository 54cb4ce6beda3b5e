// The main job by commands alone: a lab, a connection that is denied, who denied it, the end of the lab.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::run;
using testing_program::Words;
using Json = nlohmann::json;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class LabCommands : public testing::Test {
 protected:
  LabCommands() : name_("cli-test-" + std::to_string(::getpid())) {}
  ~LabCommands() override { run({"lab", "down", name_}); }

  Outcome up(const std::string& policies) {
    return run({"lab", "up", TIERLOG_SOURCE_DIR "/examples/topologies/tenants.yaml", "-f", policies, "--name",
                name_});
  }
  Outcome in_lab(Words words) {
    const auto rest = std::find(words.begin(), words.end(), "--");
    words.insert(rest, {"--lab", name_});
    return run(words);
  }

  std::string name_;
};

TEST_F(LabCommands, FindWhoDenied) {
  const Outcome started = up(TIERLOG_SOURCE_DIR "/examples/policies");
  ASSERT_EQ(started.code, 0) << started.err;
  EXPECT_TRUE(has(started.out, "is up: 10 hosts")) << started.out;
  EXPECT_TRUE(has(run({"lab", "list", "-o", "jsonl"}).out, "\"" + name_ + "\""));

  testing_program::Running watching(
      {"denied", "tenant-01-restrict", "--follow", "-o", "jsonl", "--lab", name_});
  ASSERT_TRUE(watching.wait_for_err("following"));
  const Words knock = {
      "lab", "exec", "tenant-02/web", "--", "timeout", "1", "bash", "-c", "</dev/tcp/10.244.1.9/5432"};
  EXPECT_EQ(in_lab(knock).code, 124) << "timeout's own code";
  ASSERT_TRUE(watching.wait_for_out("\n"));
  const Outcome watched = watching.end_with(SIGINT);
  EXPECT_EQ(watched.code, 0);
  const Json record = Json::parse(watched.out.substr(0, watched.out.find('\n')));
  EXPECT_EQ(record["policy"], "platform/tenant-01/tenant-01-restrict");
  EXPECT_EQ(record["rule_index"], 2);
  EXPECT_EQ(record["src_pod"], "web");

  const Outcome why =
      in_lab({"explain", "--from", "tenant-02/web", "--to", "tenant-01/db", "--port", "5432"});
  EXPECT_EQ(why.code, 0) << why.err;
  EXPECT_TRUE(has(why.out, "<- decides, examples/policies/30-platform.yaml:")) << why.out;
  EXPECT_TRUE(has(why.out, "\nLast seen: ")) << why.out;
  const Json status = Json::parse(in_lab({"status", "-o", "json"}).out);
  EXPECT_EQ(status["in_sync"], true);
  EXPECT_EQ(Json::parse(in_lab({"endpoints", "-o", "json"}).out)["items"].size(), 8u);
}

// Each file is fine, and yet nothing of it would be in force: that is no lab to try policies in.
TEST_F(LabCommands, WhatTheDataPlaneRefusesDoesNotComeUp) {
  const auto file = std::filesystem::temp_directory_path() / (name_ + ".yaml");
  {
    std::ofstream text(file);
    text << "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: many}\nspec:\n  selector: all()\n"
            "  ingress:\n";
    for (int port = 1000; port < 1400; ++port)
      text << "  - {action: Allow, protocol: TCP, destination: {ports: [" << port << "]}}\n";
  }
  const Outcome refused = run({"lab", "up", TIERLOG_SOURCE_DIR "/examples/topologies/tenants.yaml", "-f", file.string(), "--name",
                               name_, "--dataplane", "ebpf", "--set", "ebpf.max_rules=300"});
  std::filesystem::remove(file);
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(has(refused.err, "max_rules")) << refused.err;
  EXPECT_FALSE(has(refused.out, "is up")) << refused.out;
  EXPECT_FALSE(has(run({"lab", "list", "-o", "jsonl"}).out, "\"" + name_ + "\""));
}

TEST_F(LabCommands, MistakesAreAnswered) {
  const Outcome bad = up("/nonexistent.yaml");
  EXPECT_EQ(bad.code, 2);
  EXPECT_TRUE(has(bad.err, "/nonexistent.yaml")) << bad.err;
  EXPECT_FALSE(has(run({"lab", "list", "-o", "jsonl"}).out, "\"" + name_ + "\"")) << "it must not be up";
  EXPECT_EQ(in_lab({"lab", "down"}).code, 1);

  ASSERT_EQ(up(TIERLOG_SOURCE_DIR "/examples/policies").code, 0);
  const Outcome host = in_lab({"lab", "exec", "tenant-02/wbe", "--", "true"});
  EXPECT_EQ(host.code, 1);
  EXPECT_TRUE(has(host.err, "did you mean tenant-02/web?")) << host.err;
  EXPECT_EQ(in_lab({"lab", "exec", "node", "--", "sh", "-c", "exit 7"}).code, 7);
  EXPECT_EQ(in_lab({"explain", "--from", "a/b", "--to", "tenant-01/db", "--port", "1"}).code, 1);
  EXPECT_EQ(up(TIERLOG_SOURCE_DIR "/examples/policies").code, 3) << "it is up already";
  EXPECT_EQ(run({"lab", "down", name_}).code, 0);
}

}  // namespace
}  // namespace tierlog::cli
