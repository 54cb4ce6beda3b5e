// What must never be lost: ids for ever, revisions, endpoints, named values.
#include "store/state_db.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

policy::RuleKey rule_key(const std::string& policy_name, int index, const std::string& canonical) {
  policy::RuleKey key;
  key.policy = {policy::PolicyKind::NetworkPolicy, "tenant-01", policy_name};
  key.tier = "platform";
  key.direction = Direction::Ingress;
  key.index = index;
  key.canonical = canonical;
  return key;
}

policy::RuleKey end_key(const std::string& canonical) {
  policy::RuleKey key = rule_key("restrict", -1, canonical);
  key.kind = policy::RuleKey::Kind::EndOfTier;
  return key;
}

std::unique_ptr<StateDb> open_state(const sample::Folder& folder) {
  auto state = StateDb::open(folder.file("state.db"));
  if (!state) ADD_FAILURE() << state.error().message;
  return std::move(*state);
}

TEST(StateDb, SameKeySameIdAcrossReopening) {
  const sample::Folder folder;
  const std::vector keys{rule_key("restrict", 0, "Log all"), rule_key("restrict", 1, "Deny tcp"),
                         end_key("Deny a")};
  const auto before = open_state(folder)->identify(keys);
  const auto after = open_state(folder)->identify({keys[2], keys[0], keys[1], keys[0]});
  ASSERT_TRUE(before && after);
  EXPECT_EQ((*after)[0].id, (*before)[2].id);
  EXPECT_EQ((*after)[1].id, (*before)[0].id);
  EXPECT_EQ((*after)[2].id, (*before)[1].id);
  EXPECT_EQ((*after)[3].id, (*before)[0].id);
  std::set<RuleId> different;
  for (const auto& identity : *before) different.insert(identity.id);
  EXPECT_EQ(different.size(), 3u);
  EXPECT_GE(number(*different.begin()), kFirstPolicyRuleId);
}

TEST(StateDb, IdsAreNeverUsedAgain) {
  const sample::Folder folder;
  std::set<RuleId> given;
  for (int round = 0; round < 5; ++round) {
    const auto ids = open_state(folder)->identify({rule_key("restrict", 0, "v" + std::to_string(round))});
    ASSERT_TRUE(ids);
    EXPECT_TRUE(given.insert(ids->front().id).second);
  }
}

TEST(StateDb, RevisionGrowsOncePerChangeOfAPolicy) {
  const sample::Folder folder;
  auto state = open_state(folder);
  const auto first = state->identify(
      {rule_key("restrict", 0, "a"), rule_key("restrict", 1, "b"), rule_key("other", 0, "a"), end_key("x")});
  ASSERT_TRUE(first);
  for (const auto& identity : *first) EXPECT_EQ(identity.revision, 1u);
  const auto second =
      state->identify({rule_key("restrict", 0, "a"), rule_key("restrict", 1, "c"),
                       rule_key("restrict", 2, "d"), rule_key("other", 0, "a"), end_key("y")});
  ASSERT_TRUE(second);
  EXPECT_EQ((*second)[0].revision, 1u);
  EXPECT_EQ((*second)[1].revision, 2u);
  EXPECT_EQ((*second)[2].revision, 2u);
  EXPECT_EQ((*second)[3].revision, 1u);
  EXPECT_EQ((*second)[4].revision, 1u);
  // Back to what it was: the old ids; the next new rule is revision 3, not 2 again.
  const auto third = state->identify(
      {rule_key("restrict", 0, "a"), rule_key("restrict", 1, "b"), rule_key("restrict", 2, "e")});
  ASSERT_TRUE(third);
  EXPECT_EQ((*third)[1].id, (*first)[1].id);
  EXPECT_EQ((*third)[2].revision, 3u);
}

TEST(StateDb, AFloorIsNeverLowered) {
  const sample::Folder folder;
  EXPECT_TRUE(*open_state(folder)->raise_floor(RuleId{0x5000}));
  EXPECT_FALSE(*open_state(folder)->raise_floor(RuleId{0x10}));
  const auto ids = open_state(folder)->identify({rule_key("restrict", 0, "a"), rule_key("restrict", 1, "a")});
  ASSERT_TRUE(ids);
  EXPECT_EQ((*ids)[0].id, RuleId{0x5000});
  EXPECT_EQ((*ids)[1].id, RuleId{0x5001});
}

TEST(StateDb, SaysWhenNoIdsAreLeft) {
  const sample::Folder folder;
  auto state = open_state(folder);
  ASSERT_TRUE(state->raise_floor(RuleId{0xffffffff}));
  EXPECT_EQ(state->identify({rule_key("restrict", 0, "a")})->front().id, RuleId{0xffffffff});
  const auto ids = state->identify({rule_key("restrict", 0, "b")});
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::Refused);
}

TEST(StateDb, EndpointsAreReplacedAndRemovedByTheirKey) {
  const sample::Folder folder;
  RegisteredEndpoint endpoint{
      "c1", "eth0", "tenant-01", "db-0", "/run/netns/a", "veth1", {"10.0.0.1", "fd00::1"}, {{"app", "db"}}};
  RegisteredEndpoint second = endpoint;
  second.ifname = "eth1";
  {
    auto state = open_state(folder);
    ASSERT_TRUE(state->put_endpoint(endpoint));
    ASSERT_TRUE(state->put_endpoint(second));
    endpoint.addresses = {"10.0.0.2"};
    endpoint.labels = {};
    ASSERT_TRUE(state->put_endpoint(endpoint));
  }
  auto state = open_state(folder);
  EXPECT_EQ(state->endpoints().value(), (std::vector{endpoint, second}));
  ASSERT_TRUE(state->remove_endpoint("c1", "eth0"));
  ASSERT_TRUE(state->remove_endpoint("c1", "unknown"));
  EXPECT_EQ(state->endpoints().value(), std::vector{second});
}

TEST(StateDb, NamedValues) {
  const sample::Folder folder;
  ASSERT_TRUE(open_state(folder)->put("cursor", "41"));
  ASSERT_TRUE(open_state(folder)->put("cursor", "42"));
  EXPECT_EQ(open_state(folder)->get("cursor").value(), "42");
  EXPECT_EQ(open_state(folder)->get("next_rule_id").value(), std::nullopt);
}

TEST(StateDb, OnlyItsOwnerReadsIt) {
  const sample::Folder folder;
  auto state = open_state(folder);
  struct stat status {};
  ASSERT_EQ(::stat(folder.file("state.db").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
}

TEST(StateDb, AFlowIndexIsNotAStateFile) {
  const sample::Folder folder;
  { sample::open_store(folder.file("state.db")); }
  const auto state = StateDb::open(folder.file("state.db"));
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().code, ErrorCode::Corrupt);
}

}  // namespace
}  // namespace tierlog::store
