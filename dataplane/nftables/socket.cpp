#include "dataplane/nftables/socket.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "dataplane/nftables/constants.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::size_t kMessageBytes = 256 * 1024;
constexpr int kBufferBytes = 64 << 20;

nlmsghdr* put_header(char* buffer, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence,
                     std::uint8_t family, std::uint16_t resource) {
  nlmsghdr* header = mnl_nlmsg_put_header(buffer);
  header->nlmsg_type = type;
  header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  header->nlmsg_seq = sequence;
  auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
  netfilter->nfgen_family = family;
  netfilter->version = NFNETLINK_V0;
  netfilter->res_id = htons(resource);
  return header;
}

std::uint16_t nft_type(std::uint16_t type) {
  return static_cast<std::uint16_t>((NFNL_SUBSYS_NFTABLES << 8) | type);
}

std::vector<char> batch_edge(std::uint16_t type, std::uint32_t sequence) {
  std::array<char, 64> buffer{};
  const nlmsghdr* header = put_header(buffer.data(), type, 0, sequence, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  return {buffer.data(), buffer.data() + header->nlmsg_len};
}

}  // namespace

void Batch::add(std::uint16_t type, std::uint16_t flags, std::string describe,
                const std::function<void(nlmsghdr*)>& fill) {
  static thread_local std::vector<char> scratch(kMessageBytes);
  nlmsghdr* header = put_header(scratch.data(), nft_type(type), flags, 0, family_, 0);
  fill(header);
  offsets_.push_back(bytes_.size());
  bytes_.insert(bytes_.end(), scratch.data(), scratch.data() + NLMSG_ALIGN(header->nlmsg_len));
  descriptions_.push_back(std::move(describe));
}

void Batch::reserve(std::size_t messages) {
  constexpr std::size_t kUsualBytes = 320;  // most are rules
  bytes_.reserve(bytes_.size() + messages * kUsualBytes);
  offsets_.reserve(offsets_.size() + messages);
  descriptions_.reserve(descriptions_.size() + messages);
}

Result<NetfilterSocket> NetfilterSocket::open() {
  Socket socket(mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC));
  if (!socket) return fail(Error::from_errno(errno, "open", "netlink socket (netfilter)"));
  if (mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0)
    return fail(Error::from_errno(errno, "bind", "netlink socket (netfilter)"));
  const int fd = mnl_socket_get_fd(socket.get());
  for (const int option : {SO_SNDBUFFORCE, SO_RCVBUFFORCE})
    if (::setsockopt(fd, SOL_SOCKET, option, &kBufferBytes, sizeof kBufferBytes) < 0)
      return fail(Error::from_errno(errno, "enlarge buffers of", "netlink socket (netfilter)"));
  return NetfilterSocket(std::move(socket));
}

Result<void> NetfilterSocket::commit(Batch& batch) {
  if (batch.empty()) return {};
  const std::uint32_t first = sequence_ + 1;
  for (std::size_t i = 0; i < batch.offsets_.size(); ++i) {
    auto* header = reinterpret_cast<nlmsghdr*>(batch.bytes_.data() + batch.offsets_[i]);
    header->nlmsg_seq = first + static_cast<std::uint32_t>(i);
    if (i + 1 == batch.offsets_.size())
      header->nlmsg_flags = static_cast<std::uint16_t>(header->nlmsg_flags | NLM_F_ACK);
  }
  const auto end_sequence = first + static_cast<std::uint32_t>(batch.offsets_.size());
  const std::vector<char> begin = batch_edge(NFNL_MSG_BATCH_BEGIN, sequence_);
  const std::vector<char> end = batch_edge(NFNL_MSG_BATCH_END, end_sequence);
  const auto part = [](const std::vector<char>& bytes) {
    return iovec{const_cast<char*>(bytes.data()), bytes.size()};
  };
  std::array<iovec, 3> parts{part(begin), part(batch.bytes_), part(end)};
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  msghdr message{};
  message.msg_name = &kernel;
  message.msg_namelen = sizeof kernel;
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  sequence_ = end_sequence + 1;
  sent_bytes_ += batch.bytes();
  if (::sendmsg(mnl_socket_get_fd(socket_.get()), &message, 0) < 0)
    return fail(
        Error::from_errno(errno, "send", "a batch of " + std::to_string(batch.messages()) + " messages"));
  return read_answers(batch, first);
}

// The kernel answers before send returns, so whatever there is to read is there now.
Result<void> NetfilterSocket::read_answers(const Batch& batch, std::uint32_t first_sequence) {
  answers_.resize(kMessageBytes);
  const std::size_t count = batch.offsets_.size();
  std::optional<std::pair<std::size_t, int>> first_error;
  bool acknowledged = false;
  while (true) {
    const ssize_t got =
        ::recv(mnl_socket_get_fd(socket_.get()), answers_.data(), answers_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      if (errno == EAGAIN) break;
      return fail(Error::from_errno(errno, "read the answer to", "a batch"));
    }
    int length = static_cast<int>(got);
    for (auto* header = reinterpret_cast<nlmsghdr*>(answers_.data()); mnl_nlmsg_ok(header, length);
         header = mnl_nlmsg_next(header, &length)) {
      if (header->nlmsg_type != NLMSG_ERROR) continue;
      const auto* answer = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(header));
      const std::size_t index = header->nlmsg_seq - first_sequence;
      if (answer->error == 0) {
        acknowledged = acknowledged || index + 1 == count;
        continue;
      }
      // Behind the first refused message others fail for that reason alone; an answer outside the
      // messages' own numbers is about the transaction.
      const std::size_t position = index < count ? index : count;
      if (!first_error || position < first_error->first) first_error = {position, -answer->error};
    }
  }
  if (first_error) {
    const auto& [position, number] = *first_error;
    const std::string what = position < count ? batch.descriptions_[position] : "commit the transaction";
    Error error = Error::from_errno(number, what);
    error.code = ErrorCode::Refused;
    return fail(std::move(error));
  }
  if (!acknowledged) return fail(ErrorCode::Refused, "commit the transaction: the kernel gave no answer");
  return {};
}

Result<void> NetfilterSocket::dump(std::uint16_t type, std::uint8_t family,
                                   const std::function<void(nlmsghdr*)>& fill,
                                   const std::function<void(const nlmsghdr*)>& each) {
  constexpr int kTries = 10;  // a change during a dump interrupts it
  for (int attempt = 0; attempt < kTries; ++attempt) {
    std::vector<char> request(4096);
    answers_.resize(kMessageBytes);
    nlmsghdr* header = put_header(request.data(), nft_type(type), NLM_F_DUMP, ++sequence_, family, 0);
    fill(header);
    if (mnl_socket_sendto(socket_.get(), header, header->nlmsg_len) < 0)
      return fail(Error::from_errno(errno, "ask for a dump"));
    std::vector<std::vector<char>> messages;
    bool done = false;
    bool interrupted = false;
    while (!done) {
      const ssize_t got = mnl_socket_recvfrom(socket_.get(), answers_.data(), answers_.size());
      if (got < 0) return fail(Error::from_errno(errno, "read a dump"));
      int length = static_cast<int>(got);
      for (auto* answer = reinterpret_cast<nlmsghdr*>(answers_.data()); mnl_nlmsg_ok(answer, length);
           answer = mnl_nlmsg_next(answer, &length)) {
        if (answer->nlmsg_seq != sequence_) continue;
        if ((answer->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
        if (answer->nlmsg_type == NLMSG_DONE) {
          done = true;
        } else if (answer->nlmsg_type == NLMSG_ERROR) {
          const int number = -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(answer))->error;
          if (number == EINTR) {
            interrupted = done = true;
          } else {
            return fail(Error::from_errno(number, "dump"));
          }
        } else {
          const auto* bytes = reinterpret_cast<const char*>(answer);
          messages.emplace_back(bytes, bytes + answer->nlmsg_len);
        }
      }
    }
    if (interrupted) continue;
    for (const auto& message : messages) each(reinterpret_cast<const nlmsghdr*>(message.data()));
    return {};
  }
  return fail(ErrorCode::Unavailable, "dump: interrupted by changes ten times in a row");
}

}  // namespace tierlog::dataplane::nftables
