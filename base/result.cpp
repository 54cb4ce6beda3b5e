#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace tierlog {

std::string errno_name(int number) {
  const char* name = ::strerrorname_np(number);
  return name != nullptr ? name : std::to_string(number);
}

Error Error::from_errno(int number, std::string_view operation, std::string_view object) {
  std::string text(operation);
  if (!object.empty()) text.append(" ").append(object);
  text.append(": ").append(errno_name(number)).append(": ").append(std::strerror(number));
  switch (number) {
    case ENOENT: return {ErrorCode::NotFound, std::move(text), number};
    case EAGAIN:
    case EBUSY:
    case ECONNREFUSED: return {ErrorCode::Unavailable, std::move(text), number};
    case EIO:
    case ENOSPC: return {ErrorCode::Io, std::move(text), number};
    default: return {ErrorCode::Refused, std::move(text), number};
  }
}

Error Error::in(std::string_view context) const {
  return {code, std::string(context).append(": ").append(message), errno_value};
}

}  // namespace tierlog
