// The text that Prometheus reads, and the page that documents it.
#include "exporters/prometheus/exposition.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <vector>

#include "tests/prometheus/programs.h"
#include "tests/prometheus/samples.h"

namespace tierlog::prometheus {
namespace {

using testing::Samples;

struct Accept {
  const char* title;
  const char* header;
  Format format;
};
class Negotiation : public ::testing::TestWithParam<Accept> {};
TEST_P(Negotiation, TakesWhatIsPreferred) {
  EXPECT_EQ(negotiate(GetParam().header), GetParam().format);
}
INSTANTIATE_TEST_SUITE_P(
    Prometheus, Negotiation,
    ::testing::Values(
        Accept{"Nothing", "", Format::Text}, Accept{"Anything", "*/*", Format::Text},
        Accept{"Prometheus",
               "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
               "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
               Format::OpenMetrics},
        Accept{"TextPreferred", "application/openmetrics-text;q=0.2,text/plain;q=0.9", Format::Text},
        Accept{"OnlyOpenMetrics", "application/openmetrics-text", Format::OpenMetrics},
        Accept{"NotOpenMetrics", "application/openmetrics-text;q=0,text/plain", Format::Text},
        Accept{"Browser", "text/html,application/xhtml+xml,*/*;q=0.8", Format::Text}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

struct Escape {
  const char* title;
  std::string value;
  std::string read_back;
};
class Escapes : public ::testing::TestWithParam<Escape> {};
TEST_P(Escapes, LeaveWhatWasMeant) {
  Exposition out(Format::Text, GetParam().value, "c");
  out.single(Metric::Ready, std::uint64_t{1});
  const Samples samples(out.finish());
  ASSERT_EQ(samples.all().size(), 1u);
  EXPECT_EQ(samples.all()[0].labels.at("node"), GetParam().read_back);
}
INSTANTIATE_TEST_SUITE_P(
    Prometheus, Escapes,
    ::testing::Values(Escape{"Plain", "node-1", "node-1"}, Escape{"Quotes", "a\"b\\c\nd", "a\"b\\c\nd"},
                      Escape{"Utf8",
                             "b\xc3\xbc"
                             "cher \xf0\x9f\x98\x80",
                             "b\xc3\xbc"
                             "cher \xf0\x9f\x98\x80"},
                      Escape{"Latin1",
                             "b\xfc"
                             "cher",
                             "b\xef\xbf\xbd"
                             "cher"},
                      Escape{"Cut", "a\xe2\x82", "a\xef\xbf\xbd\xef\xbf\xbd"},
                      Escape{"Overlong", "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
                      Escape{"Surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

TEST(Exposition, NumbersAreExact) {
  Exposition out(Format::Text, "n", "c");
  out.family(Metric::PolicyPackets);
  out.sample({"t", "p", "k", "ns", "ingress", "deny"}, std::numeric_limits<std::uint64_t>::max());
  out.single(Metric::EventLag, 0.000125);
  const std::string text = out.finish();
  EXPECT_NE(text.find("} 18446744073709551615\n"), std::string::npos) << text;
  EXPECT_NE(text.find("} 0.000125\n"), std::string::npos) << text;
}

TEST(Exposition, OpenMetricsNamesFamiliesWithoutTotalAndEnds) {
  for (const Format format : {Format::Text, Format::OpenMetrics}) {
    Exposition out(format, "n", "c");
    out.single(Metric::PolicySyncs, std::uint64_t{3});
    out.family(Metric::KappieForwardCount);
    out.sample({"ingress"}, std::uint64_t{4});
    const std::string text = out.finish();
    const Samples samples(text);
    const bool open = format == Format::OpenMetrics;
    EXPECT_EQ(text.ends_with("# EOF\n"), open);
    EXPECT_EQ(samples.type_of(open ? "tierlog_policy_syncs" : "tierlog_policy_syncs_total"), "counter");
    EXPECT_EQ(samples.type_of("kappie_forward_count"), open ? "unknown" : "counter");
    EXPECT_EQ(samples.value("tierlog_policy_syncs_total"), 3.0);
  }
}

TEST(Exposition, KappieLabelsInBothStyles) {
  const auto labels = [](LabelStyle style) {
    Exposition out(Format::Text, "n", "c", style);
    out.family(Metric::KappieInterfaceStats);
    out.sample({"eth0", "rx_packets"}, std::uint64_t{4});
    return Samples(out.finish()).all().at(0).labels;
  };
  EXPECT_EQ(
      labels(LabelStyle::Aks),
      (testing::Labels{
          {"InterfaceName", "eth0"}, {"Statistic", "rx_packets"}, {"NodeName", "n"}, {"Cluster", "c"}}));
  EXPECT_EQ(labels(LabelStyle::Snake), (testing::Labels{{"interface_name", "eth0"},
                                                        {"statistic_name", "rx_packets"},
                                                        {"node_name", "n"},
                                                        {"cluster", "c"}}));
}

// Every family of the table with a sample, in both formats.
std::string everything(Format format) {
  Exposition out(format, "n", "c");
  for (const Spec& spec : specs()) {
    out.family(spec.metric);
    const std::vector<std::string_view> values(label_names(spec).size(), "x");
    out.sample(values, std::uint64_t{1});
  }
  return out.finish();
}

TEST(Table, NamesAreUniqueAndWellFormed) {
  std::set<std::string> names;
  for (const Spec& spec : specs()) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    const bool total = std::string(spec.name).ends_with("_total");
    EXPECT_TRUE(is_kappie(spec) || total == (spec.type == Type::Counter)) << spec.name;
  }
  EXPECT_EQ(Samples(everything(Format::Text)).all().size(), specs().size());
  EXPECT_EQ(Samples(everything(Format::OpenMetrics)).all().size(), specs().size());
}

TEST(Table, PromtoolFindsNothingButKappie) {
  const std::string promtool = testing::prometheus_program("promtool");
  if (promtool.empty()) GTEST_SKIP() << "needs promtool (scripts/install-deps --test)";
  const std::string file = ::testing::TempDir() + "metrics-" + std::to_string(::getpid());
  std::ofstream(file) << everything(Format::Text);
  const auto told = testing::run_shell(promtool + " check metrics <" + file);
  std::istringstream lines(told.text);
  std::set<std::string> kappie;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(line.starts_with("kappie_")) << line;
    kappie.insert(line.substr(0, line.find(' ')));
  }
  EXPECT_FALSE(kappie.empty()) << "the control: it does find what is wrong";
  std::filesystem::remove(file);
}

TEST(Page, IsWrittenFromTheTable) {
  const std::string path = std::string(TIERLOG_SOURCE_DIR) + "/docs/metrics.md";
  if (std::getenv("TIERLOG_WRITE_DOCS") != nullptr) std::ofstream(path) << metrics_page();
  EXPECT_EQ(testing::read_text(path), metrics_page())
      << "TIERLOG_WRITE_DOCS=1 " << TIERLOG_BINARY_DIR << "/tests/prometheus_test --gtest_filter='*Page*'";
}

}  // namespace
}  // namespace tierlog::prometheus
