// cli/flow_groups.h - sums over records as a listing: --group-by, --top, --bins, --rate.
//
//   store/groups.h --GroupResult--> [Listing] --> output.h
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "store/groups.h"

namespace tierlog::cli {

Listing group_listing(const store::GroupQuery& query, const store::GroupResult& result);

// "▁▂▃█", one character a value, the highest is "█"; more than `width` values are added up to that many.
std::string sparkline(const std::vector<std::uint64_t>& values, std::size_t width);

}  // namespace tierlog::cli
