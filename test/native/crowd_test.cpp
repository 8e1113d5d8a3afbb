// When there is a crowd, with a clock that the test moves.
#include "core/crowd.h"

#include <thread>
#include <vector>

#include "check.h"

namespace {
constexpr uint64_t kWindow = Crowd::kWindowMs;

// The reports of `count` busy connections, one a window each until `untilMs`, with `percent` of their packets retransmitted.
uint64_t report(Crowd* crowd, uint64_t fromMs, uint64_t untilMs, unsigned count, uint64_t percent) {
  uint64_t now = fromMs;
  for (; now < untilMs; now += kWindow) {
    for (unsigned one = 0; one < count; ++one) crowd->report(100, percent, now + one);
  }
  return now;
}

void manyThatLoseMuch() {
  Crowd crowd;
  CHECK(!crowd.isThere(1));
  uint64_t now = report(&crowd, 1, 3 * kWindow, 20, 30);
  CHECK(crowd.isThere(now));
  // With CUBIC they lose less. That is no reason to go back to BBR, with which they lose much.
  now = report(&crowd, now, now + 20 * kWindow, 20, 8);
  CHECK(crowd.isThere(now));
  now = report(&crowd, now, now + 3 * kWindow, 20, 1);
  CHECK(!crowd.isThere(now));
  now = report(&crowd, now, now + 3 * kWindow, 20, 20);
  CHECK(!crowd.isThere(now));
}

void fewOnABadPathAreNone() {
  Crowd crowd;
  const uint64_t now = report(&crowd, 1, 10 * kWindow, 5, 60);
  CHECK(!crowd.isThere(now));
}

void whereAllIsSilentThereIsNone() {
  Crowd crowd;
  for (uint64_t now = 1; now < 10 * kWindow; now += kWindow) {
    for (unsigned one = 0; one < 20; ++one) crowd.report(3, 3, now);
  }
  CHECK(!crowd.isThere(10 * kWindow));
}

void itEndsWithTheLast() {
  Crowd crowd;
  uint64_t now = report(&crowd, 1, 3 * kWindow, 20, 40);
  CHECK(crowd.isThere(now));
  now += 4 * kWindow;
  CHECK(!crowd.isThere(now));
  // Reports from before the pause do not count.
  crowd.report(100, 40, now);
  CHECK(!crowd.isThere(now));
  now = report(&crowd, now, now + 3 * kWindow, 5, 40);
  CHECK(!crowd.isThere(now));
}

void eachHasItsOwn() {
  Crowds crowds;
  const std::shared_ptr<Crowd> bad = crowds.of({1, 1});
  const uint64_t now = report(bad.get(), 1, 3 * kWindow, 20, 40);
  CHECK(crowds.of({1, 1})->isThere(now));
  CHECK(!crowds.of({1, 2})->isThere(now));
}

void itLastsAsLongAsSomebodyHasIt() {
  Crowds crowds;
  std::shared_ptr<Crowd> first = crowds.of({1, 1});
  const std::shared_ptr<Crowd> second = crowds.of({1, 1});
  const std::weak_ptr<Crowd> kept = first;
  CHECK(first == second);
  first.reset();
  CHECK(crowds.of({1, 1}) == second && !kept.expired());
  const uint64_t now = report(second.get(), 1, 3 * kWindow, 20, 40);
  CHECK(second->isThere(now));
}

void workersAskAtOnce() {
  Crowds crowds;
  const auto work = [&crowds] {
    for (uint64_t client = 0; client < 300; ++client) {
      const std::shared_ptr<Crowd> own = crowds.of({1, client / 2});
      report(own.get(), 1, 2 * kWindow, 5, 40);
    }
  };
  const std::shared_ptr<Crowd> kept = crowds.of({1, 0});
  std::vector<std::thread> workers(4);
  for (std::thread& worker : workers) worker = std::thread(work);
  for (std::thread& worker : workers) worker.join();
  CHECK(crowds.of({1, 0}) == kept);
}
}  // namespace

int main() {
  manyThatLoseMuch();
  fewOnABadPathAreNone();
  whereAllIsSilentThereIsNone();
  itEndsWithTheLast();
  eachHasItsOwn();
  itLastsAsLongAsSomebodyHasIt();
  workersAskAtOnce();
  return passed();
}
