#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/exit_code.h"

namespace tierlog::cli {
namespace {

// Of what is no terminal: programs read it, and what was cut is lost to them.
constexpr std::size_t kUnlimited = 1'000'000;
constexpr std::size_t kNarrowest = 20;

bool set_and_not_empty(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

std::size_t terminal_width() {
  if (const char* columns = std::getenv("COLUMNS")) {
    std::size_t width = 0;
    const auto [end, error] = std::from_chars(columns, columns + std::strlen(columns), width);
    if (error == std::errc() && *end == '\0' && width >= kNarrowest) return width;
  }
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= kNarrowest) return size.ws_col;
  return kUnlimited;
}

bool stdout_has_colour() {
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::strcmp(term, "dumb") == 0;
  return ::isatty(STDOUT_FILENO) == 1 && !set_and_not_empty("NO_COLOR") && !dumb;
}

}  // namespace

void out(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void say(std::string_view line) {
  std::fflush(stdout);
  const std::string safe = printable(line) + "\n";
  std::fwrite(safe.data(), 1, safe.size(), stderr);
}

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
    case ErrorCode::Corrupt:
      return kBadInput;
    case ErrorCode::NotFound:
      return kNo;
    case ErrorCode::Unavailable:
    case ErrorCode::Refused:
    case ErrorCode::Io:
      break;
  }
  return kRefused;
}

void progress(std::string_view line) {
  if (::isatty(STDERR_FILENO) != 1) return;
  std::fprintf(stderr, "\r\x1b[K%s", printable(line).c_str());
  std::fflush(stderr);
}

int complain(const Error& error) {
  // Findings arrive as several lines in one message.
  std::string_view rest = error.message;
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    say(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  }
  return exit_code_of(error.code);
}

int misuse(std::string_view sentence) {
  say(sentence);
  return kBadInput;
}

View stdout_view(bool wide) {
  return {terminal_width(), wide, stdout_has_colour()};
}

bool flush_stdout() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
  say(Error::from_errno(errno, "write", "standard output").message);
  return false;
}

}  // namespace tierlog::cli
