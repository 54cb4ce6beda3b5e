#include "cli/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace tierlog::cli {
namespace {

Column left(const char* title, std::size_t least = 0, Cut cut = Cut::End) {
  return {title, Align::Left, least, cut, 0, false, 0, 0};
}
Column right(const char* title) {
  return {title, Align::Right, 0, Cut::End, 0, false, 0, 0};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::size_t widest(const std::string& text) {
  std::size_t width = 0;
  for (const std::string& line : lines_of(text)) width = std::max(width, display_width(line));
  return width;
}

TEST(Table, AlignsColumnsAndLeavesNoBlanksAtTheEnd) {
  Table table({left("NAME"), right("COUNT"), left("NOTE")});
  table.add({"a", "5", ""});
  table.add({"longer", "1,204", "x"});
  EXPECT_EQ(table.render({80, false, false}),
            "NAME    COUNT  NOTE\n"
            "a           5\n"
            "longer  1,204  x\n");
}

TEST(Table, UsesBriefFormsBeforeCutting) {
  Table table({left("TIME"), left("NAME", 4)});
  table.add({Cell("2026-11-21 20:14:07", Style::Plain, "20:14:07"), "tenant-01/db"});
  EXPECT_EQ(table.render({33, false, false}),
            "TIME                 NAME\n2026-11-21 20:14:07  tenant-01/db\n");
  EXPECT_EQ(table.render({32, false, false}), "TIME      NAME\n20:14:07  tenant-01/db\n");
}

TEST(Table, ShrinksGapsThenCutsTheWidest) {
  Table table({left("A", 4, Cut::Middle), left("B", 4)});
  table.add({"abcdefghij", "klmnop"});
  EXPECT_EQ(table.render({17, false, false}), "A          B\nabcdefghij klmnop\n");
  EXPECT_EQ(table.render({14, false, false}), "A       B\nabc…hij klmnop\n");
}

TEST(Table, DropsByRankWhenCuttingIsNotEnough) {
  Column extra = left("C");
  extra.drop = 1;
  Table table({left("A", 4), left("B", 4), extra});
  table.add({"abcdefgh", "ijklmnop", "qrst"});
  EXPECT_EQ(table.render({12, false, false}), "A     B\nabcd… ijklm…\n");
}

TEST(Table, WideCutsNothingAndShowsAll) {
  Column hidden = left("MORE");
  hidden.wide_only = true;
  Table table({left("A", 4), hidden});
  table.add({std::string(200, 'x'), "y"});
  EXPECT_EQ(widest(table.render({80, false, false})), 80u);
  EXPECT_EQ(widest(table.render({80, true, false})), 206u);
}

class FitsEveryWidth : public testing::TestWithParam<std::size_t> {};

TEST_P(FitsEveryWidth, NoLineIsLonger) {
  Table table(
      {left("FROM", 8, Cut::Middle), left("TO", 8, Cut::Middle), left("POLICY", 8, Cut::Middle), right("N")});
  table.add(
      {"tenant-02/web-7c9f8b6d5-x2x1z", "outside 2001:db8:113:1::9", "tenant-01/tenant-01-restrict", "12"});
  table.add({"日本語日本語日本語", "a", "b", "1,204,332"});
  EXPECT_LE(widest(table.render({GetParam(), false, false})), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Widths, FitsEveryWidth, testing::Values(37, 40, 60, 80, 100, 120, 200));

TEST(Table, ColoursOnlyWhenAsked) {
  Table table({left("V")});
  table.add({Cell("deny", Style::Deny)});
  EXPECT_EQ(table.render({80, false, false}), "V\ndeny\n");
  EXPECT_EQ(table.render({80, false, true}), "\x1b[1mV\x1b[0m\n\x1b[31mdeny\x1b[0m\n");
}

TEST(Table, CellsCannotBreakTheTable) {
  Table table({left("V"), left("W")});
  table.add({"a\nb", "\x1b[31m"});
  EXPECT_EQ(table.render({80, false, false}), "V     W\na\\nb  \\x1b[31m\n");
}

TEST(LiveTable, KeepsItsColumnsWhateverComes) {
  Column name = left("NAME", 4, Cut::Middle);
  name.typical = 10;
  const LiveTable table({name, right("N")}, {80, false, false});
  EXPECT_EQ(table.header(), "NAME        N\n");
  EXPECT_EQ(table.row({"a", "1"}), "a           1\n");
  EXPECT_EQ(table.row({"abcdefghijklmno", "2"}), "abcd…klmno  2\n");
}

}  // namespace
}  // namespace tierlog::cli
