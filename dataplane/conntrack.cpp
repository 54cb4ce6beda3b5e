#include "dataplane/conntrack.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "dataplane/conntrack_message.h"

namespace tierlog::dataplane {
namespace {

constexpr std::size_t kReadBytes = 256 * 1024;
constexpr int kRequestBufferBytes = 8 << 20;
constexpr int kDumpAttempts = 8;

constexpr std::uint16_t conntrack_type(std::uint16_t type) {
  return static_cast<std::uint16_t>((NFNL_SUBSYS_CTNETLINK << 8) | type);
}

std::uint8_t family_of(const Connection& connection) {
  return connection.original.source.family == Family::V4 ? AF_INET : AF_INET6;
}

Result<Fd> open_socket(std::uint32_t groups, int receive_bytes, const char* what) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return fail(Error::from_errno(errno, "open", what));
  // Before bind: nothing may come that does not find its room.
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof receive_bytes) < 0)
    return fail(Error::from_errno(errno, "enlarge the buffer of", what));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return fail(Error::from_errno(errno, "bind", what));
  return socket;
}

std::optional<Connection> connection_of(const nlmsghdr* header) {
  const std::size_t size = mnl_nlmsg_get_payload_len(header);
  if (size < sizeof(nfgenmsg)) return std::nullopt;
  const auto* body = static_cast<const std::uint8_t*>(mnl_nlmsg_get_payload(header));
  return decode_connection({body + sizeof(nfgenmsg), size - sizeof(nfgenmsg)});
}

// The errno that a message of type NLMSG_ERROR or NLMSG_DONE carries, positive.
int error_of(const nlmsghdr* header) {
  int error = 0;
  if (mnl_nlmsg_get_payload_len(header) >= sizeof error)
    std::memcpy(&error, mnl_nlmsg_get_payload(header), sizeof error);
  return -error;
}

int add_dropped(const nlattr* attribute, void* sum) {
  if (mnl_attr_get_type(attribute) == CTA_STATS_DROP && mnl_attr_get_payload_len(attribute) == 4)
    *static_cast<std::uint64_t*>(sum) += ntohl(mnl_attr_get_u32(attribute));
  return MNL_CB_OK;
}

}  // namespace

Conntrack::Conntrack(Fd events, Fd requests)
    : events_(std::move(events)), requests_(std::move(requests)), buffer_(kReadBytes) {}

Result<std::unique_ptr<Conntrack>> Conntrack::open(const ConntrackOptions& options) {
  TL_ASSIGN(Fd requests, open_socket(0, kRequestBufferBytes, "conntrack socket"));
  TL_ASSIGN(Fd events, open_socket(1U << (NFNLGRP_CONNTRACK_DESTROY - 1), options.receive_bytes,
                                   "conntrack event socket"));
  std::unique_ptr<Conntrack> made(new Conntrack(std::move(events), std::move(requests)));
  made->changed_ = set_conntrack_switches();
  TL_ASSIGN(made->dropped_before_, made->dropped_ever());
  return made;
}

Result<void> Conntrack::count_full() {
  TL_ASSIGN(const std::uint64_t ever, dropped_ever());
  // The kernel's numbers have 32 bits a CPU.
  if (ever > dropped_before_) loss_.table_full += ever - dropped_before_;
  dropped_before_ = ever;
  return {};
}

// A message a CPU.
Result<std::uint64_t> Conntrack::dropped_ever() {
  TL_TRY(send([](nlmsghdr*) {}, IPCTNL_MSG_CT_GET_STATS_CPU, NLM_F_DUMP, AF_UNSPEC));
  std::uint64_t dropped = 0;
  while (true) {
    const ssize_t got = ::recv(requests_.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "read the statistics of", "conntrack"));
    int length = static_cast<int>(got);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(header, length);
         header = mnl_nlmsg_next(header, &length)) {
      if (header->nlmsg_seq != sequence_) continue;
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) return dropped;
      mnl_attr_parse(header, sizeof(nfgenmsg), add_dropped, &dropped);
    }
  }
}

Result<bool> Conntrack::drain(std::vector<Connection>& ended, std::size_t limit) {
  const std::size_t enough = ended.size() + limit;
  while (ended.size() < enough) {
    const ssize_t got = ::recv(events_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got >= 0) {
      take({buffer_.data(), static_cast<std::size_t>(got)}, ended);
    } else if (errno == ENOBUFS) {
      ++loss_.overruns;
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      return fail(Error::from_errno(errno, "read", "conntrack event socket"));
    }
  }
  return true;
}

void Conntrack::take(std::span<const std::uint8_t> datagram, std::vector<Connection>& ended) {
  int length = static_cast<int>(datagram.size());
  for (const auto* header = reinterpret_cast<const nlmsghdr*>(datagram.data()); mnl_nlmsg_ok(header, length);
       header = mnl_nlmsg_next(header, &length)) {
    if (header->nlmsg_type != conntrack_type(IPCTNL_MSG_CT_DELETE)) continue;
    if (auto connection = connection_of(header))
      ended.push_back(std::move(*connection));
    else
      ++loss_.undecodable;
  }
}

Result<void> Conntrack::send(const std::function<void(nlmsghdr*)>& fill, std::uint16_t type,
                             std::uint16_t flags, std::uint8_t family) {
  std::array<char, 1024> message{};
  nlmsghdr* header = mnl_nlmsg_put_header(message.data());
  header->nlmsg_type = conntrack_type(type);
  header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  header->nlmsg_seq = ++sequence_;
  auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
  netfilter->nfgen_family = family;
  netfilter->version = NFNETLINK_V0;
  fill(header);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(requests_.get(), header, header->nlmsg_len, 0, reinterpret_cast<const sockaddr*>(&kernel),
               sizeof kernel) < 0)
    return fail(Error::from_errno(errno, "send to", "conntrack"));
  return {};
}

// Sends and gives the errno of the kernel's answer, 0 for none.
Result<int> Conntrack::request(const std::function<void(nlmsghdr*)>& fill, std::uint16_t type,
                               std::uint8_t family) {
  TL_TRY(send(fill, type, NLM_F_ACK, family));
  while (true) {
    const ssize_t got = ::recv(requests_.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "read the answer of", "conntrack"));
    int length = static_cast<int>(got);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(header, length);
         header = mnl_nlmsg_next(header, &length))
      if (header->nlmsg_seq == sequence_ && header->nlmsg_type == NLMSG_ERROR) return error_of(header);
  }
}

// False: the kernel says that the table changed underneath.
Result<bool> Conntrack::dump_once(std::vector<Connection>& into) {
  TL_TRY(send([](nlmsghdr*) {}, IPCTNL_MSG_CT_GET, NLM_F_DUMP, AF_UNSPEC));
  bool whole = true;
  while (true) {
    const ssize_t got = ::recv(requests_.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "dump", "conntrack"));
    int length = static_cast<int>(got);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(header, length);
         header = mnl_nlmsg_next(header, &length)) {
      if (header->nlmsg_seq != sequence_) continue;
      if ((header->nlmsg_flags & NLM_F_DUMP_INTR) != 0) whole = false;
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
        const int error = error_of(header);
        if (error == EINTR) return false;
        if (error != 0) return fail(Error::from_errno(error, "dump", "conntrack"));
        return whole;
      }
      if (auto connection = connection_of(header))
        into.push_back(std::move(*connection));
      else
        ++loss_.undecodable;
    }
  }
}

Result<void> Conntrack::dump(const std::function<void(const Connection&)>& each) {
  std::vector<Connection> entries;
  for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
    entries.clear();
    TL_ASSIGN(const bool whole, dump_once(entries));
    if (!whole) continue;
    for (const Connection& connection : entries) each(connection);
    return {};
  }
  return fail(ErrorCode::Unavailable,
              "dump conntrack: interrupted by changes " + std::to_string(kDumpAttempts) + " times in a row");
}

Result<std::optional<Connection>> Conntrack::find_by_reply(const ConnectionTuple& reply) {
  const std::uint8_t family = reply.source.family == Family::V4 ? AF_INET : AF_INET6;
  TL_TRY(send([&](nlmsghdr* message) { put_reply(message, reply); }, IPCTNL_MSG_CT_GET, 0, family));
  while (true) {
    const ssize_t got = ::recv(requests_.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "ask", "conntrack"));
    int length = static_cast<int>(got);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data()); mnl_nlmsg_ok(header, length);
         header = mnl_nlmsg_next(header, &length)) {
      if (header->nlmsg_seq != sequence_) continue;
      if (header->nlmsg_type != NLMSG_ERROR) return connection_of(header);
      const int error = error_of(header);
      if (error != 0 && error != ENOENT) return fail(Error::from_errno(error, "ask", "conntrack"));
      return std::optional<Connection>();
    }
  }
}

Result<LabelResult> Conntrack::set_labels(const Connection& connection, const ConnectionLabels& labels) {
  const auto fill = [&](nlmsghdr* message) {
    put_entry(message, connection, EntryId::Without);
    put_labels(message, labels);
  };
  TL_ASSIGN(const int error, request(fill, IPCTNL_MSG_CT_NEW, family_of(connection)));
  if (error == 0) return LabelResult::Written;
  if (error == ENOSPC) return LabelResult::NoSpace;
  if (error == ENOENT) return LabelResult::Gone;
  return fail(Error::from_errno(error, "set the label of", "a conntrack entry"));
}

Result<bool> Conntrack::remove(const Connection& connection) {
  const auto fill = [&](nlmsghdr* message) { put_entry(message, connection, EntryId::With); };
  TL_ASSIGN(const int error, request(fill, IPCTNL_MSG_CT_DELETE, family_of(connection)));
  if (error == 0) return true;
  if (error == ENOENT) return false;
  return fail(Error::from_errno(error, "delete", "a conntrack entry"));
}

}  // namespace tierlog::dataplane
