// Filters as one text: the same as behind `tierlog flows`.
#include "query/filter_text.h"

#include <gtest/gtest.h>

namespace tierlog::query {
namespace {

using Field = store::FieldFilter::Field;

TEST(FilterText, IsReadAsOnTheCommandLine) {
  const auto filters = parse_filter_text(
      "  --action deny --logged --not --namespace=\"kube system\"\t--not-port 53 --policy 'a b' --policy c,d\n");
  ASSERT_TRUE(filters) << filters.error().message;
  ASSERT_EQ(filters->size(), 6u);
  EXPECT_EQ((*filters)[0].field, Field::Action);
  EXPECT_EQ((*filters)[1].field, Field::Logged);
  EXPECT_TRUE((*filters)[1].values.empty());
  EXPECT_FALSE((*filters)[1].negate);
  EXPECT_EQ((*filters)[2].values, (std::vector<std::string>{"kube system"}));
  EXPECT_TRUE((*filters)[2].negate);
  EXPECT_TRUE((*filters)[3].negate);
  EXPECT_EQ((*filters)[4].values, (std::vector<std::string>{"a b"}));
  EXPECT_EQ((*filters)[5].values, (std::vector<std::string>{"c,d"}));
  EXPECT_TRUE(parse_filter_text("").value().empty());
}

TEST(FilterText, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"action deny", "\"action\" is no filter"},
      {"--acton deny", "did you mean action?"},
      {"--action", "--action needs a value"},
      {"--action --logged", "--action needs a value"},
      {"--action maybe", "allow or deny"},
      {"--not", "nothing follows it"},
      {"--not --not --logged", "--not twice"},
      {"--limit 5", "--limit is no filter of single records"},
      {"--policy \"a", "without its other"},
      {"--process x", "no data yet"},
      {"--ip nowhere/99", "ip"},
  };
  for (const auto& [text, says] : mistakes) {
    const auto filters = parse_filter_text(text);
    ASSERT_FALSE(filters) << text;
    EXPECT_EQ(filters.error().code, ErrorCode::InvalidArgument);
    EXPECT_NE(filters.error().message.find(says), std::string::npos) << text << ": " << filters.error().message;
  }
}

}  // namespace
}  // namespace tierlog::query
