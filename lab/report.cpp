#include "lab/report.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

namespace tierlog::lab {
namespace {

// What goes over the channel: a kind, and of an error its code, its errno and its words.
struct Header {
  enum class Kind : std::uint8_t { Hello, Error, Release } kind = Kind::Hello;
  ErrorCode code{};
  int errno_value = 0;
};

struct Message {
  Header header;
  std::string text;
  pid_t sender = 0;
};

void send_message(int channel, Header header, std::string text) {
  std::array<iovec, 2> parts{{{&header, sizeof header}, {text.data(), text.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  // The starter may be gone; then nobody wants to know.
  static_cast<void>(::sendmsg(channel, &message, MSG_NOSIGNAL));
}

pid_t sender_of(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_CREDENTIALS) continue;
    ucred credentials{};
    std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
    return credentials.pid;
  }
  return 0;
}

// Nothing at the end of the channel.
Result<std::optional<Message>> receive_message(int channel) {
  Message received;
  std::array<char, 8192> text{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
  std::array<iovec, 2> parts{{{&received.header, sizeof received.header}, {text.data(), text.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t size = 0;
  do {
    size = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return fail(Error::from_errno(errno, "recvmsg", "report"));
  if (static_cast<std::size_t>(size) < sizeof received.header) return std::nullopt;
  received.text.assign(text.data(), static_cast<std::size_t>(size) - sizeof received.header);
  received.sender = sender_of(message);
  return received;
}

Error error_of(const Message& message) {
  return Error{message.header.code, message.text, message.header.errno_value};
}

}  // namespace

void Reporter::hello() const {
  send_message(channel_.get(), {}, {});
}

void Reporter::error(const Error& error) const {
  send_message(channel_.get(), {Header::Kind::Error, error.code, error.errno_value},
               error.message.substr(0, 8000));
}

bool Reporter::released() const {
  const auto message = receive_message(channel_.get());
  return message && *message && (*message)->header.kind == Header::Kind::Release;
}

Result<std::pair<Report, Reporter>> Report::open() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(Error::from_errno(errno, "socketpair"));
  }
  Fd mine(ends[0]);
  Fd theirs(ends[1]);
  const int on = 1;
  if (::setsockopt(mine.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    return fail(Error::from_errno(errno, "setsockopt", "SO_PASSCRED"));
  }
  return std::pair(Report(std::move(mine)), Reporter(std::move(theirs)));
}

Result<pid_t> Report::hello() const {
  TL_ASSIGN(const auto message, receive_message(channel_.get()));
  if (!message) return fail(ErrorCode::Io, "the started process ended at once");
  if (message->header.kind == Header::Kind::Error) return fail(error_of(*message));
  return message->sender;
}

Result<void> Report::rest() const {
  TL_ASSIGN(const auto message, receive_message(channel_.get()));
  if (message && message->header.kind == Header::Kind::Error) return fail(error_of(*message));
  return {};
}

void Report::release() const {
  send_message(channel_.get(), {Header::Kind::Release, {}, 0}, {});
}

}  // namespace tierlog::lab
