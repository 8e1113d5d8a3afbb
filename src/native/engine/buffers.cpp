// What the other end was told to have room for may come, and nothing that has come can be taken away again. So what counts is how large a
// receive buffer may become. While the budget has that to offer nothing is done, and the kernel sizes the buffers, which costs the least
// processor time; otherwise a receive buffer begins small, and grows while its connection moves and the budget has something to offer.
#include "engine/buffers.h"

#include <algorithm>
#include <utility>

namespace {
// Less a receive buffer never holds up. Before that a direction counts for nothing: most are over sooner.
constexpr uint64_t kBulk = 64 * 1024;
// What a receive buffer may have whatever the others hold: half of it is window, so an MPTCP one keeps WANs of 100 Mbit/s and 80 ms busy, in
// sum. (1 MB is enough for the lab's 50 Mbit/s, with 256 kB they give 18.) That of plain TCP begins as it always does.
constexpr int beginningOf(Protocol from) { return from == Protocol::Tcp ? kReceiveBuffer : 2 * 1024 * 1024; }
constexpr int kPipe = 256 * 1024;
constexpr int kMinSendBuffer = 2 * 1024 * 1024;
constexpr uint64_t kRestMs = 10 * 1000;

// What may wait in the pipe.
int chunkOf(int receiveBuffer) { return std::min(receiveBuffer / 4, kPipe); }
// And in the target: unsent in plain TCP, whose acknowledgements do not stop with its reader; in MPTCP also what is under way.
int aheadOf(int receiveBuffer, Protocol to) { return to == Protocol::Tcp ? chunkOf(receiveBuffer) : std::max(receiveBuffer, kMinSendBuffer); }
int64_t weightOf(int receiveBuffer, Protocol to) { return int64_t{receiveBuffer} + chunkOf(receiveBuffer) + aheadOf(receiveBuffer, to); }

void writeLessAhead(const Direction& direction, int size) {
  direction.flow->chunk = static_cast<uint32_t>(chunkOf(size));
  const int ahead = aheadOf(size, direction.target->protocol);
  const Protocol to = direction.target->protocol;
  if (to == Protocol::Tcp) boundUnsent(direction.target->fd, ahead);
  // A metered one has little more than what its subflows lack, and needs the size that it has (meter.h).
  if (to == Protocol::Mptcp && direction.flow->metered == nullptr) setOption(direction.target->fd, SOL_SOCKET, SO_SNDBUFFORCE, ahead / 2);
}
}  // namespace

// Where the budget is short the kernel may not even begin: with the first data after the handshake it makes the buffer of an MPTCP connection
// as large as it may become (mptcp_rcvbuf_grow).
void Buffers::beginSmall(Connection* connection) {
  if (!budget_->hasLimit()) return;
  connection->forward.bulkAt = connection->backward.bulkAt = kBulk;
  if (budget_->offered(connection->sharer) >= kernelBuffers()) return;
  for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
    // A WAN that joins later has for good the window that the size allows then (tcp_init_buffer_space).
    const Side& source = *direction.source;
    const int size = source.protocol == Protocol::Mptcp ? beginningOf(source.protocol) : receiveBuffer(source);
    if (size > 0) holdReceiveBuffer(direction.flow, source, size);
    direction.source->readable = true;
  }
}

// One that has moved so much counts from now on. True: its source is to be read again.
bool Buffers::countBulk(Connection* connection, const Direction& direction) {
  Flow* const flow = direction.flow;
  flow->bulkAt = UINT64_MAX;
  if (!flow->isHeld && budget_->take(connection->sharer, kernelBuffers())) {
    flow->charged = kernelBuffers();
    return false;
  }
  const int size = std::max(receiveBuffer(*direction.source), beginningOf(direction.source->protocol));
  const bool isHeld = holdReceiveBuffer(flow, *direction.source, size);
  flow->charged = isHeld ? weightOf(size, direction.target->protocol) : kernelBuffers();
  budget_->charge(connection->sharer, flow->charged);
  if (isHeld) writeLessAhead(direction, size);
  direction.source->readable = true;
  return true;
}

bool Buffers::mayHold(Connection* connection, const Direction& direction, int size) {
  Flow* const flow = direction.flow;
  const int64_t more = weightOf(size, direction.target->protocol) - flow->charged;
  if (more <= 0 || !budget_->hasLimit()) return true;
  if (flow->charged == 0) return !flow->isHeld;  // it does not count yet
  if (!budget_->take(connection->sharer, more)) return false;
  flow->charged += more;
  if (flow->isHeld) writeLessAhead(direction, size);
  return true;
}

void Buffers::stopCounting(Connection* connection, Flow* flow) {
  if (flow->charged == 0) return;
  budget_->charge(connection->sharer, -std::exchange(flow->charged, 0));
  flow->bulkAt = flow->bytes + kBulk;
}

// One that rests and has delivered all, also out of the target's send buffer, holds nothing. It counts again when it moves much.
void Buffers::letRest(Connection* connection, uint64_t nowMs) {
  if (nowMs - connection->activeMs < kRestMs) return;
  for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
    const Flow& flow = *direction.flow;
    if (flow.charged == 0 || flow.parked > 0 || (direction.source->readable && !flow.done)) continue;
    // Of a stream that has ended the FIN may be left.
    if (unacknowledged(direction.target->fd) <= 1) stopCounting(connection, direction.flow);
  }
}
