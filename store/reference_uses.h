// store/reference_uses.h - how many records refer to each row of the dictionaries peer and text: what
// retention leaves with none is taken away.
//
// Counts of 256 rows stand together as bytes: a roll-up changes those of most peers, and a peer's own row is
// long.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/flat_map.h"
#include "base/result.h"
#include "store/sqlite.h"

namespace tierlog::store {

enum class Referred : std::uint8_t { Peer, Text };

struct ReferenceHash {
  std::size_t operator()(std::int64_t reference) const noexcept {
    const std::uint64_t hash = static_cast<std::uint64_t>(reference) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
  }
};
using Uses = FlatMap<std::int64_t, std::int64_t, ReferenceHash>;  // by id

class ReferenceUses {
 public:
  static Result<ReferenceUses> open(sqlite::Database& database);
  // All inside the caller's transaction. Errors: also Corrupt.
  Result<void> add(Referred of, const Uses& more);
  // Up to about `most` ids that nothing refers to any more; they are forgotten here.
  Result<std::vector<std::int64_t>> take_unused(Referred of, std::int64_t most);
  Result<std::map<std::int64_t, std::int64_t>> read(Referred of);

 private:
  Result<void> put(Referred of, std::int64_t part);

  sqlite::Statement find_, put_, drop_, unused_, list_;
  struct Count {
    std::int64_t place = 0, uses = 0;
  };
  std::vector<Count> counts_;  // of the part in hand, by place
  std::string bytes_;
};

}  // namespace tierlog::store
