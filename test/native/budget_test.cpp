// The budget of kernel buffers, without sockets.
#include "budget.h"

#include "check.h"

namespace {
constexpr int64_t kMega = 1024 * 1024;

Address at(const char* text) {
  Address address;
  CHECK(parseAddress(text, 1, &address));
  return address;
}

void halfOfWhatIsLeft() {
  BufferBudget budget;
  CHECK(budget.charge(at("192.0.2.1"), 0) == INT64_MAX);  // no limit
  budget.setLimit(64 * kMega);
  CHECK(budget.charge(at("192.0.2.1"), 0) == 32 * kMega);
  CHECK(budget.charge(at("192.0.2.1"), 8 * kMega) == 24 * kMega);
  CHECK(budget.charge(at("192.0.2.2"), 0) == 28 * kMega);
  CHECK(budget.charge(at("192.0.2.1"), -8 * kMega) == 32 * kMega);
  // Of IPv6 a network of 64 bits is one client.
  budget.charge(at("2001:db8::1"), 8 * kMega);
  CHECK(budget.charge(at("2001:db8::2"), 0) == 24 * kMega);
}

// Whatever one client does, another one has what it needs.
void oneClientLeavesHalf() {
  BufferBudget budget;
  budget.setLimit(64 * kMega);
  int64_t held = 0;
  for (int i = 0; i < 1000; ++i) {
    const int64_t allowed = budget.charge(at("192.0.2.1"), 0);
    CHECK(allowed >= kLeastAllowance);
    if (allowed == kLeastAllowance) break;
    budget.charge(at("192.0.2.1"), allowed);
    held += allowed;
  }
  CHECK(held > 30 * kMega && held < 33 * kMega);
  CHECK(budget.charge(at("192.0.2.2"), 0) > 14 * kMega);
  budget.charge(at("192.0.2.1"), 100 * kMega);
  CHECK(budget.charge(at("192.0.2.2"), 0) == kLeastAllowance);
}
}  // namespace

int main() {
  halfOfWhatIsLeft();
  oneClientLeavesHalf();
  return passed();
}
