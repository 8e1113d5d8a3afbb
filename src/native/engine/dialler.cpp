#include "engine/dialler.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

#include "handshakes/socks5.h"

namespace {
// If the server's first bytes come within this time, they leave together with the reply.
constexpr uint64_t kHoldMs = 25;
// How often the kernel asks over a watched connection, and how late the answer may be, beside two round trips: timers of the kernel are coarse.
constexpr int kWatchS = 1;
constexpr uint64_t kLateMs = 200;
}  // namespace

Stage Attempt::stage() const {
  if (watchUntilMs > 0) return Stage::Watch;
  if (isConnecting) return Stage::Connect;
  switch (handshake.step()) {
    case Socks5Client::Step::Method:
      return Stage::Greeting;
    case Socks5Client::Step::Status:
      return Stage::Authentication;
    case Socks5Client::Step::Reply:
      break;
  }
  return Stage::Request;
}

Dialler::~Dialler() {
  for (auto& entry : probes_) {
    if (entry.second->side.fd >= 0) loop_->end(entry.second->side.fd, abortFd);
  }
}

void Dialler::expired(Attempt* attempt) {
  if (attempt->watchUntilMs > 0) return watchSilence(attempt);
  if (!attempt->isConnecting && lookAtUnanswered(attempt)) return;
  fail(attempt, attempt->stage(), {ETIMEDOUT, attempt->isConnecting ? "connect" : "recv"});
}

void Dialler::dial(ConnectionId id, DialSpec spec, uint32_t number) {
  using Phase = Connection::Phase;
  Connection* const connection = relays_->find(id);
  if (connection == nullptr || connection->committed) return;
  const bool racing = connection->phase == Phase::Opening;
  if (!racing && connection->phase != Phase::AwaitingDecision) return;
  for (const auto& other : connection->attempts) {
    if (other->number == number) return;
  }
  const bool crowded = racing && host_->descriptorsAhead() > host_->limits.acceptLimit;
  Attempt* const attempt = addAttempt(connection, number);
  // The descriptors that are left are for clients that have no upstream socket yet.
  if (crowded) return fail(attempt, Stage::Connect, {EMFILE, "socket"});
  loop_->setDeadline(connection, 0);  // each attempt has its own
  dial(attempt, std::move(spec));
}

Attempt* Dialler::addAttempt(Connection* connection, uint32_t number) {
  connection->phase = Connection::Phase::Opening;
  connection->attempts.push_back(std::make_unique<Attempt>());
  Attempt* const attempt = connection->attempts.back().get();
  attempt->connection = connection;
  attempt->number = number;
  return attempt;
}

void Dialler::followFastPath(Connection* connection) {
  DialSpec spec = fastPaths_->begin(connection);
  dial(addAttempt(connection, 0), std::move(spec));
}

void Dialler::probe(uint64_t id, DialSpec spec, Purpose purpose) {
  auto owned = std::make_unique<Attempt>();
  Attempt* const attempt = owned.get();
  attempt->probe = id;
  attempt->purpose = purpose;
  probes_[attempt] = std::move(owned);
  dial(attempt, std::move(spec));
}

void Dialler::dial(Attempt* attempt, DialSpec spec) {
  attempt->spec = std::move(spec);
  attempt->startedMs = loop_->now();
  attempt->side.error = 0;  // of an earlier socket
  const DialSpec& to = attempt->spec;
  Prepared prepared;
  if (to.prepared && host_->prepared.take(to, loop_->now(), &prepared)) return takePrepared(attempt, prepared);
  Failure failure;
  const Address* const source = to.bound ? &to.source : nullptr;
  attempt->side.fd = dialSocket(to.remote, source, to.mptcp, &attempt->side.protocol, &failure, host_->outlets.of(source, to.mptcp));
  if (attempt->side.fd < 0) return fail(attempt, Stage::Connect, failure);
  ++host_->counters.descriptors;
  loop_->setDeadline(attempt, loop_->now() + to.connectTimeoutMs);
  if (!loop_->watch(attempt->side.fd, tagOf(attempt, Tag::Attempt), kStreamEvents)) fail(attempt, Stage::Connect, {errno, "epoll_ctl"});
}

void Dialler::attemptEvent(Attempt* attempt, uint32_t events) {
  if (attempt->side.fd < 0) return;  // ended earlier in this turn
  const bool connecting = attempt->isConnecting;
  // What a HAG answered before its RST tells more than the RST: a HAG that refuses our credentials often closes with the request unread.
  if (!connecting && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    readAnswers(attempt);
    if (attempt->side.fd < 0 || attempt->isConnecting) return;  // it has ended, or was begun anew
  }
  if ((events & EPOLLERR) != 0) {
    const int error = socketError(attempt->side.fd);
    if (error != 0) return lose(attempt, {error, connecting ? "connect" : "recv"});
  }
  // A new socket reports EPOLLHUP until its SYN is sent. Only EPOLLOUT means connected.
  if ((events & EPOLLOUT) == 0) return;
  if (!connecting) {
    sendOutput(attempt);
  } else if ((events & EPOLLHUP) == 0) {
    connected(attempt);
  }
}

// The attempt may send its request from now on. No other attempt of the connection may, or the client's bytes could reach the server twice.
void Dialler::commit(Attempt* attempt) {
  Connection* const connection = attempt->connection;
  if (connection == nullptr || connection->committed) return;
  connection->committed = true;
  for (size_t i = connection->attempts.size(); i-- > 0;) {
    if (connection->attempts[i].get() != attempt) release(connection->attempts[i].get());
  }
}

void Dialler::succeed(Attempt* attempt) {
  const Protocol protocol = attempt->side.protocol == Protocol::Tcp ? Protocol::Tcp : protocolOf(attempt->side.fd);
  attempt->connection == nullptr ? answer(attempt, protocol) : open(attempt, protocol);
}

// For an attempt without a client.
void Dialler::answer(Attempt* attempt, Protocol protocol) {
  const int fd = attempt->side.fd;
  if (attempt->spec.watchMs > 0 && attempt->watchUntilMs == 0) {
    attempt->watchUntilMs = loop_->now() + attempt->spec.watchMs;
    askOften(fd, kWatchS);
    return loop_->setDeadline(attempt, loop_->now() + kWatchS * 1000);
  }
  Probed probed = {attempt->probe, localAddress(fd), protocol, attempt->connectMs};
  if (attempt->purpose != Purpose::Probe) {
    loop_->unwatch(fd);
    attempt->side.fd = -1;
  }
  if (attempt->purpose == Purpose::HandOver) {
    --host_->counters.descriptors;
    probed.fd = fd;
  } else if (attempt->purpose == Purpose::Prepare) {
    host_->prepared.put({fd, protocol, attempt->spec, attempt->connectMs, loop_->now()});
  }
  loop_->tell(probed);
  return release(attempt);
}

// The kernel asks once a second whether the other end's machine still knows the connection (TCP keepalive), and wakes nobody. So one look in that
// time finds out whether it is silent.
void Dialler::watchSilence(Attempt* attempt) {
  const uint64_t patienceMs = kWatchS * 1000 + kLateMs + 2 * attempt->connectMs;
  const uint64_t silent = silentMs(attempt->side.fd);
  if (loop_->now() >= attempt->watchUntilMs) return succeed(attempt);
  if (silent >= patienceMs) return fail(attempt, Stage::Watch, {ETIMEDOUT, "recv"});
  loop_->setDeadline(attempt, std::min(attempt->watchUntilMs, loop_->now() + patienceMs - silent));
}

void Dialler::open(Attempt* attempt, Protocol protocol) {
  const int fd = attempt->side.fd;
  Connection* const connection = attempt->connection;
  if (connection->fastPathId != 0) {
    loop_->setDeadline(connection, 0);
    if (attempt->spec.mptcp && protocol == Protocol::Tcp) fastPaths_->handBack(connection, false);
  }
  commit(attempt);
  const bool isReported = connection->fastPathId == 0;
  const Opened opened = {connection->id, attempt->number, isReported ? localAddress(fd) : noAddress(), protocol, attempt->usesPrepared};
  // Only now consume the client's bytes that were sent.
  const size_t said = attempt->said();
  for (size_t left = said; left > 0;) {
    char early[kEarlyBytes];
    const ssize_t taken = recv(connection->client.fd, early, left, 0);
    if (taken <= 0) break;
    left -= static_cast<size_t>(taken);
  }
  connection->forward.bytes = said;
  connection->upstream.fd = fd;
  connection->upstream.error = attempt->side.error;
  connection->upstreamAddress = attempt->spec.remote;
  if (connection->kind == ListenerKind::Socks) connection->destination = attempt->spec.remote;
  connection->upstream.protocol = protocol;
  attempt->side.fd = -1;
  release(attempt);
  if (connection->kind == ListenerKind::Socks) {
    connection->held = socks5::encodeReply(socks5::kSucceeded, opened.local);
    // A client that has sent more already waits for the server's answer, not for our reply.
    int more = 0;
    if (ioctl(connection->client.fd, SIOCINQ, &more) == 0 && more > 0) {
      loop_->setDeadline(connection, loop_->now() + kHoldMs);
    } else {
      relays_->sendHeld(connection, false);
      if (!connection->held.empty()) return relays_->closeConnection(connection, Reason::ClientReset, {EPIPE, "send"});
    }
  }
  if (isReported) loop_->tell(opened);
  if (!loop_->watch(fd, tagOf(connection, Tag::Upstream), kStreamEvents, true)) {
    return relays_->closeConnection(connection, Reason::UpstreamReset, {errno, "epoll_ctl"});
  }
  relays_->relay(connection);
}

void Dialler::fail(Attempt* attempt, Stage stage, Failure failure, int reply) {
  // A HAG that refuses us has opened nothing. If it ends otherwise, it may have passed on what we sent, even without an acknowledgement: the
  // kernel delays the ACK of received bytes by up to 40 ms, and a RST can overtake it. Only the client knows whether the bytes may be sent
  // twice. `syscall` is checked because a router's "prohibited" (ICMPv6) is EACCES, too, when TCP gives up.
  const bool hasRefused = reply >= 0 || (failure.error == EACCES && strcmp(failure.syscall, "socks") == 0);
  Connection* const connection = attempt->connection;
  if (connection == nullptr) {
    loop_->tell(Probed{attempt->probe, noAddress(), Protocol::Unknown, attempt->connectMs, -1, failure, stage});
    return release(attempt);
  }
  const uint64_t early = hasRefused ? 0 : attempt->said();
  const uint32_t number = attempt->number;
  if (connection->fastPathId != 0) fastPaths_->handBack(connection, false);
  release(attempt);
  const auto left = static_cast<uint32_t>(connection->attempts.size());
  if (left == 0) {
    connection->phase = Connection::Phase::AwaitingDecision;
    connection->committed = false;
    relays_->awaitOwner(connection);
  }
  loop_->tell(Failed{connection->id, number, left, early, stage, failure, reply});
  if (early > 0) relays_->closeConnection(connection, Reason::UpstreamReset, failure);
}

// Ends an attempt whose socket nobody has taken over. Freed at the end of the turn.
void Dialler::release(Attempt* attempt) {
  if (attempt->connection != nullptr) return relays_->release(attempt);
  loop_->setDeadline(attempt, 0);
  if (attempt->side.fd >= 0) loop_->end(attempt->side.fd, abortFd);
  attempt->side.fd = -1;
  const auto found = probes_.find(attempt);
  loop_->keepUntilTurnEnds(std::move(found->second));
  probes_.erase(found);
}

void Dialler::abandon(const Address& source) {
  std::vector<Attempt*> abandoned;
  for (auto& entry : relays_->all()) {
    for (auto& attempt : entry.second->attempts) {
      // A prepared connection goes on over other WANs if it has joined some; otherwise it has no subflow and ends.
      attempt->abandoned |= attempt->usesPrepared;
      if (!attempt->usesPrepared && attempt->spec.bound && sameHost(attempt->spec.source, source)) abandoned.push_back(attempt.get());
    }
  }
  for (Attempt* attempt : abandoned) fail(attempt, attempt->stage(), {ENETDOWN, "connect"});
}

void Dialler::resetAttempts(const Address& remote) {
  std::vector<Attempt*> attempts;
  for (auto& entry : relays_->all()) {
    for (auto& attempt : entry.second->attempts) {
      if (sameSocket(attempt->spec.remote, remote)) attempts.push_back(attempt.get());
    }
  }
  for (Attempt* attempt : attempts) fail(attempt, attempt->stage(), {ECONNRESET, "connect"});
}
