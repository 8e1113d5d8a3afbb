#include "core/budget.h"

#include <algorithm>

namespace {
// What all clients together may need. Each may hold as much as it leaves to the others, so one alone holds half of it.
constexpr int64_t kMaxOverLimit = 4;
}  // namespace

int64_t BufferBudget::offered(const Source& client) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return offeredNow(client);
}

// Each client is offered half of what is left, as queues in a switch with shared memory are (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
// Transactions on Networking 6(2), 1998): the greediest are held up first, and something is left for the next one.
int64_t BufferBudget::offeredNow(const Source& client) const {
  if (!hasLimit()) return INT64_MAX;
  return std::max<int64_t>(0, std::min(limit_ - all_, limit_ / 2 - heldBy(client)) / 2);
}

int64_t BufferBudget::heldBy(const Source& client) const {
  const auto found = clients_.find(client);
  return found == clients_.end() ? 0 : found->second;
}

bool BufferBudget::isTight(const Source& client) const { return hasLimit() && offered(client) < limit_ / 8; }

bool BufferBudget::isOverdrawn(const Source& client) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t held = heldBy(client);
  return hasLimit() && (held > limit_ / 2 || held > kMaxOverLimit * limit_ - total_);
}

bool BufferBudget::take(const Source& client, int64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > offeredNow(client)) return false;
  add(client, bytes);
  return true;
}

bool BufferBudget::takeNeeded(const Source& client, int64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > offeredNow(client) && heldBy(client) + bytes > kMaxOverLimit * limit_ - (total_ + bytes)) return false;
  add(client, bytes);
  return true;
}

void BufferBudget::charge(const Source& client, int64_t bytes) {
  if (bytes == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  add(client, bytes);
}

void BufferBudget::add(const Source& client, int64_t bytes) {
  if (!hasLimit()) return;
  int64_t& held = clients_[client];
  const int64_t before = std::min(held, limit_ / 2);
  held += bytes;
  all_ += std::min(held, limit_ / 2) - before;
  total_ += bytes;
  if (held == 0) clients_.erase(client);
}
