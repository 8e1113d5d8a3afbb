// One direction of a relayed connection: bytes go from socket to pipe to socket inside the kernel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/pipe_pool.h"
#include "core/socket.h"

// A socket as edge-triggered epoll sees it: ready until a call said EAGAIN.
struct Side {
  int fd = -1;
  bool readable = false;
  bool writable = false;
  bool urgent = false;   // urgent data may be unread
  bool finSeen = false;  // an event told of the FIN
  // What send(2) or recv(2) said of it. The kernel says an error once: the next call reads an end where none was.
  int error = 0;
  Protocol protocol = Protocol::Unknown;  // set when it is accepted, or opened
};

// Of a flow that was given a bound once (meter.h).
struct Metered {
  uint64_t afreshMs;                  // when congestion control may start afresh
  uint64_t reportMs;                  // when it is told next what was lost (crowd.h)
  std::vector<uint32_t> lowestRttUs;  // of each subflow since it last could, or since one came or went
  uint64_t sent = 0;                  // packets, as told last
  uint64_t sentAgain = 0;
  bool yields = false;  // CUBIC instead of BBR
};

constexpr uint32_t kMostChunk = 1 << 20;  // the pipe's size is the real limit

struct Flow {
  uint64_t bytes = 0;
  Pipe pipe;
  uint32_t parked = 0;           // bytes in the pipe
  uint64_t looked = 0;           // `bytes` at the last look
  uint64_t waited = 0;           // and what the source held then
  uint64_t bulkAt = UINT64_MAX;  // of `bytes`: then it counts (buffers.cpp)
  int64_t charged = 0;           // to the budget
  uint32_t chunk = kMostChunk;   // bytes that are read at a time
  bool isHeld = false;           // the kernel does not size its source's receive buffer any more
  int64_t room = -1;             // bytes that the target may still be given (meter.h); -1: what it takes
  std::unique_ptr<Metered> metered;
  bool ended = false;  // the source's FIN was read
  bool done = false;   // and passed on, behind the last byte
};

enum class Pumped {
  Waiting,       // for an edge of either socket
  More,          // the turn's budget is used up: pump again, no edge will come
  SourceFailed,  // errno says why
  TargetFailed,
};

// Moves up to about `budget` bytes: through a pipe, or through a buffer where no pipe is to be had and where splice(2) does not get past.
Pumped pump(Flow* flow, Side* source, Side* target, int64_t budget, PipePool* pipes, Counters* counters);

// Keep what waits for a target slower than its source near what keeps the target busy: the first at the beginning, of plain TCP, the second
// every 100 ms or so while bytes flow. It returns the size of the receive buffer that would be better, or 0.
void boundBacklog(const Side& source);
int widerBacklog(Flow* flow, const Side& source);
// After these two the source is to be read again: what came while the low-water mark was high may have made no edge.
void enlargeReceiveBuffer(const Flow& flow, const Side& source, int size);
// From now on it has the size that it is given. False where the kernel does not do that.
bool holdReceiveBuffer(Flow* flow, const Side& source, int size);
int receiveBuffer(const Side& source);  // -1: unknown

// Drops what is under way.
void discardFlow(Flow* flow, PipePool* pipes, Counters* counters);
