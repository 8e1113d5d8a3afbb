// roomOf() on paths that were measured.
#include "core/meter.h"

#include "check.h"

namespace {
Subflow path(uint32_t minRttUs, uint64_t rate, uint64_t unackedBytes) {
  Subflow subflow = {};
  subflow.minRttUs = subflow.rttUs = minRttUs;
  subflow.pacingRate = subflow.deliveryRate = rate;
  subflow.unackedBytes = unackedBytes;
  return subflow;
}
// 20 and 30 Mbit/s.
constexpr uint64_t kDsl = 2500000;
constexpr uint64_t kLte = 3750000;

void asMuchAsTheLongestRoundTripTakes() {
  // 87 ms: the round trip of 70 ms, and the 17 ms that 64 kB take on that path.
  const int64_t empty = roomOf({path(30000, kDsl, 0), path(70000, kLte, 0)}, 0);
  CHECK(empty > 87 * (2500 + 3750) && empty < 88 * (2500 + 3750));
  CHECK(roomOf({path(30000, kDsl, 200000), path(70000, kLte, 300000)}, 0) == empty - 500000);
  CHECK(roomOf({path(30000, kDsl, 200000), path(70000, kLte, 300000)}, 40000) == empty - 540000);
  CHECK(roomOf({path(30000, kDsl, 200000), path(70000, kLte, 300000)}, 50000) == 0);
}

void aDeadPathTakesNothingFromTheOther() {
  CHECK(roomOf({path(30000, kDsl, 100000), path(70000, 1000, 900000)}, 0) > 100000);
  CHECK(roomOf({path(30000, kDsl, 900000), path(70000, kLte, 900000)}, 0) == 0);
}

// The kernel knows no round trip of a subflow that is still joining. Over a dead WAN it tries to join for minutes.
void aJoiningOneChangesNothing() {
  const auto joining = path(UINT32_MAX, 100000, 0);
  CHECK(roomOf({path(30000, kDsl, 0), joining}, 0) == roomOf({path(30000, kDsl, 0)}, 0));
  CHECK(roomOf({joining}, 0) == -1);
}

// Congestion control paces below the path's rate while it drains the queue.
void theHigherRateCounts() {
  Subflow draining = path(50000, kDsl, 0);
  draining.pacingRate = kDsl * 3 / 4;
  CHECK(roomOf({draining}, 0) >= roomOf({path(50000, kDsl, 0)}, 0));
}

// In slow start, about twice the bytes that get through must be on the way. More than that would only wait.
void aGrowingOneIsGivenWhatItGrowsBy() {
  Subflow growing = path(70000, kLte, 0);
  growing.deliveryRate = kLte / 3;
  const int64_t room = roomOf({growing}, 0);
  CHECK(room > int64_t{kLte} / 3 * 70 / 1000 * 2 && room < roomOf({path(70000, kLte, 0)}, 0));
  Subflow quick = path(30000, 3 * kDsl, 0);
  quick.deliveryRate = kDsl;
  CHECK(roomOf({quick, growing}, 0) < roomOf({path(30000, kDsl, 0), path(70000, kLte, 0)}, 0));
}

// A radio link whose round trip has grown must still be filled. (It was once kept at a seventh of its rate.)
void aPathThatBecameLongerIsFilled() {
  Subflow longer = path(70000, kLte, 0);
  longer.rttUs = 200000;
  CHECK(roomOf({path(30000, kDsl, 0), longer}, 0) > 200 * (2500 + 3750));
}

void slowOnes() {
  // At 5 Mbit/s 64 kB take 105 ms. The other path must not run dry meanwhile.
  CHECK(roomOf({path(30000, 625000, 0), path(70000, 1250000, 0)}, 0) > 1250000 / 10 * 13 / 10 + 65536);
  CHECK(roomOf({path(600000, 10000, 0)}, 0) == 65536);
  CHECK(roomOf({path(0, 0, 0)}, 0) == 65536);
}

void unbounded() {
  CHECK(roomOf({}, 0) == -1);
  CHECK(roomOf({path(20, 500000000, 0)}, 0) == -1);
  CHECK(roomOf({path(20, UINT64_MAX, 0)}, 0) == -1);
}
}  // namespace

int main() {
  asMuchAsTheLongestRoundTripTakes();
  aDeadPathTakesNothingFromTheOther();
  aJoiningOneChangesNothing();
  theHigherRateCounts();
  aGrowingOneIsGivenWhatItGrowsBy();
  aPathThatBecameLongerIsFilled();
  slowOnes();
  unbounded();
  return passed();
}
