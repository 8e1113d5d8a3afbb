#include "budget.h"

#include <algorithm>

// Each may hold half of what is free, as a queue of a switch with shared memory (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions
// on Networking 6(2), 1998): many connections that do not move share the budget evenly, the greedy ones are held up first, and some of it is
// always left for who comes next. That nobody knows who the others are makes it cheap. What the client itself holds counts twice, so that
// one with many connections leaves half of the budget to the others.
int64_t BufferBudget::charge(const Address& client, int64_t bytes) {
  if (!hasLimit()) return INT64_MAX;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto entry = clients_.try_emplace(sourceOf(client), 0).first;
  all_ += bytes;
  entry->second += bytes;
  const int64_t left = limit_ - all_ - entry->second;
  if (entry->second == 0) clients_.erase(entry);
  return std::max(left / 2, kLeastAllowance);
}
