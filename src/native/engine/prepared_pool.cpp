#include "engine/prepared_pool.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>

#include "core/mptcp_info.h"

namespace {
// A HAG sends nothing after the greeting, so anything to read means that it has ended the connection.
bool wasEnded(int fd) {
  char byte;
  return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EINTR);
}

// Only the few connections that are kept for single clients are idle for so long.
constexpr int kAskS = 30;
// Adds what the kernel's coarse timer and a round trip take.
constexpr uint32_t kSilentMs = kAskS * 1000 + 5000;

// MPTCP reports neither a plain RST nor a lost WAN.
bool isStranded(int fd) { return hasNoSubflow(fd, kSilentMs); }

bool leads(const Prepared& one, const DialSpec& spec) {
  const DialSpec& made = one.spec;
  return sameSocket(made.remote, spec.remote) && made.mptcp == spec.mptcp && made.withPassword == spec.withPassword &&
         made.username == spec.username && made.password == spec.password && made.bound == spec.bound &&
         (!spec.bound || sameHost(made.source, spec.source) || goesOver(one.fd, spec.source));
}
}  // namespace

PreparedPool::~PreparedPool() { clear(); }

void PreparedPool::close(int fd) {
  // One packet (MP_FASTCLOSE); an orderly end takes four on every subflow.
  abortFd(fd);
  --counters_->descriptors;
}

template <typename IsMeant>
void PreparedPool::closeIf(IsMeant isMeant) {
  const auto from = std::remove_if(all_.begin(), all_.end(), [&](Prepared& one) {
    if (!isMeant(one)) return false;
    close(one.fd);
    return true;
  });
  all_.erase(from, all_.end());
}

void PreparedPool::put(Prepared one) {
  const std::lock_guard<std::mutex> lock(mutex_);
  all_.push_back(std::move(one));
}

bool PreparedPool::take(const DialSpec& spec, uint64_t nowMs, Prepared* taken) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bool found = false;
  const auto end = std::remove_if(all_.begin(), all_.end(), [&](Prepared& one) {
    if (found || nowMs < one.sinceMs + kJoiningMs || !leads(one, spec)) return false;
    found = !wasEnded(one.fd) && !isStranded(one.fd);
    if (!found) {
      close(one.fd);
    } else {
      *taken = std::move(one);
    }
    return true;
  });
  all_.erase(end, all_.end());
  return found;
}

PreparedPool::Kept PreparedPool::keep(const std::vector<DialSpec>& specs, uint64_t max, uint64_t maxAgeMs, uint64_t nowMs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Kept kept;
  kept.counts.resize(specs.size());
  std::reverse(all_.begin(), all_.end());  // the youngest first
  closeIf([&](Prepared& one) {
    const uint64_t ageMs = nowMs - std::min(nowMs, one.sinceMs);
    const auto found = std::find_if(specs.begin(), specs.end(), [&one](const DialSpec& spec) { return leads(one, spec); });
    if (found == specs.end() || ageMs >= maxAgeMs) return true;
    // A connection that fell back to plain TCP is only for the first path; for others, MPTCP may work again later.
    if (one.protocol == Protocol::Tcp && found != specs.begin()) return true;
    if (wasEnded(one.fd)) {
      const uint64_t endedMs = std::max<uint64_t>(ageMs, 1);
      kept.endedMs = kept.endedMs == 0 ? endedMs : std::min(kept.endedMs, endedMs);
      return true;
    }
    if (isStranded(one.fd)) return true;
    uint64_t& count = kept.counts[static_cast<size_t>(found - specs.begin())];
    if (count == max) return true;
    ++count;
    // Set late, because most connections are used before and are spared the calls.
    if (!one.isAsked) askWhenIdle(one.fd, kAskS);
    one.isAsked = true;
    return false;
  });
  std::reverse(all_.begin(), all_.end());
  return kept;
}

uint64_t PreparedPool::drop(const Address& remote, uint64_t madeUntilMs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  closeIf([&](const Prepared& one) { return sameSocket(one.spec.remote, remote) && one.sinceMs <= madeUntilMs; });
  const auto left = std::find_if(all_.begin(), all_.end(), [&](const Prepared& one) { return sameSocket(one.spec.remote, remote); });
  return left == all_.end() ? 0 : left->sinceMs;
}

void PreparedPool::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closeIf([](const Prepared&) { return true; });
}
