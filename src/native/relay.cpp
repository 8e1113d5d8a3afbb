#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>

#include "mptcp_info.h"

namespace {
constexpr size_t kChunk = 1 << 20;  // the pipe's size is the real limit
constexpr unsigned kFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

bool wouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

void givePipeBack(Flow* flow, PipePool* pipes) {
  if (!flow->pipe.open()) return;
  pipes->release(flow->pipe);
  flow->pipe = {};
}

// Without CAP_NET_ADMIN it stays as it was.
void resizeReceiveBuffer(const Side& source, int size) {
  const int half = size / 2;  // the kernel doubles what it is given
  if (setsockopt(source.fd, SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof half) != 0) return;
  // The bound of the window follows only a size that the kernel chose.
  setsockopt(source.fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &size, sizeof size);
}
}  // namespace

Pumped pump(Flow* flow, Side* source, Side* target, int64_t budget, PipePool* pipes, Counters* counters) {
  while (!flow->done) {
    if (flow->parked > 0) {
      if (!target->writable) return Pumped::Waiting;
      const ssize_t moved = splice(flow->pipe.readEnd, nullptr, target->fd, nullptr, flow->parked, kFlags);
      if (moved < 0) {
        if (!wouldBlock()) return Pumped::TargetFailed;
        if (errno != EINTR) target->writable = false;
        continue;
      }
      flow->parked -= static_cast<uint32_t>(moved);
      flow->bytes += static_cast<uint64_t>(moved);
      counters->bytesParked -= moved;
      budget -= moved;
      continue;
    }
    if (flow->ended) {
      givePipeBack(flow, pipes);
      // ENOTCONN: the target was reset before it got our FIN. Its hang-up would look like a normal end behind one.
      if (shutdown(target->fd, SHUT_WR) != 0) return Pumped::TargetFailed;
      flow->done = true;
      break;
    }
    if (!source->readable) break;
    if (budget <= 0) {
      givePipeBack(flow, pipes);
      return Pumped::More;
    }
    if (!flow->pipe.open()) {
      flow->pipe = pipes->take();
      if (!flow->pipe.open()) return Pumped::Starved;
    }
    // The pipe is empty here, so EAGAIN can only mean that the socket is.
    const ssize_t moved = splice(source->fd, nullptr, flow->pipe.writeEnd, nullptr, kChunk, kFlags);
    if (moved > 0) {
      flow->parked = static_cast<uint32_t>(moved);
      counters->bytesParked += moved;
    } else if (moved == 0) {
      flow->ended = true;
      source->readable = false;
    } else if (!wouldBlock()) {
      return Pumped::SourceFailed;  // the owner drops the flow, and errno stays as it is
    } else if (errno != EINTR) {
      source->readable = false;
    }
  }
  givePipeBack(flow, pipes);
  return Pumped::Waiting;
}

// The kernel would let a receive buffer grow with the time that a full window takes to be read, which is our own back-pressure: megabytes
// gather that help nobody. To make it smaller then is no cure: what the other end sends into room that it was told of is dropped, and sent
// again after longer and longer pauses. So it begins small, and grows while it is empty although much comes through it, or while so much
// comes through that a full one is a matter of milliseconds: on a fast path each byte then costs less.
void boundBacklog(const Side& source) { resizeReceiveBuffer(source, kReceiveBuffer); }

void widenBacklog(Flow* flow, const Side& source) {
  constexpr int kMost = 8 * 1024 * 1024;
  constexpr int kLittle = 64 * 1024;
  const uint64_t moved = flow->bytes - flow->looked;
  flow->looked = flow->bytes;
  if (flow->ended || moved < kReceiveBuffer / 4) return;
  int size = 0;
  socklen_t length = sizeof size;
  if (getsockopt(source.fd, SOL_SOCKET, SO_RCVBUF, &size, &length) != 0 || size >= kMost || moved < static_cast<uint64_t>(size) / 4) return;
  const bool passing = moved > static_cast<uint64_t>(size) * 8;
  int queued = 0;
  if (passing || (ioctl(source.fd, SIOCINQ, &queued) == 0 && queued < kLittle)) resizeReceiveBuffer(source, 2 * size);
}

// With every acknowledgement MPTCP gives a subflow 64 kB more, whatever waits there already (__mptcp_subflow_push_pending), so that all
// the send buffer has room for ends up behind the congestion windows: at 50 Mbit/s half a second of it. There it makes other connections
// wait, and when a WAN is lost what it held is sent again behind all that. Up to this size it can be bound only by the send buffer.
void boundUnsent(Flow* flow, const Side& target) {
  constexpr uint64_t kLeast = 512 * 1024;
  constexpr uint64_t kMost = 8 * 1024 * 1024;
  constexpr uint64_t kLeastSpareUs = 20000;
  constexpr uint64_t kMostSpareUs = 500000;
  constexpr uint64_t kBurst = 64 * 1024;
  int size = 0;
  socklen_t length = sizeof size;
  if (flow->done || getsockopt(target.fd, SOL_SOCKET, SO_SNDBUF, &size, &length) != 0) return;
  if (!flow->sendBound && static_cast<uint64_t>(size) <= kLeast) return;
  uint64_t rate = 0;
  uint64_t longestUs = 0;
  for (const Subflow& subflow : subflowsOf(target.fd)) {
    rate += std::min<uint64_t>(subflow.pacingRate, UINT32_MAX);
    // The round trip without most of what our own bytes wait on the way, as far as that can be told from a path whose delay varies; and
    // the time that a slow path takes for what it is given at once, in which a much faster one beside it must not run dry.
    const uint64_t burstUs = subflow.pacingRate == 0 ? 0 : kBurst * 1000000 / subflow.pacingRate;
    const uint64_t spareUs = std::clamp(burstUs, kLeastSpareUs, kMostSpareUs);
    longestUs = std::max<uint64_t>({longestUs, subflow.leastRttUs + spareUs, uint64_t{subflow.rttUs} * 3 / 5});
  }
  if (rate == 0) return;
  // All that is sent in the longest round trip is unacknowledged, because acknowledgements count in order over all subflows; and a quarter
  // more. The pacing rate is ahead of what comes through, 1.25 to 2.9 times while that still grows. The least is for slow WANs: where one
  // subflow waits for room that the other one's share takes, congestion control takes that for its path's rate, and at 15 Mbit/s half of
  // it was lost.
  const int wanted = static_cast<int>(std::clamp(rate * longestUs / 1000000 * 5 / 4, kLeast, kMost));
  // Until then it is autotuned. MPTCP knows no SO_BUF_LOCK that would let it be so again.
  if (!flow->sendBound && wanted >= size) return;
  if (std::abs(wanted - size) <= size / 8) return;
  const int half = wanted / 2;  // the kernel doubles what it is given
  flow->sendBound = setsockopt(target.fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half) == 0;
}

void discardFlow(Flow* flow, PipePool* pipes, Counters* counters) {
  if (!flow->pipe.open()) return;
  counters->bytesParked -= flow->parked;
  if (flow->parked > 0) {
    pipes->discard(flow->pipe);
  } else {
    pipes->release(flow->pipe);
  }
  flow->pipe = {};
  flow->parked = 0;
}
