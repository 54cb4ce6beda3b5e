// base/flat_map.h - a hash table for the event path: values lie dense, slots are integers, and a batch of
// look-ups can have its memory on the way before it is needed.
#pragma once

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace tierlog {

// Pointers to values hold until the next insert or erase.
template <typename Key, typename Value, typename Hash>
class FlatMap {
 public:
  struct Entry {
    Key key;
    Value value;
  };

  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  std::vector<Entry>& entries() { return entries_; }
  const std::vector<Entry>& entries() const { return entries_; }

  static std::size_t hash(const Key& key) { return Hash()(key); }
  // First the slot, then (when it has come) the entry it leads to.
  void prefetch_slot(std::size_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash & mask()]);
  }
  void prefetch_entry(std::size_t hash) const {
    if (slots_.empty()) return;
    const Slot& slot = slots_[hash & mask()];
    if (slot.entry != kFree) __builtin_prefetch(&entries_[slot.entry]);
  }

  Value* find(const Key& key, std::size_t hash) {
    if (slots_.empty()) return nullptr;
    for (std::size_t i = hash & mask();; i = (i + 1) & mask()) {
      const Slot& slot = slots_[i];
      if (slot.entry == kFree) return nullptr;
      if (slot.tag == tag_of(hash) && entries_[slot.entry].key == key) return &entries_[slot.entry].value;
    }
  }
  Value* find(const Key& key) { return find(key, hash(key)); }

  // What is there, else a new one.
  Value& at(const Key& key) {
    const std::size_t hash_of_key = hash(key);
    Value* const found = find(key, hash_of_key);
    return found != nullptr ? *found : insert(key, hash_of_key, {});
  }
  // The key must not be there.
  Value& insert(const Key& key, std::size_t hash, Value value) {
    if ((entries_.size() + 1) * 2 > slots_.size()) grow();
    place(hash, static_cast<std::uint32_t>(entries_.size()));
    entries_.push_back({key, std::move(value)});
    return entries_.back().value;
  }

  template <typename Predicate>
  void erase_if(const Predicate& unwanted) {
    const std::size_t before = entries_.size();
    std::erase_if(entries_, [&](Entry& entry) { return unwanted(entry.key, entry.value); });
    if (entries_.size() != before) rebuild(slots_.size());
  }
  // Keeps the room that it took.
  void clear() {
    entries_.clear();
    slots_.assign(slots_.size(), {});
  }

 private:
  struct Slot {
    std::uint32_t entry = kFree;
    std::uint32_t tag = 0;
  };
  static constexpr std::uint32_t kFree = std::numeric_limits<std::uint32_t>::max();
  static constexpr std::size_t kFewest = 64;

  std::size_t mask() const { return slots_.size() - 1; }
  static std::uint32_t tag_of(std::size_t hash) { return static_cast<std::uint32_t>(hash >> 32); }
  void place(std::size_t hash, std::uint32_t entry) {
    std::size_t i = hash & mask();
    while (slots_[i].entry != kFree) i = (i + 1) & mask();
    slots_[i] = {entry, tag_of(hash)};
  }
  void grow() { rebuild(slots_.empty() ? kFewest : slots_.size() * 2); }
  void rebuild(std::size_t size) {
    slots_.assign(size, {});
    for (std::uint32_t i = 0; i < entries_.size(); ++i) place(hash(entries_[i].key), i);
  }

  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // a power of two, at most half full
};

}  // namespace tierlog
