// base/shared_vector.h - a vector whose copies are one until one of them changes.
//
// For large values that are kept in many places (members of a set, rules of a chain): a copy costs a
// reference, and who asks whether two are the same mostly learns it from the reference alone.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace tierlog {

template <typename T>
class SharedVector {
 public:
  using value_type = T;
  using const_iterator = typename std::vector<T>::const_iterator;

  SharedVector() = default;
  SharedVector(std::vector<T> values) : values_(std::make_shared<std::vector<T>>(std::move(values))) {}
  SharedVector(std::initializer_list<T> values) : SharedVector(std::vector<T>(values)) {}

  const std::vector<T>& all() const {
    static const std::vector<T> none;
    return values_ ? *values_ : none;
  }
  operator const std::vector<T>&() const { return all(); }
  const_iterator begin() const { return all().begin(); }
  const_iterator end() const { return all().end(); }
  std::size_t size() const { return all().size(); }
  bool empty() const { return all().empty(); }
  const T& operator[](std::size_t i) const { return all()[i]; }
  const T& at(std::size_t i) const { return all().at(i); }
  const T& front() const { return all().front(); }
  const T& back() const { return all().back(); }

  // The values, to change them: no other copy sees it.
  std::vector<T>& edit() {
    if (!values_)
      values_ = std::make_shared<std::vector<T>>();
    else if (values_.use_count() != 1)
      values_ = std::make_shared<std::vector<T>>(*values_);
    return *values_;
  }
  void push_back(T value) { edit().push_back(std::move(value)); }

  // One and the same, not only equal.
  bool shares(const SharedVector& other) const { return values_ == other.values_; }
  bool operator==(const SharedVector& other) const { return shares(other) || all() == other.all(); }

 private:
  std::shared_ptr<std::vector<T>> values_;
};

}  // namespace tierlog
