// dataplane/nftables/encode.h - ruleset.h objects -> messages of a Batch, through libnftnl.
#pragma once

#include <string>
#include <vector>

#include "dataplane/nftables/ruleset.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {

void add_table(Batch& batch, std::uint32_t flags);
void delete_table(Batch& batch);
void add_counter(Batch& batch, const std::string& name, std::uint64_t packets = 0, std::uint64_t bytes = 0);
void delete_counter(Batch& batch, const std::string& name);
void add_set(Batch& batch, const Set& set);  // without its elements
void delete_set(Batch& batch, const std::string& name);
void add_elements(Batch& batch, const std::string& set, const std::vector<Element>& elements);
void delete_elements(Batch& batch, const std::string& set, const std::vector<Element>& elements);
void add_chain(Batch& batch, const Chain& chain);  // without its rules
void delete_chain(Batch& batch, const std::string& name);
void flush_chain(Batch& batch, const std::string& name);
void add_rules(Batch& batch, const Chain& chain);

}  // namespace tierlog::dataplane::nftables
