// Every filter over one small set of records: which of them it finds.
#include <gtest/gtest.h>

#include <algorithm>

#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

// Letters name the records: D denied, E denied at the end of tier, A allowed, N no policy and no answer, G
// ICMPv6 to a network set.
std::vector<FlowRecord> records() {
  FlowRecord denied = sample::denied();
  denied.end = sample::at(0);
  FlowRecord end = sample::denied_at_end();
  end.end = sample::at(10);
  FlowRecord allowed = sample::allowed();
  allowed.end = sample::at(20);
  allowed.translation = Translation{IpAddr::parse("10.96.0.9"), std::nullopt, 443, 0, "tenant-01/db"};
  FlowRecord no_policy = sample::without_policy();
  no_policy.end = sample::at(30);
  no_policy.end_reason = EndReason::Unanswered;
  FlowRecord full = sample::full_record();
  full.end = sample::at(40);
  full.tier = "security";
  full.policy = sample::kQuarantine;
  full.policy_kind = "GlobalNetworkPolicy";
  full.policy_namespace = "";
  full.policy_name = "quarantine";
  full.rule = RuleId{0x200};
  full.dst = {*IpAddr::parse("fd00:244::9"), PeerKind::NetworkSet, "", "partners", "", {}};
  full.staged = {{sample::kTighten, Verdict::Allow, 0}};
  return {denied, end, allowed, no_policy, full};
}
constexpr const char* kLetters = "DEANG";

class Filters : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new sample::Folder;
    auto store = sample::open_store(folder_->file("flows.db"));
    ASSERT_TRUE(store.put_catalog(sample::catalog()));
    ASSERT_TRUE(store.insert(records()));
    auto reader = FlowReader::open(folder_->file("flows.db"));
    ASSERT_TRUE(reader) << reader.error().message;
    reader_ = new FlowReader(std::move(*reader));
  }
  static void TearDownTestSuite() {
    delete reader_;
    delete folder_;
  }

  // The letters of what a query finds, sorted; "error: …" when it refuses.
  static std::string found(const FlowQuery& query) {
    const auto flows = reader_->flows(query);
    if (!flows) return "error: " + flows.error().message;
    std::string letters;
    for (const StoredRecord& stored : *flows) letters += kLetters[stored.sequence - 1];
    return letters;
  }
  static std::string found_sorted(const FlowQuery& query) {
    std::string letters = found(query);
    if (!letters.starts_with("error")) std::sort(letters.begin(), letters.end());
    return letters;
  }

  static sample::Folder* folder_;
  static FlowReader* reader_;
};

sample::Folder* Filters::folder_ = nullptr;
FlowReader* Filters::reader_ = nullptr;

struct OneFilter {
  const char* name;
  Field field;
  std::vector<std::string> values;
  const char* found;
};
void PrintTo(const OneFilter& test, std::ostream* out) {
  *out << test.name;
}

class EachFilter : public Filters, public testing::WithParamInterface<OneFilter> {};

TEST_P(EachFilter, FindsItsRecords) {
  FlowQuery query;
  query.filters = {{GetParam().field, GetParam().values, false}};
  EXPECT_EQ(found_sorted(query), GetParam().found);
}

TEST_P(EachFilter, NegatedFindsTheOthers) {
  FlowQuery query;
  query.filters = {{GetParam().field, GetParam().values, true}};
  std::string others;
  for (const char letter : std::string("ADEGN"))
    if (std::string(GetParam().found).find(letter) == std::string::npos) others += letter;
  EXPECT_EQ(found_sorted(query), others);
}

const OneFilter kFilters[] = {
    {"PolicyName", Field::Policy, {"tenant-01-restrict"}, "ADE"},
    {"PolicyWithNamespace", Field::Policy, {"tenant-01/tenant-01-restrict"}, "ADE"},
    {"PolicyInFull", Field::Policy, {"platform/tenant-01/tenant-01-restrict"}, "ADE"},
    {"PolicyOfAnotherNamespace", Field::Policy, {"tenant-02/tenant-01-restrict"}, ""},
    {"PolicyClusterWideInFull", Field::Policy, {"security//quarantine"}, "G"},
    {"PolicyClusterWideShort", Field::Policy, {"/quarantine"}, "G"},
    {"PolicyAskedAtTheEndOfTier", Field::Policy, {"isolate"}, "E"},
    {"PolicyShellPattern", Field::Policy, {"tenant-*"}, "ADE"},
    {"PolicyShellPatternOfAll", Field::Policy, {"*"}, "ADEG"},
    {"PolicyExpression", Field::Policy, {"/^platform/.*-restrict$/"}, "ADE"},
    {"PolicyExpressionWithComma", Field::Policy, {"/a{1,2}rantine/"}, "G"},
    {"PolicyTwoByComma", Field::Policy, {"isolate,quarantine"}, "EG"},
    {"PolicyTwoValues", Field::Policy, {"isolate", "quarantine"}, "EG"},
    {"PolicyUnknown", Field::Policy, {"restrict"}, ""},
    {"Tier", Field::Tier, {"platform"}, "ADE"},
    {"TierPattern", Field::Tier, {"*"}, "ADEG"},
    {"ActionDeny", Field::Action, {"deny"}, "DEG"},
    {"ActionAnyCase", Field::Action, {"Allow"}, "AN"},
    {"RuleIndex", Field::Rule, {"2"}, "D"},
    {"RuleAsPrinted", Field::Rule, {"ingress[1]"}, "A"},
    {"RuleOtherDirection", Field::Rule, {"egress[1]"}, ""},
    {"RuleId", Field::Rule, {"0x102"}, "D"},
    {"RuleIdReserved", Field::Rule, {"0x1"}, "N"},
    {"RuleEndOfTier", Field::Rule, {"end-of-tier"}, "E"},
    {"Revision", Field::Revision, {"3"}, "AD"},
    {"Namespace", Field::Namespace, {"tenant-01"}, "ADE"},
    {"NamespacePattern", Field::Namespace, {"*-system"}, "N"},
    {"FromNamespace", Field::FromNamespace, {"tenant-02"}, "DGN"},
    {"ToNamespace", Field::ToNamespace, {"tenant-01"}, "ADE"},
    {"PodWithNamespace", Field::Pod, {"tenant-01/db-0"}, "ADE"},
    {"PodPattern", Field::Pod, {"web-*"}, "DGN"},
    {"PodNamesNoNetworkSet", Field::Pod, {"partners"}, ""},
    {"FromPod", Field::From, {"tenant-02/web-7c9f"}, "DGN"},
    {"FromWorkload", Field::From, {"tenant-02/web"}, "DGN"},
    {"FromAddress", Field::From, {"203.0.113.9"}, "E"},
    {"FromCidr", Field::From, {"10.244.0.0/16"}, "AD"},
    {"FromCidr6", Field::From, {"fd00::/8"}, "N"},
    {"FromExpression", Field::From, {"/^tenant-0[12]/(api|web)/"}, "ADGN"},
    {"ToNetworkSet", Field::To, {"partners"}, "G"},
    {"ToPodPattern", Field::To, {"*/db-*"}, "ADE"},
    {"Label", Field::Label, {"app=db"}, "ADE"},
    {"LabelWithSlashlessKey", Field::Label, {"k8s-app=kube-dns"}, "N"},
    {"FromLabel", Field::FromLabel, {"role=api"}, "A"},
    {"FromLabelSelector", Field::FromLabel, {"app in {'web','none'} && has(tier)"}, "DGN"},
    {"ToLabelNegatedSelector", Field::ToLabel, {"!has(app)"}, "GN"},
    {"Workload", Field::Workload, {"api"}, "A"},
    {"ServiceName", Field::Service, {"db"}, "AG"},
    {"ServiceWithNamespace", Field::Service, {"tenant-01/*"}, "AG"},
    {"ServiceAddress", Field::Service, {"10.96.0.9"}, "A"},
    {"ServiceCidr", Field::Service, {"10.96.0.0/16"}, "A"},
    {"ServiceOtherAddress", Field::Service, {"10.244.1.9"}, ""},
    {"Ip", Field::Ip, {"10.244.1.9"}, "ADE"},
    {"IpCidr", Field::Ip, {"203.0.113.0/24"}, "E"},
    {"Port", Field::Port, {"5432"}, "ADG"},
    {"PortRange", Field::Port, {"50-9000"}, "ADEGN"},
    {"PortOfAService", Field::Port, {"443"}, "A"},
    {"PortRangeWithColon", Field::Port, {"8000:8080"}, "E"},
    {"PortsByComma", Field::Port, {"53,8080"}, "EN"},
    {"Protocol", Field::Protocol, {"udp"}, "N"},
    {"ProtocolNumber", Field::Protocol, {"58"}, "G"},
    {"Direction", Field::Direction, {"egress"}, "G"},
    {"Reporter", Field::Reporter, {"dst"}, "ADEN"},
    {"Logged", Field::Logged, {}, "DG"},
    {"LoggedFalse", Field::Logged, {"false"}, "AEN"},
    {"Unanswered", Field::Unanswered, {}, "N"},
    {"StagedDeny", Field::StagedAction, {"deny"}, "D"},
    {"StagedAllow", Field::StagedAction, {"allow"}, "G"},
    {"Reason", Field::Reason, {"end-of-tier"}, "E"},
    {"Node", Field::Node, {"node-*"}, "ADEGN"},
    {"NodeOther", Field::Node, {"node-2"}, ""},
    {"Cluster", Field::Cluster, {"c1"}, "ADEGN"},
    {"PolicyKind", Field::PolicyKind, {"GlobalNetworkPolicy"}, "G"},
    {"PolicyKindShort", Field::PolicyKind, {"np"}, "ADE"},
};

INSTANTIATE_TEST_SUITE_P(All, EachFilter, testing::ValuesIn(kFilters),
                         [](const auto& test) { return std::string(test.param.name); });

struct Refused {
  const char* name;
  Field field;
  const char* value;
  const char* message;
};
void PrintTo(const Refused& test, std::ostream* out) {
  *out << test.name;
}

class EachRefusal : public Filters, public testing::WithParamInterface<Refused> {};

TEST_P(EachRefusal, SaysWhatWasExpected) {
  FlowQuery query;
  query.filters = {{GetParam().field, {GetParam().value}, false}};
  const auto flows = reader_->flows(query);
  ASSERT_FALSE(flows);
  EXPECT_EQ(flows.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(flows.error().message.find(GetParam().message), std::string::npos) << flows.error().message;
  EXPECT_FALSE(reader_->grouped_flows(query));
}

const Refused kRefused[] = {
    {"Port", Field::Port, "99999", "port 99999; expected 0 to 65535"},
    {"PortBackwards", Field::Port, "90-80", "port 90-80; expected a range that begins with its lower end"},
    {"PortName", Field::Port, "http", "port http; expected 0 to 65535"},
    {"Action", Field::Action, "drop", "action drop; expected allow or deny"},
    {"Policy", Field::Policy, "a/b/c/d", "policy a/b/c/d; expected NAME, NS/NAME"},
    {"PolicyExpression", Field::Policy, "/(/", "policy /(/; expected a regular expression"},
    {"PolicyEmpty", Field::Policy, "", "policy \"\"; expected NAME"},
    {"Rule", Field::Rule, "first", "rule first; expected INDEX"},
    {"RuleNegative", Field::Rule, "-1", "rule -1; expected INDEX"},
    {"RuleId", Field::Rule, "0xyz", "rule 0xyz; expected INDEX"},
    {"Revision", Field::Revision, "last", "revision last; expected"},
    {"From", Field::From, "10.0.0.0/99", "from 10.0.0.0/99; expected NS/POD, an address"},
    {"To", Field::To, "a/b/c", "to a/b/c; expected NS/POD"},
    {"Ip", Field::Ip, "db-0", "ip db-0; expected an address or CIDR"},
    {"Label", Field::Label, "app ==", "label app ==; expected KEY=VALUE or a selector"},
    {"Protocol", Field::Protocol, "ftp", "protocol ftp; expected tcp, udp"},
    {"Direction", Field::Direction, "in", "direction in; expected ingress or egress"},
    {"Reporter", Field::Reporter, "source", "reporter source; expected src or dst"},
    {"Staged", Field::StagedAction, "pass", "staged-action pass; expected allow or deny"},
    {"Reason", Field::Reason, "because", "reason because; expected policy, end-of-tier, no-policy"},
};

INSTANTIATE_TEST_SUITE_P(All, EachRefusal, testing::ValuesIn(kRefused),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(Filters, NewestFirst) {
  EXPECT_EQ(found({}), "GNAED");
}

TEST_F(Filters, OldestFirst) {
  FlowQuery query;
  query.oldest_first = true;
  EXPECT_EQ(found(query), "DEANG");
}

TEST_F(Filters, LimitTakesTheNewest) {
  FlowQuery query;
  query.limit = 2;
  EXPECT_EQ(found(query), "GN");
  query.limit = 0;
  EXPECT_EQ(found(query), "GNAED");
}

TEST_F(Filters, SinceAndUntilAreByTheEnd) {
  FlowQuery query;
  query.since = sample::at(10);
  query.until = sample::at(20);
  EXPECT_EQ(found(query), "AE");
}

TEST_F(Filters, AfterASequence) {
  FlowQuery query;
  query.after_sequence = 3;
  EXPECT_EQ(found(query), "NG");
  query.limit = 1;
  EXPECT_EQ(found(query), "N");
  EXPECT_EQ(reader_->last_sequence().value(), 5);
}

TEST_F(Filters, OptionsOfOneFieldAreOredOfDifferentFieldsAnded) {
  FlowQuery query;
  query.filters = {
      {Field::Port, {"5432"}, false}, {Field::Port, {"8080"}, false}, {Field::Action, {"deny"}, false}};
  EXPECT_EQ(found(query), "GED");
}

TEST_F(Filters, NegationExcludesFromWhatTheOthersFind) {
  FlowQuery query;
  query.filters = {{Field::Policy, {"tenant-01-restrict"}, false}, {Field::Policy, {"isolate"}, true}};
  EXPECT_EQ(found(query), "AD");
}

TEST_F(Filters, RecordById) {
  const auto all = reader_->flows({});
  ASSERT_TRUE(all);
  for (const StoredRecord& stored : *all) {
    const auto one = reader_->record(stored.record.id);
    ASSERT_TRUE(one && *one);
    EXPECT_TRUE(**one == stored.record);
  }
  EXPECT_EQ(reader_->record("018fabcd-ef01-7123-8456-ffffffffffff").value(), std::nullopt);
  EXPECT_EQ(reader_->record("x").value(), std::nullopt);
}

TEST_F(Filters, MatchPolicies) {
  EXPECT_EQ(reader_->match_policies("tenant-01/*").value(),
            (std::vector<std::string>{sample::kIsolate, sample::kRestrict, sample::kTighten}));
  EXPECT_EQ(reader_->match_policies("restrict").value(), std::vector<std::string>());
  EXPECT_EQ(
      reader_->policy_names().value(),
      (std::vector<std::string>{sample::kIsolate, sample::kRestrict, sample::kTighten, sample::kQuarantine}));
}

}  // namespace
}  // namespace tierlog::store
