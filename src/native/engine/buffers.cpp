// The other end may send as much as we have advertised, and received bytes cannot be dropped again. So what counts is how large a receive buffer
// may become. While the budget offers that much, the kernel sizes the buffers, which costs the least processor time. Otherwise a receive buffer
// begins small, and grows while its connection moves and the budget offers something.
#include "engine/buffers.h"

#include <algorithm>
#include <utility>

namespace {
// A receive buffer never holds up fewer bytes than that. Until then a direction does not count; most end before.
constexpr uint64_t kBulk = 64 * 1024;
// Every receive buffer may have this, however many its client has. For MPTCP a gateway lets the kernel begin with it.
constexpr int minBufferOf(Protocol from) { return from == Protocol::Tcp ? 128 * 1024 : 512 * 1024; }
constexpr int kPipe = 256 * 1024;
constexpr int kUsualSendBuffer = 2 * 1024 * 1024;
// If the reader stops at once, less than that moves until the buffers between us and the reader are full.
constexpr uint64_t kProven = 2 * 1024 * 1024;
constexpr uint64_t kRestMs = 10 * 1000;

// What may wait in the pipe.
int chunkOf(int receiveBuffer) { return std::min(receiveBuffer / 4, kPipe); }
// What may wait in the target: unsent bytes in plain TCP, whose acknowledgements do not stop with its reader; in MPTCP also bytes in flight.
int aheadOf(int receiveBuffer, Protocol to) {
  if (to == Protocol::Tcp) return chunkOf(receiveBuffer);
  return receiveBuffer < neededBuffer(Protocol::Tcp) ? 2 * receiveBuffer : std::max(receiveBuffer, kUsualSendBuffer);
}
// A buffer of the least size is not charged, because every connection may have it.
int64_t weightOf(int receiveBuffer, const Direction& direction) {
  if (receiveBuffer <= minBufferOf(direction.source->protocol)) return 0;
  return int64_t{receiveBuffer} + chunkOf(receiveBuffer) + aheadOf(receiveBuffer, direction.target->protocol);
}

void writeLessAhead(const Direction& direction, int size) {
  direction.flow->chunk = static_cast<uint32_t>(chunkOf(size));
  const int ahead = aheadOf(size, direction.target->protocol);
  const Protocol to = direction.target->protocol;
  if (to == Protocol::Tcp) boundUnsent(direction.target->fd, ahead);
  // Its subflows get the same size, also those that join later.
  if (to == Protocol::Mptcp) setOption(direction.target->fd, SOL_SOCKET, SO_SNDBUFFORCE, ahead / 2);
}
}  // namespace

// With the first data after the handshake, the kernel makes an MPTCP connection's buffer as large as it may become (mptcp_rcvbuf_grow). So charge
// that now. If the budget is short, set the size before the first bytes. Connections that have moved nothing yet leave half of the client's share
// to those that move.
void Buffers::begin(Connection* connection) {
  if (!budget_->hasLimit()) return;
  connection->forward.bulkAt = connection->backward.bulkAt = kBulk;
  const bool isTight = budget_->isTight(connection->sharer);
  const Side* const side = connection->mptcpSide();
  if (side == nullptr) {
    if (budget_->offered(connection->sharer) >= kernelBuffers()) return;
  } else if (!isTight && budget_->take(connection->sharer, kernelBuffers())) {
    (side == &connection->client ? connection->forward : connection->backward).charged = kernelBuffers();
    return;
  }
  for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
    // A WAN that joins later keeps the window that the size allows when it joins (tcp_init_buffer_space).
    const Protocol from = direction.source->protocol;
    const int now = receiveBuffer(*direction.source);
    const int wanted = isTight ? minBufferOf(from) : neededBuffer(from);
    const int size = from == Protocol::Mptcp ? std::max(now, wanted) : std::min(now, minBufferOf(from));
    // Charge it now. If many connections begin together, the later ones must find it tight.
    if (now > 0 && holdReceiveBuffer(direction.flow, *direction.source, size)) charge(connection, direction.flow, weightOf(size, direction));
    direction.source->readable = true;
  }
}

// A direction that has moved so much counts from now on. True: read its source again.
bool Buffers::countBulk(Connection* connection, const Direction& direction) {
  Flow* const flow = direction.flow;
  flow->bulkAt = UINT64_MAX;
  idleBudget_->charge(connection->sharer, -std::exchange(flow->chargedIdle, 0));
  if (!flow->isHeld && (flow->charged > 0 || budget_->take(connection->sharer, kernelBuffers()))) {
    flow->charged = kernelBuffers();
    return false;
  }
  const Protocol from = direction.source->protocol;
  const int now = receiveBuffer(*direction.source);
  // Never shrink it. An MPTCP connection with less room than it advertised can hang: its out-of-order data fills the buffer, and the kernel then
  // drops the missing bytes again and again (seen on 6.18).
  const int size = std::max(now, budget_->isOverdrawn(connection->sharer) ? minBufferOf(from) : neededBuffer(from));
  const bool isHeld = holdReceiveBuffer(flow, *direction.source, size);
  charge(connection, flow, isHeld ? weightOf(size, direction) : kernelBuffers());
  if (isHeld) writeLessAhead(direction, size);
  direction.source->readable = true;
  return true;
}

void Buffers::charge(Connection* connection, Flow* flow, int64_t bytes) {
  budget_->charge(connection->sharer, bytes - std::exchange(flow->charged, bytes));
}

bool Buffers::mayHold(Connection* connection, const Direction& direction, int size) {
  Flow* const flow = direction.flow;
  if (!budget_->hasLimit()) return true;
  if (flow->bulkAt != UINT64_MAX) return !flow->isHeld;  // the direction does not count yet
  const int64_t more = weightOf(size, direction) - flow->charged;
  if (more <= 0) return true;
  const bool isNeeded = size <= neededBuffer(direction.source->protocol) && flow->bytes >= kProven;
  if (!(isNeeded ? budget_->takeNeeded(connection->sharer, more) : budget_->take(connection->sharer, more))) return false;
  flow->charged += more;
  if (flow->isHeld) writeLessAhead(direction, size);
  return true;
}

void Buffers::forget(Connection* connection, Flow* flow) {
  charge(connection, flow, 0);
  idleBudget_->charge(connection->sharer, -std::exchange(flow->chargedIdle, 0));
}

// An idle direction that has delivered everything, also from the target's send buffer, holds nothing. It counts again when it moves much. But its
// source may send at any time what its receive buffer takes, and if all do so at once, it is too late to say no. So from now on the buffer keeps
// its size, and buffers of idle directions have a budget of their own, so that they take nothing from those that move. True: read the
// sources again.
bool Buffers::letRest(Connection* connection, uint64_t nowMs) {
  if (nowMs - connection->activeMs < kRestMs) return false;
  bool isHeld = false;
  for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
    Flow* const flow = direction.flow;
    if (flow->charged == 0 || flow->parked > 0 || (direction.source->readable && !flow->done)) continue;
    // If the stream has ended, the FIN may be left, which counts as one byte.
    if (unacknowledged(direction.target->fd) > 1) continue;
    const int size = flow->ended ? 0 : receiveBuffer(*direction.source);
    if (!flow->isHeld && size > 0 && holdReceiveBuffer(flow, *direction.source, size)) isHeld = direction.source->readable = true;
    const int64_t idle = flow->isHeld && size > minBufferOf(direction.source->protocol) ? size : 0;
    if (idle > 0 && !idleBudget_->take(connection->sharer, idle)) continue;
    charge(connection, flow, 0);
    flow->chargedIdle = idle;
    flow->bulkAt = flow->bytes + kBulk;
  }
  return isHeld;
}
