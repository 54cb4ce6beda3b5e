#include "store/reference_uses.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "store/varints.h"

namespace tierlog::store {
namespace {

constexpr std::int64_t kEach = 256;

// The next of a part; false behind the last.
Result<bool> get(VarintReader& bytes, std::int64_t& place, std::int64_t& uses) {
  if (bytes.at_end()) return false;
  std::uint64_t step = 0, count = 0;
  if (!bytes.get(step) || !bytes.get(count))
    return fail(ErrorCode::Corrupt, "flow index: counts of reference_uses end in the middle of one");
  place += static_cast<std::int64_t>(step);
  uses = static_cast<std::int64_t>(unfold_sign(count));
  return true;
}

}  // namespace

Result<ReferenceUses> ReferenceUses::open(sqlite::Database& database) {
  ReferenceUses made;
  TL_ASSIGN(made.find_, database.prepare("SELECT counts FROM reference_uses WHERE of = ?1 AND part = ?2"));
  TL_ASSIGN(made.put_, database.prepare("INSERT OR REPLACE INTO reference_uses(of, part, unused, counts)"
                                        " VALUES (?1, ?2, ?3, ?4)"));
  TL_ASSIGN(made.drop_, database.prepare("DELETE FROM reference_uses WHERE of = ?1 AND part = ?2"));
  TL_ASSIGN(
      made.unused_,
      database.prepare(
          "SELECT part, counts FROM reference_uses WHERE of = ?1 AND unused > 0 ORDER BY part LIMIT 1"));
  TL_ASSIGN(made.list_,
            database.prepare("SELECT part, counts FROM reference_uses WHERE of = ?1 ORDER BY part"));
  return made;
}

Result<void> ReferenceUses::put(Referred of, std::int64_t part) {
  if (counts_.empty()) return drop_.bind(static_cast<int>(of), part).run();
  bytes_.clear();
  std::int64_t before = 0, unused = 0;
  for (const Count& count : counts_) {
    put_varint(bytes_, static_cast<std::uint64_t>(count.place - before));
    put_varint(bytes_, fold_sign(static_cast<std::uint64_t>(count.uses)));
    before = count.place;
    unused += count.uses == 0 ? 1 : 0;
  }
  put_.bind(static_cast<int>(of), part, unused);
  put_.bind_blob(4, sqlite::Borrowed{bytes_});
  return put_.run();
}

Result<void> ReferenceUses::add(Referred of, const Uses& more) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ordered;
  ordered.reserve(more.size());
  for (const auto& [id, uses] : more.entries()) ordered.emplace_back(id, uses);
  std::sort(ordered.begin(), ordered.end());
  for (auto next = ordered.begin(); next != ordered.end();) {
    const std::int64_t part = next->first / kEach;
    const auto end =
        std::find_if(next, ordered.end(), [&](const auto& entry) { return entry.first / kEach != part; });
    counts_.clear();
    const auto add_next = [&] {
      counts_.push_back({next->first % kEach, next->second});
      ++next;
    };
    find_.bind(static_cast<int>(of), part);
    TL_ASSIGN(const bool there, find_.step());
    bytes_ = there ? find_.blob(0) : std::string_view();
    find_.reset();
    VarintReader old(bytes_);
    Count count;
    for (;;) {
      TL_ASSIGN(const bool another, get(old, count.place, count.uses));
      if (!another) break;
      while (next != end && next->first % kEach < count.place) add_next();
      counts_.push_back(count);
      if (next != end && next->first % kEach == count.place) counts_.back().uses += (next++)->second;
    }
    while (next != end) add_next();
    TL_TRY(put(of, part));
  }
  return {};
}

Result<std::vector<std::int64_t>> ReferenceUses::take_unused(Referred of, std::int64_t most) {
  std::vector<std::int64_t> taken;
  while (static_cast<std::int64_t>(taken.size()) < most) {
    unused_.bind(static_cast<int>(of));
    TL_ASSIGN(const bool there, unused_.step());
    const std::int64_t part = there ? unused_.integer(0) : 0;
    bytes_ = there ? unused_.blob(1) : std::string_view();
    unused_.reset();
    if (!there) break;
    counts_.clear();
    VarintReader old(bytes_);
    Count count;
    for (;;) {
      TL_ASSIGN(const bool another, get(old, count.place, count.uses));
      if (!another) break;
      if (count.uses == 0)
        taken.push_back(part * kEach + count.place);
      else
        counts_.push_back(count);
    }
    TL_TRY(put(of, part));
  }
  return taken;
}

Result<std::map<std::int64_t, std::int64_t>> ReferenceUses::read(Referred of) {
  std::map<std::int64_t, std::int64_t> uses;
  list_.bind(static_cast<int>(of));
  for (;;) {
    TL_ASSIGN(const bool row, list_.step());
    if (!row) break;
    VarintReader counts(list_.blob(1));
    std::int64_t place = 0, count = 0;
    for (;;) {
      TL_ASSIGN(const bool another, get(counts, place, count));
      if (!another) break;
      uses[list_.integer(0) * kEach + place] = count;
    }
  }
  list_.reset();
  return uses;
}

}  // namespace tierlog::store
