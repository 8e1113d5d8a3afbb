// One direction of a relayed connection: inside the kernel, bytes go from socket to pipe to socket.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/pipe_pool.h"
#include "core/socket.h"

// A socket under edge-triggered epoll: it counts as ready until a call fails with EAGAIN.
struct Side {
  int fd = -1;
  bool readable = false;
  bool writable = false;
  bool urgent = false;   // urgent data may be unread
  bool finSeen = false;  // an event told of the FIN
  // The error of send(2) or recv(2). The kernel reports it once; the next recv(2) returns 0, as at a normal end.
  int error = 0;
  Protocol protocol = Protocol::Unknown;  // set when the socket is accepted or connected
};

class Crowd;

// For a flow into an MPTCP socket whose bytes are metered (meter.h).
struct Metered {
  std::shared_ptr<Crowd> crowd;       // of all that share its paths
  uint64_t afreshMs;                  // earliest time for the next resetBbrFilter()
  uint64_t reportMs;                  // time of the next report to Crowd (crowd.h)
  std::vector<uint32_t> lowestRttUs;  // of each subflow since then, or since a subflow came or went
  uint64_t sent = 0;                  // packets at the last report
  uint64_t sentAgain = 0;
  bool yields = false;  // CUBIC instead of BBR
};

constexpr uint32_t kMaxChunk = 1 << 20;  // the pipe's size is the real limit

struct Flow {
  uint64_t bytes = 0;
  Pipe pipe;
  uint32_t parked = 0;           // bytes in the pipe
  uint64_t looked = 0;           // `bytes` at the last look
  uint64_t waited = 0;           // bytes in the source's receive queue at that time
  uint64_t bulkAt = UINT64_MAX;  // when `bytes` reaches this, the flow counts as bulk (buffers.cpp)
  int64_t charged = 0;           // bytes charged to the budget
  int64_t chargedIdle = 0;       // bytes charged to the budget of idle directions
  uint32_t chunk = kMaxChunk;    // bytes that are read at a time
  bool isHeld = false;           // we size the source's receive buffer, the kernel no longer does
  int64_t room = -1;             // bytes that the target may still be given (meter.h); -1: no bound
  std::unique_ptr<Metered> metered;
  bool ended = false;  // the source's FIN was read
  bool done = false;   // the FIN was passed on, after the last byte
};

enum class Pumped {
  Waiting,       // for an event of either socket
  More,          // the turn's budget is used up: pump again, because no event will come
  SourceFailed,  // errno says why
  TargetFailed,
};

// Moves about `budget` bytes at most, through a pipe; through a buffer if there is no pipe, or if urgent data stops splice(2).
Pumped pump(Flow* flow, Side* source, Side* target, int64_t budget, PipePool* pipes, Counters* counters);

// If the target is slower than the source, bytes wait in the source's receive buffer: these two keep it near the size that keeps the target
// busy. `boundBacklog` is for the beginning of a plain TCP connection. `widerBacklog` is called every 100 ms or so while bytes flow, and returns
// a better size, or 0.
void boundBacklog(const Side& source);
int widerBacklog(Flow* flow, const Side& source);
// After these two, read the source again: bytes that came while the low-water mark was high may have caused no event.
void enlargeReceiveBuffer(const Flow& flow, const Side& source, int size);
// From now on the buffer has the size that we give it. False if the kernel cannot do that.
bool holdReceiveBuffer(Flow* flow, const Side& source, int size);
int receiveBuffer(const Side& source);  // -1: unknown
// The size that fast WANs need. Half of it is window, so an MPTCP one keeps WANs of 100 Mbit/s and 80 ms busy, in sum. (1 MB is enough for
// the lab's 50 Mbit/s, with 256 kB they give 18.) That of plain TCP begins with it.
constexpr int neededBuffer(Protocol from) { return from == Protocol::Tcp ? kReceiveBuffer : 2 * 1024 * 1024; }

// Drops the bytes in the pipe.
void discardFlow(Flow* flow, PipePool* pipes, Counters* counters);
