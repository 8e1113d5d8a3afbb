#include "core/meter.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

namespace {
constexpr uint64_t kMax = 4 * 1024 * 1024;
// Together with the time that a connection may have waited before, less than BBR's ten seconds.
constexpr uint64_t kAfreshMs = 4500;

// To be called when a subflow has joined. The kernel enlarges a subflow's send buffer only after a write found it full (tcp_check_space), and
// metered writes do not: it would stay as small as the first ten segments need. And while the subflow that MPTCP's scheduler prefers is full, it
// gives nothing to the others (mptcp_subflow_get_send). Subflows get the size of their connection's buffer (mptcp_sol_socket_sync_intval). Not
// from the beginning: if 10 and 100 Mbit/s start together without a delay, the bytes that the slow one can hold then make the other wait for
// seconds. Without CAP_NET_ADMIN it stays as it was.
void widenSendBuffer(int fd) {
  const int half = kMax;  // the kernel doubles what it is given
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, half);
}

// Every ten seconds BBR probes for its smallest round trip (socket.h), and a WAN stands still for 200 ms or more: 3 % of a download. We avoid
// that by setting BBR anew before, which drains its queue as well. But only if round trips near the smallest were seen since the last time, so
// that it is still right. Otherwise the path has become longer, and BBR, which keeps twice the old round trip in flight, would find a lower and
// lower rate; or others keep the queue full, and only if all probe at the same time do they see the path behind it.
void avoidProbeRtt(int fd, const std::vector<Subflow>& subflows, uint64_t nowMs, Metered* metered) {
  constexpr uint64_t kLeftBytes = 12 * 1024;  // BBR leaves so much in the queue (bbr_quantization_budget)
  std::vector<uint32_t>& lowest = metered->lowestRttUs;
  for (size_t index = 0; index < subflows.size(); ++index) lowest[index] = std::min(lowest[index], subflows[index].rttUs);
  if (nowMs < metered->afreshMs) return;
  metered->afreshMs = nowMs + kAfreshMs;
  bool isKnown = true;
  for (size_t index = 0; index < subflows.size(); ++index) {
    const Subflow& subflow = subflows[index];
    const uint64_t nearUs = uint64_t{subflow.minRttUs} * 8 / 5 + (subflow.deliveryRate == 0 ? 0 : kLeftBytes * 1000000 / subflow.deliveryRate);
    if (lowest[index] > nearUs) isKnown = false;
  }
  lowest.assign(subflows.size(), UINT32_MAX);
  if (isKnown) resetBbrFilter(fd);
}

void shareCrowdedPaths(int fd, const std::vector<Subflow>& subflows, uint64_t nowMs, Metered* metered) {
  if (nowMs >= metered->reportMs) {
    metered->reportMs = nowMs + Crowd::kWindowMs;
    uint64_t sent = 0;
    uint64_t again = 0;
    for (const Subflow& subflow : subflows) {
      sent += subflow.packetsSent;
      again += subflow.packetsSentAgain;
    }
    // A subflow that ended has taken its counts along, so the sums may have become smaller.
    if (sent >= metered->sent && again >= metered->sentAgain) metered->crowd->report(sent - metered->sent, again - metered->sentAgain, nowMs);
    metered->sent = sent;
    metered->sentAgain = again;
  }
  const bool isCrowd = metered->crowd->isThere(nowMs);
  if (isCrowd == metered->yields) return;
  metered->yields = isCrowd;
  yieldToLoss(fd, isCrowd);
}
}  // namespace

// With every acknowledgement MPTCP gives a subflow 64 kB more, however much waits there already (__mptcp_subflow_push_pending). So all that fits
// into the send buffer ends up behind the congestion windows: half a second at 50 Mbit/s. There other connections have to wait for it, and if a
// WAN is lost, its bytes are sent again behind all that. MPTCP's scheduler fills each subflow for the same time, bytes in flight included
// (mptcp_subflow_get_send). So each gets what it sends within the longest round trip, and a little more. Computed from the subflows' own
// acknowledgements, because MPTCP's stand still while a byte is missing.
int64_t roomOf(const std::vector<Subflow>& subflows, uint64_t waiting) {
  constexpr uint64_t kMinSpareUs = 15000;
  constexpr uint64_t kQueueSpareUs = 8000;
  constexpr uint64_t kMaxSpareUs = 500000;
  constexpr uint64_t kBurst = 64 * 1024;  // the scheduler gives a subflow so much at a time
  // A joining subflow has no round trip yet (tcp_init_sock), and is given nothing.
  constexpr uint32_t kNoRoundTrip = UINT32_MAX;
  uint64_t longestUs = 0;
  for (const Subflow& subflow : subflows) {
    if (subflow.minRttUs == kNoRoundTrip) continue;
    // While a slow path sends its burst, a much faster path beside it must not run dry.
    const uint64_t burstUs = subflow.pacingRate == 0 ? 0 : kBurst * 1000000 / subflow.pacingRate;
    longestUs = std::max(longestUs, subflow.minRttUs + std::clamp(burstUs, kMinSpareUs, kMaxSpareUs));
    // If the path has become longer, too few bytes would fill it, it would seem to carry less, and be given still less.
    longestUs = std::max(longestUs, subflow.rttUs + kQueueSpareUs);
  }
  uint64_t all = 0;
  uint64_t room = 0;
  for (const Subflow& subflow : subflows) {
    if (subflow.minRttUs == kNoRoundTrip) continue;
    // MPTCP does not tell congestion control when a subflow has nothing to send. So it takes what got through for the path's rate, and too
    // little here would stay too little. BBR's pacing rate falls below the path's rate to drain a queue, and rises above it to look for more.
    const auto sentIn = [](uint64_t rate, uint64_t us) { return std::min<uint64_t>(rate, UINT32_MAX) * us / 1000000; };
    const uint64_t paced = sentIn(std::max(subflow.pacingRate, subflow.deliveryRate), longestUs);
    // In slow start the pacing rate is three times the path's, and the faster path would be given all that a slower one could soon carry. Two
    // and a half times what gets through in a round trip lets each grow all the same.
    const uint64_t grown = sentIn(subflow.deliveryRate, std::max(longestUs * 5 / 4, subflow.minRttUs * uint64_t{5} / 2));
    const uint64_t max = std::max(std::min(paced, grown), kBurst);
    all += max;
    room += max - std::min(max, subflow.unackedBytes);
  }
  if (all == 0 || all >= kMax) return -1;
  return static_cast<int64_t>(room - std::min(room, waiting));
}

void meter(Flow* flow, const Side& target, uint64_t nowMs, Crowds* crowds, const Source& peer) {
  constexpr uint64_t kFreely = 256 * 1024;
  flow->room = -1;
  int waiting = 0;
  if (flow->done || flow->bytes < kFreely || ioctl(target.fd, SIOCOUTQNSD, &waiting) != 0) return;
  const std::vector<Subflow> subflows = subflowsOf(target.fd);
  flow->room = roomOf(subflows, static_cast<uint64_t>(waiting));
  if (flow->room < 0) return;
  if (flow->metered == nullptr) {
    flow->metered = std::make_unique<Metered>(Metered{crowds->of(peer), nowMs + kAfreshMs, nowMs + Crowd::kWindowMs});
  }
  std::vector<uint32_t>& lowest = flow->metered->lowestRttUs;
  if (lowest.size() != subflows.size()) {
    // The send buffer of a held flow belongs to what the budget was charged (buffers.cpp).
    if (!lowest.empty() && lowest.size() < subflows.size() && !flow->isHeld) widenSendBuffer(target.fd);
    lowest.assign(subflows.size(), UINT32_MAX);
  }
  shareCrowdedPaths(target.fd, subflows, nowMs, flow->metered.get());
  avoidProbeRtt(target.fd, subflows, nowMs, flow->metered.get());
}
