#include "choice.hpp"

#include <algorithm>
#include <map>

#include "failure.hpp"

namespace gw {
namespace {

constexpr int64_t kCall = 64;       // tokens that take about as long as what a call costs whatever its size
constexpr int64_t kSearched = 512;  // rows up to which the best cover is found

using Work = std::pair<int64_t, int64_t>;  // tokens whose time it takes, and those of the function's own size

class Cover {
 public:
  Cover(const Compiled &compiled, const std::vector<int64_t> &sizes) : compiled_(compiled), sizes_(sizes) {
    for (size_t number = 0; number < compiled.functions.size(); ++number)
      if (holds(compiled.functions[number])) fitting_.push_back(number);
  }

  bool none() const { return fitting_.empty(); }

  size_t whole() const {
    return *std::min_element(fitting_.begin(), fitting_.end(),
                             [&](size_t a, size_t b) { return work(a, sizes_) < work(b, sizes_); });
  }

  std::vector<std::pair<size_t, int64_t>> rows() const {
    const int64_t all = sizes_[batch()];
    auto share = [&](size_t number) {
      const int64_t taken = std::min(held(number), all);
      return static_cast<double>(work(number, taken).first) / static_cast<double>(taken);
    };
    const size_t cheapest = *std::min_element(fitting_.begin(), fitting_.end(),
                                              [&](size_t a, size_t b) { return share(a) < share(b); });
    const int64_t many = std::max<int64_t>(all > kSearched ? (all - kSearched) / held(cheapest) : 0, 0);
    std::vector<size_t> chosen(static_cast<size_t>(many), cheapest);
    int64_t rest = all - many * held(cheapest);
    const std::vector<size_t> last = best(rest);
    while (rest > 0) {
      chosen.push_back(last[static_cast<size_t>(rest)]);
      rest -= held(chosen.back());
    }
    std::stable_sort(chosen.begin(), chosen.end(), [&](size_t a, size_t b) { return held(a) > held(b); });
    std::vector<std::pair<size_t, int64_t>> found;
    int64_t left = all;
    for (size_t number : chosen) {
      found.emplace_back(number, std::min(held(number), left));
      left -= held(number);
    }
    return found;
  }

 private:
  // For each count of rows, the last function of those that hold them together for the least work.
  std::vector<size_t> best(int64_t rest) const {
    std::vector<Work> least{{0, 0}};
    std::vector<size_t> last{0};
    for (int64_t count = 1; count <= rest; ++count) {
      std::pair<Work, size_t> found{{INT64_MAX, INT64_MAX}, 0};
      for (size_t number : fitting_) {
        const int64_t taken = std::min(held(number), count);
        const Work more = work(number, taken), &before = least[static_cast<size_t>(count - taken)];
        found = std::min(found, {{before.first + more.first, before.second + more.second}, number});
      }
      least.push_back(found.first);
      last.push_back(found.second);
    }
    return last;
  }

  bool holds(const Function &function) const {
    for (size_t symbol = 0; symbol < sizes_.size(); ++symbol) {
      const int number = static_cast<int>(symbol);
      const bool fits = sizes_[symbol] == function.sizes[symbol] || number == compiled_.batch ||
                        (number == compiled_.length && sizes_[symbol] < function.sizes[symbol]);
      if (!fits) return false;
    }
    return number_of_rows(function) > 0;
  }

  int64_t number_of_rows(const Function &function) const {
    return compiled_.batch < 0 ? 1 : function.sizes[batch()];
  }

  Work work(size_t number, const std::vector<int64_t> &sizes) const {
    const Function &function = compiled_.functions[number];
    int64_t own = 1, given = 1;
    for (int symbol : {compiled_.batch, compiled_.length}) {
      if (symbol < 0) continue;
      own *= function.sizes[static_cast<size_t>(symbol)];
      given *= sizes[static_cast<size_t>(symbol)];
    }
    return {(function.mask >= 0 ? given : own) + kCall, own};
  }

  Work work(size_t number, int64_t rows) const {
    std::vector<int64_t> sizes = sizes_;
    sizes[batch()] = rows;
    return work(number, sizes);
  }

  int64_t held(size_t number) const { return compiled_.functions[number].sizes[batch()]; }
  size_t batch() const { return static_cast<size_t>(compiled_.batch); }

  const Compiled &compiled_;
  const std::vector<int64_t> &sizes_;
  std::vector<size_t> fitting_;
};

std::string told(const Manifest &manifest, const std::vector<int64_t> &sizes) {
  std::string text;
  for (size_t symbol = 0; symbol < sizes.size(); ++symbol)
    if (static_cast<int>(symbol) != manifest.compiled->batch && sizes[symbol])
      text += (text.empty() ? "" : " x ") + manifest.symbols[symbol].name + " " + std::to_string(sizes[symbol]);
  return text;
}

}  // namespace

std::vector<std::pair<size_t, int64_t>> pieces(const Manifest &manifest, const std::vector<int64_t> &sizes) {
  const Compiled &compiled = *manifest.compiled;
  const Cover cover(compiled, sizes);
  if (cover.none()) {
    std::string have;
    for (auto &function : compiled.functions) {
      const std::string one = told(manifest, function.sizes);
      if (have.find(one) == std::string::npos) have += (have.empty() ? "" : ", ") + one;
    }
    throw Failure("no compiled size holds a call of " + told(manifest, sizes) +
                  (compiled.length < 0 ? ", and padding would change what it computes" : "") + "; there are: " + have +
                  " (--shapes adds others to a build)");
  }
  if (compiled.batch < 0) return {{cover.whole(), 0}};
  if (sizes[static_cast<size_t>(compiled.batch)] == 0) throw Failure("a call of no rows runs no function");
  return cover.rows();
}

}  // namespace gw
