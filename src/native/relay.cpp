#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

namespace {
constexpr size_t kChunk = 1 << 20;  // the pipe's size is the real limit
constexpr unsigned kFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

bool wouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

void givePipeBack(Flow* flow, PipePool* pipes) {
  if (!flow->pipe.open()) return;
  pipes->release(flow->pipe);
  flow->pipe = {};
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
