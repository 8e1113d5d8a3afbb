// The end of a connection, or of an attempt. Part of Relays.
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

#include "engine/lobby.h"
#include "engine/relays.h"

namespace {
constexpr uint64_t kUntoldMs = 1000;
}  // namespace

Relays::~Relays() {
  const auto endOne = [this](int fd, void (*how)(int)) {
    if (fd >= 0) loop_->end(fd, how);
  };
  for (auto& entry : connections_) {
    Connection& connection = *entry.second;
    discardFlow(&connection.forward, &pipes_, &host_->counters);
    discardFlow(&connection.backward, &pipes_, &host_->counters);
    if (connection.phase == Connection::Phase::Relaying) --host_->counters.relaying;
    --host_->counters.connections;
    for (auto& attempt : connection.attempts) endOne(attempt->side.fd, abortFd);
    const bool isDrained = connection.phase == Connection::Phase::Draining;
    for (const int fd : {connection.client.fd, connection.upstream.fd}) endOne(fd, isDrained ? closeFd : abortFd);
  }
}

// After a RST, the bytes before it are still in the receive queue, and a direct peer could read them: a server may answer "too large" and close
// with the rest of the request unread. Passes on what the target takes at once, without a FIN: the reset comes next.
void Relays::passOnLastWords(Flow* flow, Side* source, Side* target) {
  if (flow->done || flow->ended) return;
  // MPTCP counts the end of a closed socket as one byte (mptcp_inq_hint). Reading that would pass on a FIN, so look for a real byte first.
  char byte;
  int queued = 0;
  source->readable = recv(source->fd, &byte, 1, MSG_PEEK) == 1 && ioctl(source->fd, SIOCINQ, &queued) == 0;
  source->urgent = true;  // there may be urgent data that no event has told of yet
  flow->room = -1;
  pump(flow, source, target, queued, &pipes_, &host_->counters);
}

void Relays::closeConnection(Connection* connection, Reason reason, Failure failure) {
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
    buffers_.forget(connection, flow);
  }
  releaseAll(connection);
  const bool orderly = reason == Reason::End || reason == Reason::Refused || reason == Reason::Handshake;
  for (const int fd : {connection->client.fd, connection->upstream.fd}) {
    if (fd < 0) continue;
    if (reason == Reason::End && !isDrained) resetOnClose(fd, false);
    loop_->end(fd, orderly ? closeFd : abortFd);
  }
  loop_->setDeadline(connection, 0);
  leaveLobby(connection);
  if (connection->sharing) host_->shares.giveBack(connection->sharer);
  connection->phase = Connection::Phase::Closed;
  --host_->counters.connections;
  const auto found = connections_.find(connection->id);
  loop_->keepUntilTurnEnds(std::move(found->second));
  connections_.erase(found);
  // If the owner was never told of the connection, it need not know of its end at once: many such events wake it once.
  const uint64_t fastPathId = wasOpened ? connection->fastPathId : 0;
  loop_->tell(Closed{connection->id, reason, failure, connection->clientAddress, connection->destination, fastPathId, connection->forward.bytes,
                     connection->backward.bytes, loop_->now() - connection->acceptedMs},
              connection->fastPathId == 0 ? 0 : kUntoldMs);
}

void Relays::leaveLobby(Connection* connection) {
  if (connection->lobby == nullptr) return;
  connection->lobby->leave(connection->clientAddress, connection->id);
  connection->lobby = nullptr;
  --host_->counters.waiting;
}

// Ends an attempt whose socket the connection has not taken over. Freed at the end of the turn.
void Relays::release(Attempt* attempt) {
  loop_->setDeadline(attempt, 0);
  if (attempt->side.fd >= 0) {
    loop_->end(attempt->side.fd, abortFd);
    attempt->side.fd = -1;
  }
  auto& attempts = attempt->connection->attempts;
  const auto found = std::find_if(attempts.begin(), attempts.end(), [attempt](const auto& one) { return one.get() == attempt; });
  loop_->keepUntilTurnEnds(std::move(*found));
  attempts.erase(found);
}

void Relays::releaseAll(Connection* connection) {
  while (!connection->attempts.empty()) release(connection->attempts.back().get());
}

void Relays::reset(ConnectionId id) {
  if (Connection* const connection = find(id)) closeConnection(connection, Reason::Reset);
}
