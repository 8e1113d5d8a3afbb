#include "core/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace {
constexpr int kMaxBuffer = 8 * 1024 * 1024;
constexpr int kUsualMark = 1;
constexpr unsigned kFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

bool wouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

void givePipeBack(Flow* flow, PipePool* pipes) {
  if (!flow->pipe.open()) return;
  pipes->release(flow->pipe);
  flow->pipe = {};
}

// False: nothing more can be read; errno says why.
bool consume(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t taken = recv(fd, data, size, MSG_TRUNC);  // drops the bytes without copying them a second time (tcp(7))
    if (taken > 0) {
      size -= static_cast<size_t>(taken);
    } else if (taken == 0 || errno != EINTR) {
      if (taken == 0) errno = ECONNRESET;
      return false;
    }
  }
  return true;
}

// For a source whose recv(2) returned 0. False: errno says how it ended.
bool endedWell(const Side& source) {
  if (source.error == 0) return true;
  errno = source.error;
  return false;
}

// Moves the buffer's content once, or says why not. It sends what it peeked at, and only then consumes what the target took: so no bytes have to
// be kept, and a waiting flow needs no buffer.
Pumped copy(Flow* flow, Side* source, Side* target, int64_t* budget, PipePool* pipes) {
  if (!target->writable || flow->room == 0) return Pumped::Waiting;
  char* const data = pipes->buffer();
  const size_t max = flow->room < 0 ? PipePool::kBufferBytes : std::min(PipePool::kBufferBytes, static_cast<size_t>(flow->room));
  const ssize_t seen = recv(source->fd, data, max, MSG_PEEK);
  if (seen == 0 && !endedWell(*source)) return Pumped::SourceFailed;
  if (seen == 0) flow->ended = true;
  if (seen < 0 && errno == EINTR) return Pumped::More;
  if (seen < 0 && !wouldBlock()) return Pumped::SourceFailed;
  if (seen <= 0) {
    source->readable = source->urgent = false;
    return Pumped::More;
  }
  const ssize_t sent = send(target->fd, data, static_cast<size_t>(seen), MSG_NOSIGNAL);
  if (sent < 0) {
    if (!wouldBlock()) return Pumped::TargetFailed;
    if (errno != EINTR) target->writable = false;
    return Pumped::More;
  }
  if (!consume(source->fd, data, static_cast<size_t>(sent))) return Pumped::SourceFailed;
  if (flow->room > 0) flow->room -= sent;
  flow->bytes += static_cast<uint64_t>(sent);
  *budget -= sent;
  return Pumped::More;
}

// Without CAP_NET_ADMIN a held buffer gets at most net.core.rmem_max, so that it cannot grow. Any other buffer stays as it was.
bool setReceiveBuffer(const Side& source, int size, bool isHeld) {
  const int half = size / 2;  // the kernel doubles what it is given
  if (setOption(source.fd, SOL_SOCKET, SO_RCVBUFFORCE, half)) return true;
  return isHeld && setOption(source.fd, SOL_SOCKET, SO_RCVBUF, half);
}

// For plain TCP.
void resizeReceiveBuffer(const Side& source, int size, bool isHeld) {
  if (!setReceiveBuffer(source, size, isHeld)) return;
  // The kernel adapts its bound of the window only to sizes that it chose itself.
  setsockopt(source.fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &size, sizeof size);
}

// SO_RCVBUF would end the growth of an MPTCP connection's buffer. A low-water mark only enlarges it, also on existing subflows
// (mptcp_set_rcvlowat): to twice the mark, or to four times if packets are small for the memory they take. Before Linux 6.9 it does nothing.
void doubleReceiveBuffer(const Side& source, int size) {
  for (const int mark : {size / 2, size}) {
    if (!setOption(source.fd, SOL_SOCKET, SO_RCVLOWAT, mark)) return;
    if (receiveBuffer(source) > size) break;
  }
  setsockopt(source.fd, SOL_SOCKET, SO_RCVLOWAT, &kUsualMark, sizeof kUsualMark);
}
}  // namespace

int receiveBuffer(const Side& source) {
  int size = 0;
  socklen_t length = sizeof size;
  return getsockopt(source.fd, SOL_SOCKET, SO_RCVBUF, &size, &length) == 0 ? size : -1;
}

Pumped pump(Flow* flow, Side* source, Side* target, int64_t budget, PipePool* pipes, Counters* counters) {
  while (!flow->done) {
    if (flow->parked > 0) {
      if (!target->writable || flow->room == 0) return Pumped::Waiting;
      const size_t max = flow->room < 0 ? flow->parked : std::min<size_t>(flow->parked, static_cast<size_t>(flow->room));
      const ssize_t moved = splice(flow->pipe.readEnd, nullptr, target->fd, nullptr, max, kFlags);
      if (moved < 0) {
        if (!wouldBlock()) return Pumped::TargetFailed;
        if (errno != EINTR) target->writable = false;
        continue;
      }
      flow->parked -= static_cast<uint32_t>(moved);
      if (flow->room > 0) flow->room -= moved;
      flow->bytes += static_cast<uint64_t>(moved);
      counters->bytesParked -= moved;
      budget -= moved;
      continue;
    }
    if (flow->ended) {
      givePipeBack(flow, pipes);
      // ENOTCONN: the target was reset before it got our FIN. After a FIN its EPOLLHUP would look like a normal end.
      if (shutdown(target->fd, SHUT_WR) != 0) return Pumped::TargetFailed;
      flow->done = true;
      break;
    }
    if (!source->readable) break;
    if (budget <= 0) {
      givePipeBack(flow, pipes);
      return Pumped::More;
    }
    if (!source->urgent && !flow->pipe.open()) flow->pipe = pipes->take();
    if (source->urgent || !flow->pipe.open()) {
      const Pumped copied = copy(flow, source, target, &budget, pipes);
      if (copied == Pumped::More) continue;
      if (copied == Pumped::Waiting) break;
      return copied;
    }
    // The pipe is empty here, so EAGAIN can only mean that the socket has no bytes.
    const ssize_t moved = splice(source->fd, nullptr, flow->pipe.writeEnd, nullptr, flow->chunk, kFlags);
    if (moved > 0) {
      flow->parked = static_cast<uint32_t>(moved);
      counters->bytesParked += moved;
    } else if (moved == 0 && !source->finSeen) {
      // splice(2) never gets past urgent data: it waits for ever, or returns 0 if a FIN follows. recv(2) gets past. If this were the end, an
      // event would have told of the FIN, so there must be urgent data.
      source->urgent = true;
    } else if (moved == 0) {
      if (!endedWell(*source)) return Pumped::SourceFailed;
      flow->ended = true;
      source->readable = false;
    } else if (!wouldBlock()) {
      return Pumped::SourceFailed;  // errno stays as it is; the caller drops the flow
    } else if (errno != EINTR) {
      source->readable = false;
    }
  }
  givePipeBack(flow, pipes);
  return Pumped::Waiting;
}

// The kernel sizes a TCP receive buffer by the time that a full window takes to be read. Here a slow target makes that long, so megabytes would
// gather that help nobody. Shrinking the buffer later does not help: the other end sends what it was granted, the kernel drops it, and it is
// sent again after longer and longer pauses. So the buffer begins small. It grows if much comes through while it is nearly empty, or if so much
// comes through that a full buffer lasts only milliseconds: then each byte costs less over fast WANs.
void boundBacklog(const Side& source) { resizeReceiveBuffer(source, kReceiveBuffer, false); }

// For an MPTCP connection the kernel waits an eighth of its estimated round trip before it grows the buffer (mptcp_rcv_space_adjust), and after
// idle time that estimate can be far too high: for the first twenty seconds of an upload, HAGs received only 64 kB in each round trip.
int widerBacklog(Flow* flow, const Side& source) {
  constexpr int kLittle = 64 * 1024;
  constexpr uint64_t kMinBytes = 32 * 1024;  // a quarter of what a buffer begins with
  const uint64_t moved = flow->bytes - flow->looked;
  flow->looked = flow->bytes;
  const uint64_t waited = std::exchange(flow->waited, 0);
  if (flow->ended || flow->bytes < kMinBytes || source.protocol == Protocol::Unknown) return 0;
  int queued = 0;
  if (ioctl(source.fd, SIOCINQ, &queued) != 0) return 0;
  flow->waited = static_cast<uint64_t>(queued);
  const int size = moved < kMinBytes ? -1 : receiveBuffer(source);
  if (size < 0 || size >= kMaxBuffer) return 0;
  const uint64_t quarter = static_cast<uint64_t>(size) / 4;
  // A buffer below what fast WANs need grows also while bytes wait: the target may be slow because we write little ahead.
  if (flow->isHeld && size < neededBuffer(source.protocol)) return moved >= std::max<uint64_t>(quarter, kLittle) ? 2 * size : 0;
  // Bytes that had waited for a slow target say nothing about the source's rate.
  const uint64_t came = moved - std::min(moved, waited);
  if (came < std::max(quarter, kMinBytes)) return 0;
  const bool passing = came > quarter * 32;
  return passing || queued < kLittle ? 2 * size : 0;
}

void enlargeReceiveBuffer(const Flow& flow, const Side& source, int size) {
  if (source.protocol == Protocol::Tcp) {
    resizeReceiveBuffer(source, size, flow.isHeld);
  } else if (flow.isHeld) {
    setReceiveBuffer(source, size, true);
  } else {
    doubleReceiveBuffer(source, size / 2);
  }
}

// The bound of an MPTCP subflow's window (window_clamp) follows a low-water mark, but not a size that we set; and after we set a size, no mark
// either. So first set the mark, as high as the buffer may ever become. Before Linux 6.9 the mark does nothing, and the kernel keeps sizing the
// buffer.
bool holdReceiveBuffer(Flow* flow, const Side& source, int size) {
  if (source.protocol == Protocol::Unknown) return false;
  if (source.protocol == Protocol::Mptcp && !flow->isHeld) {
    const int before = receiveBuffer(source);
    const bool isSet = setOption(source.fd, SOL_SOCKET, SO_RCVLOWAT, kMaxBuffer / 2);
    setsockopt(source.fd, SOL_SOCKET, SO_RCVLOWAT, &kUsualMark, sizeof kUsualMark);
    if (!isSet || (before < kMaxBuffer && receiveBuffer(source) <= before)) return false;
  }
  if (source.protocol == Protocol::Tcp) resizeReceiveBuffer(source, size, true);
  return flow->isHeld = source.protocol == Protocol::Tcp || setReceiveBuffer(source, size, true);
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
