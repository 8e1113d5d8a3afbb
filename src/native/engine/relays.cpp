#include "engine/relays.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "core/meter.h"

namespace {
// Bytes of one direction in one turn; then it is the other connections' turn.
constexpr int64_t kBudget = 512 * 1024;
constexpr size_t kFirstBytes = 64 * 1024;
constexpr uint64_t kLookMs = 100;
// The pause adapts so that about kRefillBytes move at a time.
constexpr uint64_t kMinRefillMs = 4;
constexpr uint64_t kMaxRefillMs = 64;
constexpr uint64_t kRefillBytes = 16 * 1024;
// For a connection that does not move.
constexpr uint64_t kStalledMs = 1000;
constexpr uint64_t kStalledAskMs = 256;
constexpr uint64_t kStalledLookMs = 4000;

void note(Side* side, uint32_t events) {
  if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP)) != 0) side->readable = true;
  if ((events & (EPOLLOUT | EPOLLHUP)) != 0) side->writable = true;
  if ((events & EPOLLRDHUP) != 0) side->finSeen = true;
  if ((events & EPOLLPRI) == 0) return;
  side->urgent = true;
  // A plain TCP client of an MPTCP listener does not inherit this option.
  readUrgentInline(side->fd);
}

// EPOLLHUP on a side towards which we have sent no FIN means that it was reset: MPTCP reports a lost connection so, without SO_ERROR. After our
// FIN it proves nothing, but recv(2) and splice(2) tell: they fail with ENOTCONN unless the other end's DATA_FIN has come (mptcp_recvmsg;
// measured on Linux 6.18).
bool wasReset(const Side& side, const Flow& towards, uint32_t events, Failure* failure) {
  if (side.error != 0) {
    *failure = {side.error, "send"};
    return true;
  }
  if ((events & EPOLLERR) != 0) {
    const int error = socketError(side.fd);
    if (error != 0) {
      *failure = {error, "epoll_wait"};
      return true;
    }
  }
  if ((events & EPOLLHUP) == 0 || towards.done) return false;
  *failure = {ENOTCONN, "epoll_wait"};
  return true;
}

// Waits for the meter's room, for which no epoll event comes.
bool lacksRoom(const Connection& connection) {
  const auto lacks = [](const Flow& flow, const Side& source) { return flow.room == 0 && (flow.parked > 0 || source.readable); };
  return lacks(connection.forward, connection.client) || lacks(connection.backward, connection.upstream);
}
}  // namespace

Relays::Relays(WorkerHost* host, Loop* loop)
    : host_(host), loop_(loop), buffers_(&host->budget, &host->idleBudget), pipes_(&host->counters, host->limits.descriptorLimit) {}

Connection* Relays::find(ConnectionId id) {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

Connection* Relays::add(std::unique_ptr<Connection> connection) {
  Connection* const added = connection.get();
  connections_[added->id] = std::move(connection);
  ++host_->counters.connections;
  ++host_->counters.descriptors;
  loop_->noteActivity();
  return added;
}

bool Relays::clientEvent(Connection* connection, uint32_t events) {
  if (connection->phase == Connection::Phase::Closed || connection->client.fd < 0) return false;
  note(&connection->client, events);
  if (connection->phase == Connection::Phase::Refusing) return true;
  Failure failure;
  if (wasReset(connection->client, connection->backward, events, &failure)) {
    closeConnection(connection, Reason::ClientReset, failure);
  } else if (connection->phase == Connection::Phase::Relaying) {
    pumpBoth(connection);
  } else if (connection->phase == Connection::Phase::Draining) {
    lookAtDraining(connection);
  } else {
    return true;
  }
  return false;
}

void Relays::upstreamEvent(Connection* connection, uint32_t events) {
  const bool isDraining = connection->phase == Connection::Phase::Draining;
  if ((connection->phase != Connection::Phase::Relaying && !isDraining) || connection->upstream.fd < 0) return;
  note(&connection->upstream, events);
  Failure failure;
  if (wasReset(connection->upstream, connection->forward, events, &failure)) {
    return closeConnection(connection, Reason::UpstreamReset, failure);
  }
  isDraining ? lookAtDraining(connection) : pumpBoth(connection);
}

void Relays::expired(Connection* connection) {
  if (connection->phase == Connection::Phase::Relaying) {
    if (!connection->held.empty()) return sendHeld(connection, false);
    if (!staysStalled(connection)) pumpBoth(connection);
    return;
  }
  if (connection->phase == Connection::Phase::Draining) return lookAtDraining(connection, true);
  if (connection->phase == Connection::Phase::AwaitingVerdict || connection->phase == Connection::Phase::AwaitingDecision) {
    return closeConnection(connection, Reason::Reset, {ETIMEDOUT, "decision"});
  }
  closeConnection(connection, connection->phase == Connection::Phase::Refusing ? Reason::Refused : Reason::Handshake, {ETIMEDOUT, "recv"});
}

// If the owner's answer gets lost, the client must not wait for ever.
void Relays::awaitOwner(Connection* connection) { loop_->setDeadline(connection, loop_->now() + host_->limits.decisionTimeoutMs); }

void Relays::relay(Connection* connection) {
  connection->phase = Connection::Phase::Relaying;
  connection->activeMs = loop_->now();
  connection->lookMs = loop_->now() + kLookMs;
  connection->refillMs = kMinRefillMs;
  ++host_->counters.relaying;
  // If this process is killed, the kernel closes its sockets. An orderly end would make half a download look complete.
  if (connection->kind == ListenerKind::Socks) resetOnClose(connection->client.fd, true);
  resetOnClose(connection->upstream.fd, true);
  connection->client.readable = connection->client.writable = true;
  connection->upstream.writable = true;  // changing the registration makes a new event for reading
  buffers_.begin(connection);
  if (connection->upstream.protocol == Protocol::Tcp && !connection->backward.isHeld) boundBacklog(connection->upstream);
  pumpBoth(connection);
}

// MPTCP's scheduler gives new bytes to the subflow with the fewest in flight. If the ten bytes of a reply were in flight on the fast one, the
// server's first bytes would leave by the slow one. So both are written at once.
void Relays::sendHeld(Connection* connection, bool withFirstBytes) {
  std::string& held = connection->held;
  if (withFirstBytes) {
    char first[kFirstBytes];
    const ssize_t size = recv(connection->upstream.fd, first, sizeof first, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) connection->upstream.error = errno;
    // If it is the end, the relay finds that again.
    if (size > 0) {
      held.append(first, static_cast<size_t>(size));
      connection->backward.bytes += static_cast<uint64_t>(size);
    }
  }
  loop_->setDeadline(connection, 0);
  const ssize_t sent = send(connection->client.fd, held.data(), held.size(), MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) connection->client.error = errno;
  if (sent > 0) held.erase(0, static_cast<size_t>(sent));
}

void Relays::refillLater(Connection* connection) {
  if (!lacksRoom(*connection)) return;
  if (!connection->held.empty() || connection->deadline != 0) return;
  const uint64_t bytes = connection->forward.bytes + connection->backward.bytes;
  const uint64_t pauseMs = bytes - connection->refillFrom < kRefillBytes ? 2 * connection->refillMs : connection->refillMs / 2;
  connection->refillFrom = bytes;
  connection->refillMs = std::clamp(pauseMs, kMinRefillMs, kMaxRefillMs);
  loop_->setDeadline(connection, loop_->now() + connection->refillMs);
}

// No event tells that a subflow has room again, so a connection without room is looked at again and again; for ever, if the other end has
// stopped reading. After a second, only one question is asked, which costs a tenth of a look: were more bytes acknowledged? All stalled
// connections are asked at the same time. Their events are switched off, because each answer to a window probe makes one; changing the
// registration later reports what was missed. If only a subflow's acknowledgements went on, behind a missing byte, the next full look finds
// that.
void Relays::restWhileStalled(Connection* connection) {
  const bool isStalled = loop_->now() - connection->activeMs >= kStalledMs && lacksRoom(*connection);
  if (isStalled == connection->stalled) return;
  connection->stalled = isStalled;
  watchAgain(connection, *connection->mptcpSide(), isStalled ? kStreamEvents & ~EPOLLOUT : kStreamEvents);
}

bool Relays::staysStalled(Connection* connection) {
  if (!connection->stalled || loop_->now() >= connection->meterMs + kStalledLookMs) return false;
  const int now = unacknowledged(connection->mptcpSide()->fd);
  if (std::exchange(connection->unacknowledged, now) != now) return false;
  loop_->setDeadline(connection, (loop_->now() / kStalledAskMs + 1) * kStalledAskMs);
  return true;
}

bool Relays::watchAgain(Connection* connection, const Side& side, uint32_t events) {
  return loop_->watch(side.fd, tagOf(connection, &side == &connection->upstream ? Tag::Upstream : Tag::Client), events, true);
}

void Relays::pumpBoth(Connection* connection) {
  if (!connection->held.empty()) {
    // Only the first reply is ever held back, until the server's first bytes come.
    const bool waits = connection->deadline != 0;
    if (!waits || connection->upstream.readable) sendHeld(connection, waits);
  }
  if (loop_->now() >= connection->meterMs) {
    connection->meterMs = loop_->now() + kMinRefillMs;
    Side* const side = connection->mptcpSide();
    const bool isUpstream = side == &connection->upstream;
    // All upstreams share this machine's WANs, whoever the client is.
    const Source peer = isUpstream ? Source{} : connection->sharer;
    if (side != nullptr) meter(isUpstream ? &connection->forward : &connection->backward, *side, loop_->now(), &host_->crowds, peer);
  }
  const uint64_t before = connection->forward.bytes + connection->backward.bytes;
  bool more = false;
  const auto one = [&](const Direction& direction, Reason sourceReset, Reason targetReset) {
    Flow* const flow = direction.flow;
    if (flow->done) return true;
    // Read only up to where the flow begins to count as bulk, because the kernel may enlarge its buffer with every read.
    const uint64_t left = flow->bulkAt - std::min(flow->bulkAt, flow->bytes + flow->parked);
    const int64_t budget = left > 0 && left < kBudget ? static_cast<int64_t>(left) : kBudget;
    switch (pump(flow, direction.source, direction.target, budget, &pipes_, &host_->counters)) {
      case Pumped::More:
        more = true;
        [[fallthrough]];
      case Pumped::Waiting:
        if (!flow->done && flow->bytes + flow->parked >= flow->bulkAt && buffers_.countBulk(connection, direction)) more = true;
        return true;
      case Pumped::SourceFailed:
        closeConnection(connection, sourceReset, {errno, "splice"});
        return false;
      case Pumped::TargetFailed:
        closeConnection(connection, targetReset, {errno, "splice"});
        return false;
    }
    return true;
  };
  if (!one(forwardOf(connection), Reason::ClientReset, Reason::UpstreamReset)) return;
  if (connection->held.empty() && !one(backwardOf(connection), Reason::UpstreamReset, Reason::ClientReset)) return;
  const uint64_t moved = connection->forward.bytes + connection->backward.bytes - before;
  if (moved > 0) {
    connection->activeMs = loop_->now();
    loop_->noteActivity();
  }
  restWhileStalled(connection);
  if (connection->forward.done && connection->backward.done) return drain(connection);
  if (loop_->now() >= connection->lookMs) {
    connection->lookMs = loop_->now() + kLookMs;
    for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
      const int size = widerBacklog(direction.flow, *direction.source);
      if (size == 0 || !buffers_.mayHold(connection, direction, size)) continue;
      enlargeReceiveBuffer(*direction.flow, *direction.source, size);
      direction.source->readable = more = true;
    }
  }
  refillLater(connection);
  if (more) pumpLater(connection);
}

void Relays::pumpLater(Connection* connection) {
  if (connection->queued) return;
  connection->queued = true;
  ready_.push_back(connection);
}

void Relays::letRest(Connection* connection) {
  if (buffers_.letRest(connection, loop_->now())) pumpLater(connection);
}

void Relays::pumpQueued() {
  std::vector<Connection*> queue;
  queue.swap(ready_);
  for (Connection* connection : queue) {
    connection->queued = false;
    if (connection->phase == Connection::Phase::Relaying) pumpBoth(connection);
  }
}

// Only the first worker that runs out of pipes tells the owner.
void Relays::noticePipes() {
  if (!pipes_.ranOut()) return;
  constexpr uint64_t kNoticeMs = 3600 * 1000;
  uint64_t due = host_->counters.pipesNoticeMs;
  if (loop_->now() < due || !host_->counters.pipesNoticeMs.compare_exchange_strong(due, loop_->now() + kNoticeMs)) return;
  loop_->tell(Limit{true, LimitCause::Pipes});
}
