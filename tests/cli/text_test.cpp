#include "cli/text.h"

#include <gtest/gtest.h>

namespace tierlog::cli {
namespace {

struct PrintableCase {
  const char* name;
  std::string given;
  const char* expected;
};

class Printable : public testing::TestWithParam<PrintableCase> {};

TEST_P(Printable, IsHarmless) {
  EXPECT_EQ(printable(GetParam().given), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Bytes, Printable,
                         testing::Values(PrintableCase{"plain", "tenant-01/db", "tenant-01/db"},
                                         PrintableCase{"umlaut_and_dots", "Bär · …", "Bär · …"},
                                         PrintableCase{"escape", "\x1b[2J", "\\x1b[2J"},
                                         PrintableCase{"newline_tab_return", "a\nb\tc\rd", "a\\nb\\tc\\rd"},
                                         PrintableCase{"zero", std::string("a\0b", 3), "a\\x00b"},
                                         PrintableCase{"delete", "\x7f", "\\x7f"},
                                         PrintableCase{"c1_csi",
                                                       "\xc2\x9b"
                                                       "31m",
                                                       "\\u{9b}31m"},
                                         PrintableCase{"right_to_left_override",
                                                       "\xe2\x80\xae"
                                                       "txt",
                                                       "\\u{202e}txt"},
                                         PrintableCase{"zero_width_space",
                                                       "a\xe2\x80\x8b"
                                                       "b",
                                                       "a\\u{200b}b"},
                                         PrintableCase{"stray_byte",
                                                       "a\xff"
                                                       "b",
                                                       "a\\xffb"},
                                         PrintableCase{"cut_sequence", "a\xe2\x80", "a\\xe2\\x80"},
                                         PrintableCase{"overlong", "\xc0\xaf", "\\xc0\\xaf"},
                                         PrintableCase{"overlong_of_three", "\xe0\x80\xaf",
                                                       "\\xe0\\x80\\xaf"},
                                         PrintableCase{"surrogate", "\xed\xa0\x80", "\\xed\\xa0\\x80"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(DisplayWidth, CountsColumnsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("a·b…"), 4u);
  EXPECT_EQ(display_width("日本"), 4u);
  EXPECT_EQ(display_width("e\u0301"), 1u);
}

struct FitCase {
  const char* name;
  const char* given;
  std::size_t width;
  Cut cut;
  const char* expected;
};

class Fit : public testing::TestWithParam<FitCase> {};

TEST_P(Fit, CutsToTheWidth) {
  const std::string text = fit(GetParam().given, GetParam().width, GetParam().cut);
  EXPECT_EQ(text, GetParam().expected);
  EXPECT_LE(display_width(text), GetParam().width);
}

INSTANTIATE_TEST_SUITE_P(Texts, Fit,
                         testing::Values(FitCase{"fits", "abcdef", 6, Cut::End, "abcdef"},
                                         FitCase{"end", "abcdef", 4, Cut::End, "abc…"},
                                         FitCase{"middle", "abcdefgh", 5, Cut::Middle, "ab…gh"},
                                         FitCase{"middle_even", "abcdefgh", 6, Cut::Middle, "ab…fgh"},
                                         FitCase{"start", "abcdef", 4, Cut::Start, "…def"},
                                         FitCase{"one", "abc", 1, Cut::End, "…"},
                                         FitCase{"none", "abc", 0, Cut::End, ""},
                                         FitCase{"wide_does_not_fit_half", "日本語", 4, Cut::End, "日…"},
                                         FitCase{"multibyte_whole", "ääää", 3, Cut::End, "ää…"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Padded, FillsToTheWidth) {
  EXPECT_EQ(padded("ab", 4), "ab  ");
  EXPECT_EQ(padded("ab", 4, Align::Right), "  ab");
  EXPECT_EQ(padded("…", 3), "…  ");
  EXPECT_EQ(padded("abcd", 2), "abcd");
}

}  // namespace
}  // namespace tierlog::cli
