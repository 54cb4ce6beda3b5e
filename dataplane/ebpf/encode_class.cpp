#include "dataplane/ebpf/encode_class.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Action;
using policy::Program;
using Positions = std::vector<std::uint32_t>;  // ascending

// So many rules that agree in ports and sets get words of their own.
constexpr std::size_t kGroupOfItsOwn = 32;
// So many cells of a tier with many ports each are ordered by their sets.
constexpr std::ptrdiff_t kManyWide = 512;
// Rows of ranges that overlap each other may have that many bits in all.
constexpr std::size_t kRowBits = 4'000'000;

// Many ports, or all but some: such cells overlap each other.
bool is_wide(const Cell& cell) {
  const auto& ports = cell.destination_ports.ports;
  return cell.destination_ports.any() || ports.size() > 1 || (!ports.empty() && ports.front().first != ports.front().last);
}

// What makes two cells neighbours: ports, then sets. Where there are many wide ones, a port is met in words all over; so
// those lie together by their sets instead, and behind the others.
struct Likeness {
  bool sets_first = false;  // of wide ones

  bool operator()(const Cell& a, const Cell& b) const {
    const bool by_sets = sets_first && is_wide(a);
    if (by_sets != (sets_first && is_wide(b))) return !by_sets;
    if (!by_sets)
      return std::tie(a.destination_ports, a.source_ports, a.destination, a.source) <
             std::tie(b.destination_ports, b.source_ports, b.destination, b.source);
    // Without a source the destination is what tells them apart; such cells come first.
    return std::tie(a.source, a.destination, a.destination_ports, a.source_ports) <
           std::tie(b.source, b.destination, b.destination_ports, b.source_ports);
  }
};

// The row with these positions, each content once.
class Rows {
 public:
  explicit Rows(Blob& blob) : blob_(blob) {}
  std::uint32_t of(const Positions& positions) {
    if (positions.empty()) return 0;
    const auto [known, is_new] = offsets_.try_emplace(positions, 0);
    if (is_new) known->second = write(positions);
    return known->second;
  }

 private:
  std::uint32_t write(const Positions& positions) {
    std::map<std::uint32_t, std::uint64_t> words;
    for (const std::uint32_t position : positions) words[position / 64] |= std::uint64_t{1} << position % 64;
    const std::uint32_t at = blob_.make_room(TL_ROW_HEAD + words.size() * 8);
    std::array<std::uint64_t, TL_SUMMARIES> summary{};
    std::array<std::uint16_t, TL_SUMMARIES> rank{};
    std::uint32_t next = at + TL_ROW_HEAD;
    for (const auto& [word, bits] : words) {
      summary[word / 64] |= std::uint64_t{1} << word % 64;
      blob_.put(next, bits);
      next += 8;
    }
    std::uint16_t before = 0;
    for (std::size_t i = 0; i < TL_SUMMARIES; ++i) {
      rank[i] = before;
      before = static_cast<std::uint16_t>(before + __builtin_popcountll(summary[i]));
    }
    blob_.put(at, summary);
    blob_.put(at + TL_SUMMARIES * 8, rank);
    return at;
  }

  Blob& blob_;
  std::map<Positions, std::uint32_t> offsets_;
};

class Encoder {
 public:
  Encoder(const Program& program, std::uint32_t index, GroupNumbers& groups, const SlotOf& slot_of, const Limits& limits)
      : program_(program),
        class_(program.classes[index]),
        groups_(groups),
        slot_of_(slot_of),
        limits_(limits),
        rows_(blob_) {}

  Result<EncodedClass> run() {
    head_at_ = blob_.make_room(sizeof(tl_class));
    for (const policy::ClassTier& tier : class_.tiers) TL_TRY(place_tier(tier));
    TL_TRY(write_rules());
    write_rows();
    TL_TRY(write_ports());
    TL_TRY(write_sets());
    put(&tl_class::size, blob_.size());
    if (blob_.size() > TL_SEGMENT_SIZE - TL_FIRST_OFFSET)
      return fail(ErrorCode::InvalidArgument, "a class of " + std::to_string(cells_.size()) +
                                                  " matches needs " + std::to_string(blob_.size()) +
                                                  " bytes; " +
                                                  std::to_string(TL_SEGMENT_SIZE - TL_FIRST_OFFSET) +
                                                  " are the limit (" + policies() + ")");
    return EncodedClass{std::move(blob_), static_cast<std::uint32_t>(order_.size())};
  }

 private:
  static constexpr std::uint32_t kPadding = TL_NONE;

  struct PlacedTier {
    tl_tier words{};
    const policy::EndOfTier* end = nullptr;
  };

  Result<void> place_tier(const policy::ClassTier& tier);
  std::size_t count_matches() const;
  void pad_word() {
    while (order_.size() % 64 != 0) order_.push_back(kPadding);
  }
  void place(std::vector<std::uint32_t> cells);
  void place_by_priority(std::vector<std::uint32_t> cells);
  std::uint32_t words() const { return static_cast<std::uint32_t>(order_.size() / 64); }

  Result<void> write_rules();
  Result<std::uint32_t> append_rule(std::uint32_t at, RuleId id, Action action, std::uint32_t priority);
  void write_rows();
  Result<void> write_ports();
  using PortsOf = const Ports& (*)(const Cell&);
  Result<std::uint32_t> write_table(PortsOf ports_of, bool icmp);
  std::uint32_t write_pages(const std::vector<std::pair<PortRange, std::uint32_t>>& intervals);
  Result<void> write_sets();

  template <typename Wanted>
  Positions where(const Wanted& wanted) const {
    Positions positions;
    for (std::uint32_t i = 0; i < order_.size(); ++i)
      if (order_[i] != kPadding && wanted(cells_[order_[i]])) positions.push_back(i);
    return positions;
  }
  void put(std::uint32_t tl_class::*member, std::uint32_t value) {
    tl_class head = blob_.get<tl_class>(head_at_);
    head.*member = value;
    blob_.put(head_at_, head);
  }
  void put_offset(std::uint32_t tl_class::*member, std::uint32_t offset) {
    if (offset == 0) return;
    const tl_class head{};
    const auto* base = reinterpret_cast<const std::uint8_t*>(&head);
    const auto* place = reinterpret_cast<const std::uint8_t*>(&(head.*member));
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(place - base), offset);
  }
  std::string policies() const {
    std::string names;
    for (const policy::ClassTier& tier : class_.tiers)
      for (const std::uint32_t index : tier.policies)
        if (names.size() < 200) names += (names.empty() ? "" : ", ") + program_.policies[index].display;
    return names;
  }

  const Program& program_;
  const policy::EndpointClass& class_;
  GroupNumbers& groups_;
  const SlotOf& slot_of_;
  const Limits& limits_;
  Blob blob_;
  Rows rows_;
  std::uint32_t head_at_ = 0;
  std::vector<Cell> cells_;
  std::vector<std::uint32_t> order_;  // position -> cell
  std::vector<PlacedTier> tiers_;
};

// Of all tiers: how many too many there are.
std::size_t Encoder::count_matches() const {
  std::size_t count = 0;
  GroupNumbers groups;
  for (const policy::ClassTier& tier : class_.tiers)
    for (const std::uint32_t index : tier.policies)
      if (const policy::ProgramPolicy& policy = program_.policies[index]; !policy.staged)
        for (const std::uint32_t rule : policy.rules(class_.direction))
          for (const policy::Match& match : program_.rules[rule].any_of)
            count += cells_of(program_, match, groups).size();
  return count;
}

Result<void> Encoder::place_tier(const policy::ClassTier& tier) {
  std::vector<std::uint32_t> deciding, logging;
  std::uint32_t priority = 0;
  for (const std::uint32_t index : tier.policies) {
    const policy::ProgramPolicy& policy = program_.policies[index];
    if (policy.staged) continue;
    for (const std::uint32_t rule_index : policy.rules(class_.direction)) {
      const policy::ProgramRule& rule = program_.rules[rule_index];
      for (const policy::Match& match : rule.any_of)
        for (Cell& cell : cells_of(program_, match, groups_)) {
          cell.rule = rule_index;
          cell.priority = priority;
          (rule.action == Action::Log ? logging : deciding)
              .push_back(static_cast<std::uint32_t>(cells_.size()));
          cells_.push_back(std::move(cell));
        }
      ++priority;
      if (cells_.size() > limits_.matches)
        return fail(ErrorCode::InvalidArgument,
                    policy.display + ": with its rules an endpoint has " + std::to_string(count_matches()) +
                        " matches in " + std::string(name(class_.direction)) + limit_text(&Limits::matches, limits_));
    }
  }
  PlacedTier placed;
  placed.words.word = words();
  place(std::move(deciding));
  placed.words.word_end = placed.words.log_word = words();
  place_by_priority(std::move(logging));
  placed.words.log_end = words();
  placed.end = tier.end == policy::kNone ? nullptr : &program_.ends[tier.end];
  tiers_.push_back(placed);
  if (order_.size() > TL_POSITIONS)
    return fail(ErrorCode::InvalidArgument, policies() + ": one class takes " +
                                                std::to_string(order_.size()) + " positions; " +
                                                std::to_string(TL_POSITIONS) + " are the limit");
  return {};
}

void Encoder::place_by_priority(std::vector<std::uint32_t> cells) {
  std::stable_sort(cells.begin(), cells.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return cells_[a].priority < cells_[b].priority; });
  order_.insert(order_.end(), cells.begin(), cells.end());
  pad_word();
}

// Large groups of cells that agree begin with a word; the rest fills words one after the other.
void Encoder::place(std::vector<std::uint32_t> cells) {
  const auto wide = std::count_if(cells.begin(), cells.end(), [&](std::uint32_t cell) { return is_wide(cells_[cell]); });
  const auto alike = [&, like = Likeness{wide >= kManyWide}](std::uint32_t a, std::uint32_t b) {
    return like(cells_[a], cells_[b]);
  };
  std::stable_sort(cells.begin(), cells.end(), alike);
  std::vector<std::uint32_t> rest;
  for (std::size_t from = 0; from < cells.size();) {
    std::size_t to = from + 1;
    while (to < cells.size() && !alike(cells[from], cells[to])) ++to;
    const std::vector<std::uint32_t> group(cells.begin() + static_cast<std::ptrdiff_t>(from),
                                           cells.begin() + static_cast<std::ptrdiff_t>(to));
    if (group.size() >= kGroupOfItsOwn)
      place_by_priority(group);
    else
      rest.insert(rest.end(), group.begin(), group.end());
    from = to;
  }
  for (std::size_t from = 0; from < rest.size(); from += 64) {
    const std::size_t to = std::min(rest.size(), from + 64);
    place_by_priority(
        {rest.begin() + static_cast<std::ptrdiff_t>(from), rest.begin() + static_cast<std::ptrdiff_t>(to)});
  }
}

Result<std::uint32_t> Encoder::append_rule(std::uint32_t at, RuleId id, Action action,
                                           std::uint32_t priority) {
  TL_ASSIGN(const std::uint32_t slot, slot_of_(id));
  blob_.put(at, tl_rule{number(id), slot, static_cast<std::uint32_t>(action), priority});
  return at;
}

Result<void> Encoder::write_rules() {
  const std::size_t positions = order_.size();
  std::uint32_t next = static_cast<std::uint32_t>(positions);
  const std::uint32_t rules = blob_.make_room((positions + tiers_.size() + 1) * sizeof(tl_rule));
  const auto at = [&](std::uint32_t index) {
    return rules + index * static_cast<std::uint32_t>(sizeof(tl_rule));
  };
  std::vector<std::uint32_t> best(words(), TL_NONE);
  for (std::uint32_t i = 0; i < positions; ++i) {
    if (order_[i] == kPadding) continue;
    const Cell& cell = cells_[order_[i]];
    const policy::ProgramRule& rule = program_.rules[cell.rule];
    TL_TRY(append_rule(at(i), rule.id, rule.action, cell.priority));
    best[i / 64] = std::min(best[i / 64], cell.priority);
  }
  for (PlacedTier& tier : tiers_) {
    tier.words.end = TL_NONE;
    if (tier.end == nullptr) continue;
    tier.words.end = next++;
    TL_TRY(append_rule(at(tier.words.end), tier.end->id, tier.end->action, 0));
  }
  if (class_.has_ends())
    TL_TRY(append_rule(at(next), class_.fallback, class_.fallback_action, 0));
  else
    blob_.put(at(next), tl_rule{0, 0, TL_NOBODY, 0});
  put(&tl_class::fallback, next);
  put_offset(&tl_class::rules, rules);
  const std::uint32_t word_best = blob_.make_room(std::max<std::size_t>(best.size(), 1) * 4);
  for (std::uint32_t i = 0; i < best.size(); ++i) blob_.put(word_best + i * 4, best[i]);
  put_offset(&tl_class::word_best, word_best);
  const std::uint32_t tiers = blob_.make_room(std::max<std::size_t>(tiers_.size(), 1) * sizeof(tl_tier));
  for (std::uint32_t i = 0; i < tiers_.size(); ++i)
    blob_.put(tiers + i * static_cast<std::uint32_t>(sizeof(tl_tier)), tiers_[i].words);
  put_offset(&tl_class::tiers, tiers);
  put(&tl_class::tier_count, static_cast<std::uint32_t>(tiers_.size()));
  return {};
}

void Encoder::write_rows() {
  put_offset(&tl_class::any_source, rows_.of(where([](const Cell& cell) { return cell.source == 0; })));
  put_offset(&tl_class::any_destination,
             rows_.of(where([](const Cell& cell) { return cell.destination == 0; })));
  put_offset(&tl_class::any_source_port,
             rows_.of(where([](const Cell& cell) { return cell.source_ports.any(); })));
  put_offset(&tl_class::any_destination_port,
             rows_.of(where([](const Cell& cell) { return cell.destination_ports.any(); })));
  // Most protocols are named by nobody and have the same row.
  const std::uint32_t protocols = blob_.make_room(512 * 4);
  std::vector<Positions> by_protocol(512);
  for (std::uint32_t i = 0; i < order_.size(); ++i) {
    if (order_[i] == kPadding) continue;
    const Protocols& wanted = cells_[order_[i]].protocols;
    for (std::size_t p = wanted._Find_first(); p < 512; p = wanted._Find_next(p)) by_protocol[p].push_back(i);
  }
  for (std::uint32_t i = 0; i < 512; ++i)
    if (const std::uint32_t row = rows_.of(by_protocol[i])) blob_.put_offset(protocols + i * 4, row);
  put_offset(&tl_class::protocols, protocols);
}

const Ports& source_ports_of(const Cell& cell) {
  return cell.source_ports;
}
const Ports& destination_ports_of(const Cell& cell) {
  return cell.destination_ports;
}

Result<void> Encoder::write_ports() {
  const auto others = [](PortsOf ports_of) {
    return [ports_of](const Cell& cell) { return ports_of(cell).other && !ports_of(cell).any(); };
  };
  put_offset(&tl_class::other_destination, rows_.of(where(others(destination_ports_of))));
  put_offset(&tl_class::other_source, rows_.of(where(others(source_ports_of))));
  TL_ASSIGN(const std::uint32_t destination, write_table(destination_ports_of, false));
  put_offset(&tl_class::destination_ports, destination);
  TL_ASSIGN(const std::uint32_t icmp, write_table(destination_ports_of, true));
  put_offset(&tl_class::icmp, icmp);
  TL_ASSIGN(const std::uint32_t source, write_table(source_ports_of, false));
  put_offset(&tl_class::source_ports, source);
  const bool restricted =
      std::any_of(cells_.begin(), cells_.end(), [](const Cell& cell) { return !cell.source_ports.any(); });
  put(&tl_class::uses_source_port, restricted ? 1 : 0);
  return {};
}

// Intervals between the borders of all ranges, each with the row of what holds there.
Result<std::uint32_t> Encoder::write_table(PortsOf ports_of, bool icmp) {
  std::map<std::uint32_t, std::pair<Positions, Positions>> borders;  // begins, ends here
  for (std::uint32_t i = 0; i < order_.size(); ++i) {
    if (order_[i] == kPadding) continue;
    const Ports& ports = ports_of(cells_[order_[i]]);
    if (ports.any()) continue;
    for (const PortRange& range : icmp ? ports.icmp : ports.ports) {
      borders[range.first].first.push_back(i);
      borders[range.last + 1u].second.push_back(i);
    }
  }
  if (borders.empty()) return 0;
  std::vector<std::pair<PortRange, std::uint32_t>> intervals;
  std::set<std::uint32_t> active;
  std::size_t bits = 0;
  for (auto border = borders.begin(); border != borders.end(); ++border) {
    for (const std::uint32_t position : border->second.second) active.erase(position);
    for (const std::uint32_t position : border->second.first) active.insert(position);
    const auto next = std::next(border);
    if (next == borders.end() || active.empty()) continue;
    bits += active.size();
    if (bits > kRowBits)
      return fail(ErrorCode::InvalidArgument,
                  policies() + ": port ranges overlap each other too often: their rows have more than " +
                      std::to_string(kRowBits) + " bits, the limit of one class");
    const PortRange range{static_cast<std::uint16_t>(border->first),
                          static_cast<std::uint16_t>(next->first - 1)};
    intervals.emplace_back(range, rows_.of(Positions(active.begin(), active.end())));
  }
  return write_pages(intervals);
}

std::uint32_t Encoder::write_pages(const std::vector<std::pair<PortRange, std::uint32_t>>& intervals) {
  std::vector<std::uint32_t> rows(65536, 0);
  for (const auto& [range, row] : intervals)
    std::fill(rows.begin() + range.first, rows.begin() + range.last + 1, row);
  const std::uint32_t table = blob_.make_room(256 * 4);
  std::map<std::vector<std::uint32_t>, std::uint32_t> pages;
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::vector<std::uint32_t> content(rows.begin() + i * 256, rows.begin() + (i + 1) * 256);
    if (std::all_of(content.begin(), content.end(), [](std::uint32_t row) { return row == 0; })) continue;
    const auto [known, is_new] = pages.try_emplace(std::move(content), 0);
    if (is_new) {
      known->second = blob_.make_room(256 * 4);
      for (std::uint32_t j = 0; j < 256; ++j)
        if (known->first[j] != 0) blob_.put_offset(known->second + j * 4, known->first[j]);
    }
    blob_.put_offset(table + i * 4, known->second);
  }
  return table;
}

Result<void> Encoder::write_sets() {
  struct Bits {
    Positions parts[4];  // as in tl_set_rows
  };
  std::map<std::uint32_t, Bits> sets;
  for (std::uint32_t i = 0; i < order_.size(); ++i) {
    if (order_[i] == kPadding) continue;
    const Cell& cell = cells_[order_[i]];
    if (cell.source != 0) sets[cell.source].parts[0].push_back(i);
    for (const std::uint32_t set : cell.not_source) sets[set].parts[1].push_back(i);
    if (cell.destination != 0) sets[cell.destination].parts[2].push_back(i);
    for (const std::uint32_t set : cell.not_destination) sets[set].parts[3].push_back(i);
  }
  constexpr auto kEntry = static_cast<std::uint32_t>(sizeof(tl_set_rows));
  std::vector<std::uint32_t> places;  // of the entries, by `sets`
  std::uint32_t size = 8;
  for (bool fits = false; !fits; size *= 2) {
    std::vector<bool> taken(size);
    places.clear();
    fits = sets.size() * 2 <= size;
    for (auto set = sets.begin(); fits && set != sets.end(); ++set) {
      const std::uint32_t hash = (set->first * 2654435761u) >> 7;
      std::uint32_t probe = 0;
      while (probe < TL_SET_PROBES && taken[(hash + probe) % size]) ++probe;
      fits = probe < TL_SET_PROBES;
      if (!fits) break;
      taken[(hash + probe) % size] = true;
      places.push_back((hash + probe) % size);
    }
    if (fits) break;
  }
  const std::uint32_t table = blob_.make_room(size * kEntry);
  std::size_t next = 0;
  for (const auto& [set, bits] : sets) {
    const std::uint32_t at = table + places[next++] * kEntry;
    blob_.put(at, set);
    for (std::uint32_t part = 0; part < 4; ++part)
      if (const std::uint32_t row = rows_.of(bits.parts[part])) blob_.put_offset(at + 4 + part * 4, row);
  }
  put_offset(&tl_class::sets, table);
  put(&tl_class::set_mask, size - 1);
  return {};
}

}  // namespace

Result<EncodedClass> encode_class(const Program& program, std::uint32_t endpoint_class, GroupNumbers& groups,
                                  const SlotOf& slot_of, const Limits& limits) {
  return Encoder(program, endpoint_class, groups, slot_of, limits).run();
}

}  // namespace tierlog::dataplane::ebpf
