// The budget of kernel buffers, without sockets.
#include "core/budget.h"

#include "check.h"

namespace {
constexpr int64_t kMega = 1024 * 1024;
const Source one = {1, 1};
const Source other = {1, 2};

void halfOfWhatIsLeft() {
  BufferBudget budget;
  CHECK(budget.take(one, 1000 * kMega) && budget.offered(one) == INT64_MAX);  // no limit
  budget.setLimit(64 * kMega);
  CHECK(budget.offered(one) == 16 * kMega);
  CHECK(!budget.take(one, 16 * kMega + 1));
  CHECK(budget.take(one, 16 * kMega));
  CHECK(budget.offered(one) == 8 * kMega);
  CHECK(budget.offered(other) == 16 * kMega);
  CHECK(budget.take(other, 16 * kMega) && budget.take(other, 8 * kMega));
  CHECK(budget.offered(one) == 8 * kMega);
  budget.charge(one, -16 * kMega);
  CHECK(budget.offered(one) == 16 * kMega);
}

// Whatever one client does, another one has what it needs.
void oneClientLeavesHalf() {
  BufferBudget budget;
  budget.setLimit(64 * kMega);
  int64_t held = 0;
  for (int64_t share = budget.offered(one); share > 0; share = budget.offered(one)) {
    CHECK(budget.take(one, share));
    held += share;
  }
  CHECK(held <= 32 * kMega && held > 31 * kMega);
  CHECK(budget.offered(other) == 16 * kMega);
  // The same if the client is charged above its half for what its connections need.
  budget.charge(one, 100 * kMega);
  CHECK(budget.offered(one) == 0 && budget.offered(other) == 16 * kMega);
  CHECK(budget.take(other, 16 * kMega));
  budget.charge(one, -100 * kMega - held);
  CHECK(budget.offered(one) == 16 * kMega);
  budget.charge(other, -16 * kMega);
  CHECK(budget.offered(one) == 16 * kMega && budget.offered(other) == 16 * kMega);
}

// A client may hold more than its half if its connections need it, but only up to twice the limit, and the others lose nothing by it.
void neededBeyondTheHalf() {
  BufferBudget budget;
  CHECK(!budget.isOverdrawn(one) && budget.takeNeeded(one, 1000 * kMega));  // no limit
  budget.setLimit(32 * kMega);
  int64_t held = 0;
  for (; budget.takeNeeded(one, 2 * kMega); held += 2 * kMega) CHECK(budget.isOverdrawn(one) == (held >= 16 * kMega));
  CHECK(held == 64 * kMega && budget.offered(one) == 0);
  CHECK(!budget.isOverdrawn(other) && budget.offered(other) == 8 * kMega);
  budget.charge(one, 15 * kMega - held);
  CHECK(!budget.isOverdrawn(one) && budget.takeNeeded(one, 2 * kMega));
}
void tightBeforeOverdrawn() {
  BufferBudget budget;
  CHECK(!budget.isTight(one));  // no limit
  budget.setLimit(32 * kMega);
  budget.charge(one, 8 * kMega);
  CHECK(!budget.isTight(one));
  budget.charge(one, 1);
  CHECK(budget.isTight(one) && !budget.isOverdrawn(one) && !budget.isTight(other));
}

// The sum of all clients is bounded, however many there are, and a client below its half still gets something.
void neededByMany() {
  BufferBudget budget;
  budget.setLimit(32 * kMega);
  int64_t all = 0;
  for (uint64_t client = 1; client <= 100; ++client) {
    const Source greedy = {2, client};
    int64_t held = 0;
    // First like connections that begin, which are charged regardless, then like those that move bytes.
    for (; !budget.isOverdrawn(greedy); held += 2 * kMega) budget.charge(greedy, 2 * kMega);
    for (; budget.takeNeeded(greedy, 2 * kMega); held += 2 * kMega) continue;
    all += held;
    CHECK(client > 4 || held > 0);
  }
  CHECK(all <= 4 * 32 * kMega + 2 * kMega);
  budget.charge({2, 1}, -20 * kMega);
  CHECK(!budget.isOverdrawn(one) && budget.takeNeeded(one, 2 * kMega));
}
}  // namespace

int main() {
  halfOfWhatIsLeft();
  oneClientLeavesHalf();
  neededBeyondTheHalf();
  tightBeforeOverdrawn();
  neededByMany();
  return passed();
}
