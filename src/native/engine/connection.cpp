// A connection's events, its relay and its end, and what follows for all of them when a WAN or a HAG is lost. Part of Worker.
#include "engine/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/meter.h"
#include "engine/worker.h"

namespace {
// Bytes of one direction in one turn: then the other connections get theirs.
constexpr int64_t kBudget = 512 * 1024;
constexpr size_t kFirstBytes = 64 * 1024;
constexpr uint64_t kLookMs = 100;
constexpr uint64_t kUnheardMs = 1000;
// So often that about so much moves at a time.
constexpr uint64_t kLeastRefillMs = 4;
constexpr uint64_t kMostRefillMs = 64;
constexpr uint64_t kRefillBytes = 16 * 1024;
// Of one that does not move.
constexpr uint64_t kStalledMs = 1000;
constexpr uint64_t kStalledAskMs = 256;
constexpr uint64_t kStalledLookMs = 4000;

void note(Side* side, uint32_t events) {
  if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP)) != 0) side->readable = true;
  if ((events & (EPOLLOUT | EPOLLHUP)) != 0) side->writable = true;
  if ((events & EPOLLRDHUP) != 0) side->finSeen = true;
  if ((events & EPOLLPRI) == 0) return;
  side->urgent = true;
  // A plain TCP client of an MPTCP listener does not have it from there.
  readUrgentInline(side->fd);
}

// A side that is hung up although we have not ended our direction towards it was reset. MPTCP reports a lost connection as a hang-up
// without SO_ERROR. Behind our own end that is no proof, but recv(2) and splice(2) tell it from the end: they say ENOTCONN unless the other
// end's DATA_FIN has come (mptcp_recvmsg; measured on 6.18).
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

// It needs a subflow and has none. Behind the other end's FIN all that it said is here, perhaps still on its way to a slow client: only once
// that has it, and has not ended its own direction, it is of use to tell it that nobody hears it any more.
bool isStranded(const Connection& connection) {
  const int fd = connection.upstream.fd;
  if (!hasNoSubflow(fd)) return false;
  if (!hasHeardEnd(fd)) return true;
  int undelivered = 0;
  return connection.backward.done && ioctl(connection.client.fd, SIOCOUTQ, &undelivered) == 0 && undelivered == 0;
}

// No edge of a socket comes for it.
bool lacksRoom(const Connection& connection) {
  const auto lacks = [](const Flow& flow, const Side& source) { return flow.room == 0 && (flow.parked > 0 || source.readable); };
  return lacks(connection.forward, connection.client) || lacks(connection.backward, connection.upstream);
}
}  // namespace

void Connection::expired(Worker& worker) { worker.expired(this); }

Side* Connection::mptcpSide() {
  if (client.protocol != Protocol::Tcp) return &client;
  return upstream.protocol != Protocol::Tcp ? &upstream : nullptr;
}

void Worker::expired(Connection* connection) {
  if (connection->fastPathId != 0 && connection->phase == Connection::Phase::Opening) {
    // One that may have sent its request goes on alone.
    if (!connection->committed) handBack(connection, true);
    return;
  }
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

Connection* Worker::find(ConnectionId id) {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

void Worker::clientEvent(Connection* connection, uint32_t events) {
  if (connection->phase == Connection::Phase::Closed || connection->client.fd < 0) return;
  note(&connection->client, events);
  if (connection->phase == Connection::Phase::Refusing) return drainRefused(connection);
  Failure failure;
  if (wasReset(connection->client, connection->backward, events, &failure)) {
    return closeConnection(connection, Reason::ClientReset, failure);
  }
  if (connection->phase == Connection::Phase::Relaying) {
    pumpBoth(connection);
  } else if (connection->phase == Connection::Phase::Draining) {
    lookAtDraining(connection);
  } else if (connection->committed) {
    sendEarly(connection);
  } else if (connection->kind == ListenerKind::Socks) {
    serve(connection);
  }
}

void Worker::upstreamEvent(Connection* connection, uint32_t events) {
  const bool isDraining = connection->phase == Connection::Phase::Draining;
  if ((connection->phase != Connection::Phase::Relaying && !isDraining) || connection->upstream.fd < 0) return;
  note(&connection->upstream, events);
  Failure failure;
  if (wasReset(connection->upstream, connection->forward, events, &failure)) {
    return closeConnection(connection, Reason::UpstreamReset, failure);
  }
  isDraining ? lookAtDraining(connection) : pumpBoth(connection);
}

void Worker::relay(Connection* connection) {
  connection->phase = Connection::Phase::Relaying;
  connection->activeMs = now_;
  connection->lookMs = now_ + kLookMs;
  connection->refillMs = kLeastRefillMs;
  ++host_->counters.relaying;
  // When this process is killed, the kernel closes its sockets; an orderly end would let half a download look like a whole one.
  if (connection->kind == ListenerKind::Socks) resetOnClose(connection->client.fd, true);
  resetOnClose(connection->upstream.fd, true);
  connection->client.readable = connection->client.writable = true;
  connection->upstream.writable = true;  // the edge for reading comes with the changed registration
  beginSmall(connection);
  if (connection->upstream.protocol == Protocol::Tcp && !connection->backward.isHeld) boundBacklog(connection->upstream);
  pumpBoth(connection);
}

// MPTCP's scheduler gives what is written next to the subflow with the least under way: with ten bytes of a reply on the quick one the
// server's first words would leave by the slow one. So both are written at once.
void Worker::sendHeld(Connection* connection, bool withFirstBytes) {
  std::string& held = connection->held;
  if (withFirstBytes) {
    char first[kFirstBytes];
    const ssize_t size = recv(connection->upstream.fd, first, sizeof first, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) connection->upstream.error = errno;
    // At its end the relay finds the same again.
    if (size > 0) {
      held.append(first, static_cast<size_t>(size));
      connection->backward.bytes += static_cast<uint64_t>(size);
    }
  }
  setDeadline(connection, 0);
  const ssize_t sent = send(connection->client.fd, held.data(), held.size(), MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) connection->client.error = errno;
  if (sent > 0) held.erase(0, static_cast<size_t>(sent));
}

void Worker::refillLater(Connection* connection) {
  if (!lacksRoom(*connection)) return;
  if (!connection->held.empty() || connection->deadline != 0) return;
  const uint64_t bytes = connection->forward.bytes + connection->backward.bytes;
  const uint64_t pauseMs = bytes - connection->refillFrom < kRefillBytes ? 2 * connection->refillMs : connection->refillMs / 2;
  connection->refillFrom = bytes;
  connection->refillMs = std::clamp(pauseMs, kLeastRefillMs, kMostRefillMs);
  setDeadline(connection, now_ + connection->refillMs);
}

// No edge tells that a subflow has room again, so one without room is looked at again and again; if the other end has stopped reading, for ever.
// After a second it is asked one question only, which costs a tenth of a look: have its acknowledgements gone on? All stalled ones are asked at
// the same time, and edges wake them no more: each answer to a probe of the other end's window makes one. A changed registration tells what
// was missed. If only a subflow's acknowledgements went on, behind a byte that is missing, the next whole look finds it.
void Worker::restWhileStalled(Connection* connection) {
  const bool isStalled = now_ - connection->activeMs >= kStalledMs && lacksRoom(*connection);
  if (isStalled == connection->stalled) return;
  connection->stalled = isStalled;
  watchAgain(connection, *connection->mptcpSide(), isStalled ? kStreamEvents & ~EPOLLOUT : kStreamEvents);
}

bool Worker::staysStalled(Connection* connection) {
  if (!connection->stalled || now_ >= connection->meterMs + kStalledLookMs) return false;
  const int now = unacknowledged(connection->mptcpSide()->fd);
  if (std::exchange(connection->unacknowledged, now) != now) return false;
  setDeadline(connection, (now_ / kStalledAskMs + 1) * kStalledAskMs);
  return true;
}

void Worker::pumpBoth(Connection* connection) {
  if (!connection->held.empty()) {
    // Nothing but a first reply is ever held longer than until it can be written.
    const bool waits = connection->deadline != 0;
    if (!waits || connection->upstream.readable) sendHeld(connection, waits);
  }
  if (now_ >= connection->meterMs) {
    connection->meterMs = now_ + kLeastRefillMs;
    Side* const side = connection->mptcpSide();
    if (side != nullptr) meter(side == &connection->upstream ? &connection->forward : &connection->backward, *side, now_, &host_->crowd);
  }
  const uint64_t before = connection->forward.bytes + connection->backward.bytes;
  bool more = false;
  const auto one = [&](const Direction& direction, Reason sourceReset, Reason targetReset) {
    Flow* const flow = direction.flow;
    if (flow->done) return true;
    // No further than to where it begins to count: the kernel may enlarge its buffer with every read.
    const uint64_t left = flow->bulkAt - std::min(flow->bulkAt, flow->bytes + flow->parked);
    const int64_t budget = left > 0 && left < kBudget ? static_cast<int64_t>(left) : kBudget;
    switch (pump(flow, direction.source, direction.target, budget, &pipes_, &host_->counters)) {
      case Pumped::More:
        more = true;
        [[fallthrough]];
      case Pumped::Waiting:
        if (!flow->done && flow->bytes + flow->parked >= flow->bulkAt && countBulk(connection, direction)) more = true;
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
  if (moved > 0) connection->activeMs = now_;
  restWhileStalled(connection);
  if (connection->forward.done && connection->backward.done) return drain(connection);
  if (now_ >= connection->lookMs) {
    connection->lookMs = now_ + kLookMs;
    for (const Direction& direction : {forwardOf(connection), backwardOf(connection)}) {
      const int size = widerBacklog(direction.flow, *direction.source);
      if (size == 0 || !mayHold(connection, direction, size)) continue;
      enlargeReceiveBuffer(*direction.flow, *direction.source, size);
      direction.source->readable = more = true;
    }
  }
  refillLater(connection);
  if (connection->queued || !more) return;
  connection->queued = true;
  ready_.push_back(connection);
}

// A reset leaves what came before it in the receive queue, where a direct peer could still read it (a server that answers "too large" and
// closes with the rest unread). As much of it as the target takes at once goes on, and no end behind it: the reset comes next.
void Worker::passOnLastWords(Flow* flow, Side* source, Side* target) {
  if (flow->done || flow->ended) return;
  // MPTCP counts the end of a closed socket as one byte (mptcp_inq_hint), and reading that would pass on a FIN: look for a real byte first.
  char byte;
  int queued = 0;
  source->readable = recv(source->fd, &byte, 1, MSG_PEEK) == 1 && ioctl(source->fd, SIOCINQ, &queued) == 0;
  source->urgent = true;  // also where no event has told of it yet
  flow->room = -1;
  pump(flow, source, target, queued, &pipes_, &host_->counters);
}

void Worker::closeConnection(Connection* connection, Reason reason, Failure failure) {
  if (connection->phase == Connection::Phase::Closed) return;
  const bool isDrained = connection->phase == Connection::Phase::Draining;
  const bool wasOpened = isDrained || connection->phase == Connection::Phase::Relaying;
  if (connection->phase == Connection::Phase::Relaying) {
    --host_->counters.relaying;
    if (!connection->held.empty()) sendHeld(connection, false);
    if (reason == Reason::ClientReset) passOnLastWords(&connection->forward, &connection->client, &connection->upstream);
    if (reason == Reason::UpstreamReset) passOnLastWords(&connection->backward, &connection->upstream, &connection->client);
  }
  for (Flow* const flow : {&connection->forward, &connection->backward}) {
    discardFlow(flow, &pipes_, &host_->counters);
    stopCounting(connection, flow);
  }
  releaseAll(connection);
  const bool orderly = reason == Reason::End || reason == Reason::Refused || reason == Reason::Handshake;
  for (const int fd : {connection->client.fd, connection->upstream.fd}) {
    if (fd < 0) continue;
    if (reason == Reason::End && !isDrained) resetOnClose(fd, false);
    end(fd, orderly ? closeFd : abortFd);
  }
  setDeadline(connection, 0);
  leaveLobby(connection);
  if (connection->sharing) host_->shares.giveBack(connection->sharer);
  connection->phase = Connection::Phase::Closed;
  --host_->counters.connections;
  const auto found = connections_.find(connection->id);
  closed_.push_back(std::move(found->second));
  connections_.erase(found);
  // Nobody waits for the end of one that nobody has heard of: many of them wake the owner once.
  const uint64_t withinMs = connection->fastPathId == 0 || isStopping_ ? 0 : kUnheardMs;
  tell(Closed{connection->id, reason, failure, connection->clientAddress, connection->destination, wasOpened ? connection->fastPathId : 0,
              connection->forward.bytes, connection->backward.bytes, now_ - connection->acceptedMs},
       withinMs);
}

void Worker::reset(ConnectionId id) {
  if (Connection* const connection = find(id)) closeConnection(connection, Reason::Reset);
}

void Worker::abandon(const Address& source) {
  std::vector<Attempt*> abandoned;
  for (auto& entry : connections_) {
    for (auto& attempt : entry.second->attempts) {
      // A prepared connection goes on over the other WANs that it has joined; where there is none it ends without a subflow.
      attempt->abandoned |= attempt->usesPrepared;
      if (!attempt->usesPrepared && attempt->spec.bound && sameHost(attempt->spec.source, source)) abandoned.push_back(attempt.get());
    }
  }
  for (Attempt* attempt : abandoned) fail(attempt, stageOf(*attempt), {ENETDOWN, "connect"});
}

uint64_t Worker::resetUpstreams(const Address& remote) {
  std::vector<Attempt*> attempts;
  std::vector<Connection*> relayed;
  for (auto& entry : connections_) {
    Connection* const connection = entry.second.get();
    // What is drained to a HAG may also be lost with it.
    if (connection->upstream.fd >= 0 && sameSocket(connection->upstreamAddress, remote)) relayed.push_back(connection);
    for (auto& attempt : connection->attempts) {
      if (sameSocket(attempt->spec.remote, remote)) attempts.push_back(attempt.get());
    }
  }
  for (Attempt* attempt : attempts) fail(attempt, stageOf(*attempt), {ECONNRESET, "connect"});
  for (Connection* connection : relayed) closeConnection(connection, Reason::UpstreamReset, {ECONNRESET, "reset"});
  return relayed.size();
}

void Worker::watchUpstreams(const Address& remote, bool closely) {
  for (auto& entry : connections_) {
    Connection* const connection = entry.second.get();
    if (connection->phase != Connection::Phase::Relaying || connection->upstream.fd < 0) continue;
    if (!sameSocket(connection->upstreamAddress, remote)) continue;
    connection->keptAliveS = closely ? Connection::kWatchedClosely : host_->keepaliveS.load();
    if (closely) {
      askWhenIdle(connection->upstream.fd, 1);
    } else {
      keepAlive(connection->upstream.fd, connection->keptAliveS);
    }
  }
}

// On a HAG. A gateway says once that it has lost an address (RM_ADDR), and where that is lost on a full line the subflows from there live on
// here, until so many count that the kernel lets nothing join any more: connections with one WAN are left, which die with it. Where two come
// from one address all are asked: the gateway's machine refuses what it does not know. Two WANs may share an address as well, so that is over
// after two minutes, until more have joined.
void Worker::askAboutOldSubflows(Connection* connection) {
  constexpr int kAskS = 5;
  constexpr uint8_t kLooks = 8;
  const int fd = connection->client.fd;
  const uint8_t joined = joinedSubflows(fd);
  if (connection->asksLeft > 0 && (--connection->asksLeft == 0 || !sharesRemoteHost(fd))) {
    connection->asksLeft = 0;
    keepAlive(fd);
  }
  const bool isMore = joined > connection->joined;
  connection->joined = joined;
  if (!isMore || connection->asksLeft > 0 || !sharesRemoteHost(fd)) return;
  connection->asksLeft = kLooks;
  askOften(fd, kAskS);
}

uint64_t Worker::countOnly(const Address& source, uint64_t olderThanMs) {
  uint64_t count = 0;
  for (auto& entry : connections_) {
    const Connection& connection = *entry.second;
    if (connection.phase != Connection::Phase::Relaying || connection.upstream.protocol != Protocol::Mptcp) continue;
    if (now_ - connection.acceptedMs >= olderThanMs && hasOnly(connection.upstream.fd, source)) ++count;
  }
  return count;
}

uint64_t Worker::resetStranded() {
  std::vector<Connection*> stranded;
  for (auto& entry : connections_) {
    Connection* const connection = entry.second.get();
    if (connection->phase != Connection::Phase::Relaying || connection->upstream.protocol != Protocol::Mptcp) continue;
    if (isStranded(*connection)) stranded.push_back(connection);
  }
  for (Connection* connection : stranded) closeConnection(connection, Reason::UpstreamReset, {ENETDOWN, "reset"});
  return stranded.size();
}
