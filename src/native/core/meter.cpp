#include "core/meter.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

namespace {
constexpr uint64_t kMax = 4 * 1024 * 1024;
// With what a connection has waited, less than ten seconds.
constexpr uint64_t kAfreshMs = 4500;

// To be called when a subflow has joined. The kernel enlarges its send buffer only when a writer was refused (tcp_check_space), and metered
// ones are not: it would keep what its first ten segments need, and while the subflow that it prefers is full, MPTCP's scheduler gives nothing
// to any other (mptcp_subflow_get_send). Subflows have the size of their connection (mptcp_sol_socket_sync_intval). Not from the beginning:
// where 10 and 100 Mbit/s start together without a delay, what the slow one can hold then makes the other wait for seconds.
// Without CAP_NET_ADMIN it stays as it was.
void widenSendBuffer(int fd) {
  const int half = kMax;  // the kernel doubles what it is given
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, half);
}

// When BBR looks for the least round trip (socket.h) a WAN stands still for 200 ms and more, every ten seconds: 3 % of a download. It is kept
// from that by starting afresh before, where that is known: its queue drains then, and round trips near the least have been seen since. Where
// they have not, the path has become longer, and BBR with twice the least round trip on the way would find less and less; or others keep its
// queue full, and only if all of them look at the same time they see the path behind it.
void avoidProbeRtt(int fd, const std::vector<Subflow>& subflows, uint64_t nowMs, Metered* metered) {
  constexpr uint64_t kLeftBytes = 12 * 1024;  // that it leaves in the queue all the same (bbr_quantization_budget)
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
    // A subflow that ends takes its figures along.
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

// With every acknowledgement MPTCP gives a subflow 64 kB more, whatever waits there already (__mptcp_subflow_push_pending), so that all
// the send buffer has room for ends up behind the congestion windows: at 50 Mbit/s half a second of it. There it makes other connections
// wait, and when a WAN is lost what it held is sent again behind all that.
// MPTCP's scheduler puts as many milliseconds on each subflow, those on the wire included (mptcp_subflow_get_send), so each has what it
// sends in the longest round trip and a little more. Their own acknowledgements count: MPTCP's stand still while a byte is missing.
int64_t roomOf(const std::vector<Subflow>& subflows, uint64_t waiting) {
  constexpr uint64_t kMinSpareUs = 15000;
  constexpr uint64_t kQueueSpareUs = 8000;
  constexpr uint64_t kMaxSpareUs = 500000;
  constexpr uint64_t kBurst = 64 * 1024;  // what the scheduler gives a subflow at a time
  // One that is still joining has none (tcp_init_sock), and is given nothing.
  constexpr uint32_t kNoRoundTrip = UINT32_MAX;
  uint64_t longestUs = 0;
  for (const Subflow& subflow : subflows) {
    if (subflow.minRttUs == kNoRoundTrip) continue;
    // While a slow path sends what it is given at once, a much faster one beside it must not run dry.
    const uint64_t burstUs = subflow.pacingRate == 0 ? 0 : kBurst * 1000000 / subflow.pacingRate;
    longestUs = std::max(longestUs, subflow.minRttUs + std::clamp(burstUs, kMinSpareUs, kMaxSpareUs));
    // A path that has become longer would be kept from filling, be found to carry less, and be given less again.
    longestUs = std::max(longestUs, subflow.rttUs + kQueueSpareUs);
  }
  uint64_t all = 0;
  uint64_t room = 0;
  for (const Subflow& subflow : subflows) {
    if (subflow.minRttUs == kNoRoundTrip) continue;
    // MPTCP does not tell congestion control that a subflow had nothing to send, and that takes what came through for the path's rate: what
    // is too little here would stay too little. BBR's pacing rate goes below it to drain a queue and above it to look for more.
    const auto sentIn = [](uint64_t rate, uint64_t us) { return std::min<uint64_t>(rate, UINT32_MAX) * us / 1000000; };
    const uint64_t paced = sentIn(std::max(subflow.pacingRate, subflow.deliveryRate), longestUs);
    // In slow start the pacing rate is thrice the path's, and the quick path would be given all that a slower one could soon carry. Twice
    // what came through in a round trip, and a little, lets each grow all the same.
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
    if (!lowest.empty() && lowest.size() < subflows.size()) widenSendBuffer(target.fd);
    lowest.assign(subflows.size(), UINT32_MAX);
  }
  shareCrowdedPaths(target.fd, subflows, nowMs, flow->metered.get());
  avoidProbeRtt(target.fd, subflows, nowMs, flow->metered.get());
}
