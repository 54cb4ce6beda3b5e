// base/result.h - how every function that can fail says so.
//
// Result<T> is tl::expected<T, Error>. Context is prepended where an error leaves a module, so that a
// message reads from the outside in: "apply nftables: add chain cls3_7: ENOENT: no such set".
// Findings on a user's files are not errors but base/diagnostics.h: all of them, each with its place.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace tierlog {

// What the caller may do about it; what happened is in the message.
enum class ErrorCode {
  InvalidArgument,  // the input is wrong: tell whoever gave it (exit 2)
  NotFound,         // a named thing is unknown (exit 1)
  Unavailable,      // try again later: daemon down, database busy
  Refused,          // the kernel or the daemon said no (exit 3)
  Corrupt,          // a file of ours is damaged
  Io,               // a file or socket operation failed
};

struct Error {
  ErrorCode code = ErrorCode::Io;
  std::string message;
  int errno_value = 0;  // 0 when no system call was involved

  // "OPERATION OBJECT: ENAME: text"; code Refused for EPERM, EINVAL and the like, else Io.
  static Error from_errno(int number, std::string_view operation, std::string_view object = {});
  // The same error with "CONTEXT: " in front.
  Error in(std::string_view context) const;
};

template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message), 0});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

// "ENOENT", "EPERM", …; the number as text when it has no name.
std::string errno_name(int number);

}  // namespace tierlog

// Returns the error from the enclosing function when EXPR (a Result) failed; its value is dropped.
#define TL_TRY(expr)                                                   \
  do {                                                                 \
    auto tl_result_ = (expr);                                          \
    if (!tl_result_) return tl::make_unexpected(std::move(tl_result_.error())); \
  } while (false)

#define TL_CONCAT_INNER(a, b) a##b
#define TL_CONCAT(a, b) TL_CONCAT_INNER(a, b)
// Declares VAR with the value of EXPR, or returns its error: TL_ASSIGN(auto fd, open_it());
#define TL_ASSIGN(var, expr) TL_ASSIGN_NAMED(TL_CONCAT(tl_assign_, __LINE__), var, expr)
#define TL_ASSIGN_NAMED(name, var, expr)                              \
  auto name = (expr);                                                 \
  if (!name) return tl::make_unexpected(std::move(name.error()));     \
  var = std::move(*name)
