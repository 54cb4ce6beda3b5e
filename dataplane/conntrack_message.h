// dataplane/conntrack_message.h - ctnetlink attributes <-> Connection. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/connection.h"

struct nlmsghdr;

namespace tierlog::dataplane {

// The attributes of one ctnetlink message (what follows the nfgenmsg header). nullopt: it names no
// connection. Never reads outside `attributes` whatever they say.
std::optional<Connection> decode_connection(std::span<const std::uint8_t> attributes);

// Names the entry to the kernel: its original tuple and zone, and its id where `with_id`.
enum class EntryId : std::uint8_t { Without, With };
void put_entry(nlmsghdr* message, const Connection& connection, EntryId with_id);
// Names the entry whose answers look like this.
void put_reply(nlmsghdr* message, const ConnectionTuple& reply);
// Replaces words 0, 1 and 3 and leaves word 2.
void put_labels(nlmsghdr* message, const ConnectionLabels& labels);

}  // namespace tierlog::dataplane
