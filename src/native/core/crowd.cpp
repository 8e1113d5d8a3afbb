#include "core/crowd.h"

#include <algorithm>
#include <iterator>

namespace {
constexpr uint64_t kFewest = 8;  // connections
// If all WANs are silent, nearly everything is a retransmission: that is no crowd.
constexpr uint64_t kFewestPackets = 100;
// With CUBIC as many connections lose a tenth of that.
constexpr uint64_t kBeginsAtPercent = 25;
constexpr uint64_t kLastsAtPercent = 2;
// Idle connections do not report, so old reports are dropped after this time.
constexpr uint64_t kWindowsLasting = 3;
}  // namespace

void Crowd::report(uint64_t packets, uint64_t again, uint64_t nowMs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  nowMs = std::max(nowMs, sinceMs_);  // the clocks of the workers differ by a turn
  if (nowMs - sinceMs_ >= kWindowsLasting * kWindowMs) {
    sinceMs_ = nowMs;
    reports_ = packets_ = again_ = 0;
  }
  ++reports_;
  packets_ += packets;
  again_ += again;
  if (nowMs - sinceMs_ < kWindowMs) return;
  const uint64_t percent = isThere(nowMs) ? kLastsAtPercent : kBeginsAtPercent;
  const bool isCrowd = reports_ >= kFewest && packets_ >= kFewestPackets && again_ * 100 > packets_ * percent;
  untilMs_.store(isCrowd ? nowMs + kWindowsLasting * kWindowMs : 0, std::memory_order_relaxed);
  sinceMs_ = nowMs;
  reports_ = packets_ = again_ = 0;
}

std::shared_ptr<Crowd> Crowds::of(const Source& peer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = all_.find(peer);
  if (found != all_.end()) {
    if (std::shared_ptr<Crowd> known = found->second.lock()) return known;
  }
  for (auto one = all_.begin(); one != all_.end();) one = one->second.expired() ? all_.erase(one) : std::next(one);
  auto made = std::make_shared<Crowd>();
  all_[peer] = made;
  return made;
}
