// One direction of a relayed connection: bytes go from socket to pipe to socket inside the kernel.
#pragma once

#include <cstdint>

#include "pipe_pool.h"

// A socket as edge-triggered epoll sees it: ready until a call said EAGAIN.
struct Side {
  int fd = -1;
  bool readable = false;
  bool writable = false;
};

struct Flow {
  uint64_t bytes = 0;
  Pipe pipe;
  uint32_t parked = 0;   // bytes in the pipe
  uint64_t looked = 0;   // `bytes` at the last look
  int64_t room = -1;     // bytes that the target may still be given (meter.h); -1: what it takes
  bool metered = false;  // it was bounded once
  bool ended = false;   // the source's FIN was read
  bool done = false;    // and passed on, behind the last byte
};

enum class Pumped {
  Waiting,       // for an edge of either socket
  More,          // the turn's budget is used up: pump again, no edge will come
  Starved,       // no pipe was to be had: pump again when there is one
  SourceFailed,  // errno says why
  TargetFailed,
};

// Moves up to about `budget` bytes.
Pumped pump(Flow* flow, Side* source, Side* target, int64_t budget, PipePool* pipes, Counters* counters);

// Keeps what waits for a target slower than its plain TCP source near what keeps the target busy: the first at the beginning, the second
// every 100 ms or so while bytes flow.
void boundBacklog(const Side& source);
void widenBacklog(Flow* flow, const Side& source);

// Drops what is under way.
void discardFlow(Flow* flow, PipePool* pipes, Counters* counters);
