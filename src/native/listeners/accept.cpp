// Clients' arrival: accepting, its limits, and the server side of SOCKS5. Part of Worker.
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "handshakes/socks5.h"
#include "engine/worker.h"

namespace {
constexpr int kAcceptsATurn = 64;
constexpr uint64_t kRetryMs = 100;
constexpr uint64_t kRefusedLingerMs = 2000;
constexpr uint64_t kAboutToAskMs = 1000;
constexpr uint64_t kBetweenWaitsMs = 10000;
constexpr size_t kFewWaiting = 16;
// The longest message: a user and a password of 255 bytes each. A greeting before it and a request behind it fit in as well.
constexpr size_t kPeekBytes = 1024;
}  // namespace

void Worker::acceptClients(const Listener& listener) {
  for (int i = 0; i < kAcceptsATurn && listener.fd >= 0; ++i) {
    LimitCause cause;
    if (!mayAccept(&cause) && !somebodyWaits(cause)) return pauseAccepting(cause);
    // getpeername() would not tell who it was once the client is gone again.
    Address client = noAddress();
    socklen_t size = sizeof client;
    const int fd = accept4(listener.fd, &client.sa, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      if (!isClient(fd, client, listener)) {
        turnAway(fd, RefusalCause::NotAClient, client, listener);
      } else {
        const bool fits = makeRoom(client, &cause);
        welcome(fd, client, listener);
        if (!fits) return pauseAccepting(cause);
        if (host_->counters.connections > host_->limits.maxConnections) host_->tooMany(index_);
      }
      continue;
    }
    if (errno == EMFILE || errno == ENFILE) return pauseAccepting(LimitCause::Descriptors);
    if (errno == ENOBUFS || errno == ENOMEM) return pauseAccepting(LimitCause::Memory);
    // accept(2): pending network errors of the new socket are to be treated like EAGAIN.
    if (errno != EINTR && errno != ECONNABORTED) return;
  }
}

// With another client, and with an upstream socket for everyone who waits for one: the first, or one more that joins their race. Without the
// pipes as far as they have what the limit leaves them, so that readers that have stopped keep nobody out.
uint64_t Worker::descriptorsAhead() const {
  const uint64_t relaying = host_->counters.relaying;
  const uint64_t connections = host_->counters.connections;
  const uint64_t descriptors = host_->counters.descriptors;
  const uint64_t pipes = 2 * (host_->counters.pipesInUse + host_->counters.pipesPooled);
  const uint64_t left = std::min({pipes, host_->limits.descriptorLimit - host_->limits.acceptLimit, descriptors});
  return descriptors - left + (connections > relaying ? connections - relaying : 0) + 2;
}

bool Worker::mayAccept(LimitCause* cause) const {
  const EngineLimits& limits = host_->limits;
  if (host_->counters.connections >= limits.maxConnections) {
    *cause = LimitCause::Connections;
    return false;
  }
  *cause = LimitCause::Descriptors;
  return descriptorsAhead() <= limits.acceptLimit;
}

// Of any worker, where places are what lacks: those of ours would not last while its clients come to us.
bool Worker::somebodyWaits(LimitCause cause) const {
  const Counters& counters = host_->counters;
  if (cause == LimitCause::Connections) return counters.connections < host_->limits.maxConnections + counters.waiting;
  return lobby_.firstToGo() != 0 || guests_.firstToGo() != 0;
}

// Whoever asks for nothing leaves before others have to wait; but not for one's own next connection, unless there are too many: a gateway
// that opens some at once is about to ask. Others wait behind that, so it is not for ever again.
bool Worker::makeRoom(const Address& newcomer, LimitCause* cause) {
  while (!mayAccept(cause)) {
    Connection* const waiting = firstToGo();
    if (waiting == nullptr) return somebodyWaits(*cause);
    if (sourceOf(waiting->clientAddress) == sourceOf(newcomer) && isAboutToAsk(*waiting) && now_ >= mayWaitMs_) {
      waitUntilMs_ = waiting->acceptedMs + kAboutToAskMs;
      mayWaitMs_ = now_ + kBetweenWaitsMs;
      return false;
    }
    sendAway(waiting);
  }
  return true;
}

bool Worker::isAboutToAsk(const Connection& waiting) const {
  const size_t count = lobby_.count(waiting.clientAddress) + guests_.count(waiting.clientAddress);
  return now_ - waiting.acceptedMs < kAboutToAskMs && count < kFewWaiting;
}

// Null: nobody is here that has asked for nothing, all being read that has come by now. Credentials that were right count for something.
Connection* Worker::firstToGo() {
  const auto id = [this] { return lobby_.firstToGo() != 0 ? lobby_.firstToGo() : guests_.firstToGo(); };
  for (;;) {
    Connection* const first = find(id());
    if (first == nullptr) return nullptr;
    serve(first);
    if (first->phase != Connection::Phase::Closed && id() == first->id) return first;
  }
}

void Worker::sendAway(Connection* waiting) {
  countRefusal(RefusalCause::Waited, waiting->clientAddress);
  closeConnection(waiting, Reason::Reset);
}

// Another worker has accepted a client beyond the limit, because somebody here holds a place for nothing.
void Worker::giveWay() {
  while (host_->counters.connections > host_->limits.maxConnections) {
    Connection* const waiting = firstToGo();
    if (waiting == nullptr || isAboutToAsk(*waiting)) return;
    sendAway(waiting);
  }
}

void Worker::enter(Lobby* lobby, Connection* connection) {
  leaveLobby(connection);
  lobby->enter(connection->clientAddress, connection->id);
  connection->lobby = lobby;
  ++host_->counters.waiting;
}

void Worker::leaveLobby(Connection* connection) {
  if (connection->lobby == nullptr) return;
  connection->lobby->leave(connection->clientAddress, connection->id);
  connection->lobby = nullptr;
  --host_->counters.waiting;
}

// A HAG's connection to itself is none of a stranger's: by that a gateway finds out how it reads (`takesPipelined`). It gets no further than
// the greeting, because its owner refuses the rest.
bool Worker::isClient(int fd, const Address& client, const Listener& listener) const {
  if (!listener.clients) return true;
  for (const AddressRange& one : *listener.clients) {
    if (sharesBits(client, one.base, one.bits)) return true;
  }
  return sameHost(client, localAddress(fd));
}

// A gateway hears why before the RST, so that it can tell us from a HAG that is dead, or that wants credentials; to other SOCKS clients it is
// a method that they did not offer. An orderly end would leave a socket behind for each, of MPTCP for a minute (net.mptcp.close_timeout).
void Worker::turnAway(int fd, RefusalCause cause, const Address& client, const Listener& listener, const Address& destination) {
  constexpr char kAnswer[] = {5, static_cast<char>(socks5::kNotAClient)};
  if (listener.kind == ListenerKind::Socks) send(fd, kAnswer, sizeof kAnswer, MSG_NOSIGNAL);
  abortFd(fd);
  countRefusal(cause, client, destination);
}

void Worker::countRefusal(RefusalCause cause, const Address& client, const Address& destination) {
  if (!host_->refusals.add(cause, client, destination)) return;
  tell(Refused{});
}

// Of a SOCKS client what has asked for something counts. What has not holds no place that others need, and a HAG that did not even greet
// would be taken for dead.
bool Worker::takeShare(const Source& client) { return host_->shares.take(client, host_->limits.maxConnectionsPerClient); }

void Worker::pauseAccepting(LimitCause cause) {
  for (auto& listener : listeners_) {
    if (listener->fd >= 0) epoll_ctl(epoll_, EPOLL_CTL_DEL, listener->fd, nullptr);
  }
  retryAccepting_ = now_ + kRetryMs;
  host_->pausedAccepting(cause);
}

void Worker::resumeAccepting() {
  const EngineLimits& limits = host_->limits;
  // Some room first, or it would pause again at the next client.
  const bool isFull =
      host_->counters.connections > limits.maxConnections * 95 / 100 || descriptorsAhead() > limits.acceptLimit * 95 / 100;
  LimitCause cause;
  mayAccept(&cause);
  if (isFull && (now_ < waitUntilMs_ || !somebodyWaits(cause))) {
    retryAccepting_ = now_ + kRetryMs;
    return;
  }
  retryAccepting_ = 0;
  for (auto& listener : listeners_) {
    if (listener->fd >= 0) watch(listener->fd, tagOf(listener.get(), Tag::Listener), EPOLLIN);
  }
  host_->resumedAccepting();
}

// Every connection that this process opens has one of the machine's addresses as its source: redirected to us, it would be opened and redirected
// without end. So would one to our own listener.
bool Worker::comesBack(const Accepted& accepted, RefusalCause* cause) {
  const bool isSamePort = portOf(accepted.destination) == portOf(accepted.local);
  *cause = RefusalCause::NotRedirected;
  if (isSamePort && (sameHost(accepted.destination, accepted.local) || routes_.to(accepted.destination) == Route::Local)) return true;
  *cause = RefusalCause::Loop;
  return lanClients_.of(accepted.client, &routes_, now_).isOwn;
}

void Worker::welcome(int fd, const Address& client, const Listener& listener) {
  Accepted accepted = {0, client, noAddress(), noAddress()};
  Source sharer = sourceOf(client);
  if (listener.kind == ListenerKind::Redirect) {
    accepted.local = localAddress(fd);
    if (!originalDestination(fd, accepted.local.sa.sa_family, &accepted.destination)) accepted.destination = accepted.local;
    RefusalCause cause;
    if (listener.refusesLoops && comesBack(accepted, &cause)) return turnAway(fd, cause, client, listener, accepted.destination);
    sharer = lanClients_.of(client, &routes_, now_).source;
    if (!takeShare(sharer)) return turnAway(fd, RefusalCause::Share, client, listener);
  }
  auto owned = std::make_unique<Connection>();
  Connection* const connection = owned.get();
  connection->id = ++sequence_ * kMaxWorkers + index_;
  connection->kind = listener.kind;
  connection->authentication = listener.authentication;
  connection->client.fd = fd;
  connection->client.protocol = listener.protocol;
  connection->clientAddress = client;
  connection->sharer = sharer;
  connection->acceptedMs = connection->activeMs = now_;
  if (connections_.empty()) nextSweep_ = now_;
  connections_[connection->id] = std::move(owned);
  ++host_->counters.connections;
  ++host_->counters.descriptors;
  if (listener.kind == ListenerKind::Redirect) {
    connection->destination = accepted.destination;
    connection->sharing = true;
    if (usesFastPath(accepted)) {
      connection->fastPathId = fastPath_->id;
    } else {
      awaitOwner(connection);
      accepted.id = connection->id;
      tell(std::move(accepted));
    }
  } else {
    sendAtOnce(fd);
    connection->phase = Connection::Phase::Greeting;
    setDeadline(connection, now_ + host_->limits.handshakeTimeoutMs);
    enter(&lobby_, connection);
  }
  if (!watch(fd, tagOf(connection, Tag::Client), kStreamEvents)) return closeConnection(connection, Reason::Reset, {errno, "epoll_ctl"});
  if (connection->fastPathId != 0) serveByFastPath(connection);
}

void Worker::setFastPath(std::shared_ptr<const FastPath> fastPath) { fastPath_ = std::move(fastPath); }

bool Worker::usesFastPath(const Accepted& accepted) const {
  if (!fastPath_ || sameSocket(accepted.destination, accepted.local)) return false;
  return std::none_of(fastPath_->destinations.begin(), fastPath_->destinations.end(),
                      [&accepted](const AddressRange& one) { return sharesBits(accepted.destination, one.base, one.bits); });
}

void Worker::serveByFastPath(Connection* connection) {
  DialSpec spec = fastPath_->spec;
  spec.host = formatAddress(connection->destination);
  spec.port = portOf(connection->destination);
  if (spec.prepared) ++demand_;
  setDeadline(connection, now_ + fastPath_->patienceMs);
  dial(addAttempt(connection, 0), std::move(spec));
}

// From here on the owner decides about it.
void Worker::handBack(Connection* connection, bool timedOut) {
  setDeadline(connection, 0);
  const Address local = localAddress(connection->client.fd);
  tell(Accepted{connection->id, connection->clientAddress, connection->destination, local, std::exchange(connection->fastPathId, 0), timedOut});
}

// Reads a SOCKS client's messages as far as they have come. They are peeked and then consumed to the byte, so that what follows the
// request (a pipelining client's payload) stays in the socket for the relay.
void Worker::serve(Connection* connection) {
  using Phase = Connection::Phase;
  uint8_t data[kPeekBytes];
  while (connection->phase == Phase::Greeting || connection->phase == Phase::Credentials || connection->phase == Phase::Request) {
    const ssize_t size = recv(connection->client.fd, data, sizeof data, MSG_PEEK);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) return closeConnection(connection, Reason::ClientReset, {errno, "recv"});
    if (size == 0) return closeConnection(connection, Reason::Handshake, {ECONNRESET, "recv"});
    const size_t length = static_cast<size_t>(size);
    size_t used = 0;
    socks5::Parsed parsed = socks5::Parsed::Invalid;
    Event question;
    std::string answer;
    Phase next = connection->phase;
    if (connection->phase == Phase::Greeting) {
      socks5::Offer offer;
      parsed = socks5::parseGreeting(data, length, &used, &offer);
      const bool acceptable = connection->authentication ? offer.password : offer.none;
      const unsigned method = !acceptable ? socks5::kNoneAcceptable
                              : offer.bondsocks ? socks5::kBondsocks
                              : connection->authentication ? socks5::kUserPassword : socks5::kNoAuthentication;
      answer = {5, static_cast<char>(method)};
      next = !acceptable ? Phase::Refusing : connection->authentication ? Phase::Credentials : Phase::Request;
    } else if (connection->phase == Phase::Credentials) {
      Credentials credentials = {connection->id, connection->clientAddress};
      parsed = socks5::parseCredentials(data, length, &used, &credentials.username, &credentials.password);
      question = std::move(credentials);
      next = Phase::AwaitingVerdict;
    } else {
      socks5::Request request;
      parsed = socks5::parseRequest(data, length, &used, &request);
      if (parsed == socks5::Parsed::Complete && request.reply != socks5::kSucceeded) {
        recv(connection->client.fd, data, used, 0);
        return refuseNow(connection, request.reply);
      }
      if (parsed == socks5::Parsed::Complete) {
        connection->sharing = takeShare(connection->sharer);
        if (!connection->sharing) {
          recv(connection->client.fd, data, used, 0);
          countRefusal(RefusalCause::Share, connection->clientAddress);
          return refuseNow(connection, socks5::kNotAllowed);
        }
        leaveLobby(connection);
      }
      question = Request{connection->id, connection->clientAddress, localAddress(connection->client.fd), request.host, request.port};
      next = Phase::AwaitingDecision;
    }
    // No message is as long as what was looked at: more to come would never help.
    if (parsed == socks5::Parsed::Incomplete && length < sizeof data) return;
    if (parsed != socks5::Parsed::Complete) return closeConnection(connection, Reason::Handshake, {EPROTO, "socks"});
    recv(connection->client.fd, data, used, 0);
    connection->phase = next;
    if (!answer.empty() && send(connection->client.fd, answer.data(), answer.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(answer.size())) {
      return closeConnection(connection, Reason::ClientReset, {errno, "send"});
    }
    if (next == Phase::Refusing) {
      countRefusal(RefusalCause::Method, connection->clientAddress);
      return endRefused(connection);
    }
    if (next == Phase::Credentials) setDeadline(connection, now_ + host_->limits.handshakeTimeoutMs);
    if (next == Phase::Request) awaitRequest(connection);
    if (next == Phase::AwaitingDecision && now_ - connection->acceptedMs >= kWaitedLongMs) resetBbrFilter(connection->client.fd);
    if (next == Phase::AwaitingVerdict || next == Phase::AwaitingDecision) {
      awaitOwner(connection);
      tell(std::move(question));
    }
  }
}

// A gateway greets in advance, and asks when its next client comes: it may wait for so many times a handshake's time.
void Worker::awaitRequest(Connection* connection) {
  constexpr uint64_t kGreetedTimes = 12;
  setDeadline(connection, now_ + kGreetedTimes * host_->limits.handshakeTimeoutMs);
}

// An answer that the owner has lost must not leave a client waiting for ever.
void Worker::awaitOwner(Connection* connection) { setDeadline(connection, now_ + host_->limits.decisionTimeoutMs); }

void Worker::authenticate(ConnectionId id, bool accepted) {
  Connection* const connection = find(id);
  if (connection == nullptr || connection->phase != Connection::Phase::AwaitingVerdict) return;
  const char answer[] = {1, static_cast<char>(accepted ? 0 : 1)};
  if (send(connection->client.fd, answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) {
    return closeConnection(connection, Reason::ClientReset, {errno, "send"});
  }
  if (accepted) {
    connection->phase = Connection::Phase::Request;
    enter(&guests_, connection);
    awaitRequest(connection);
    return serve(connection);
  }
  countRefusal(RefusalCause::Credentials, connection->clientAddress);
  endRefused(connection);
}

void Worker::refuse(ConnectionId id, uint8_t reply) {
  Connection* const connection = find(id);
  if (connection == nullptr) return;
  if (connection->phase != Connection::Phase::AwaitingDecision && connection->phase != Connection::Phase::Opening) return;
  if (connection->kind == ListenerKind::Redirect) return closeConnection(connection, Reason::Reset);
  releaseAll(connection);
  refuseNow(connection, reply);
}

void Worker::refuseNow(Connection* connection, uint8_t reply) {
  const std::string answer = socks5::encodeReply(reply, noAddress());
  send(connection->client.fd, answer.data(), answer.size(), MSG_NOSIGNAL);
  endRefused(connection);
}

// After the last answer to a client that gets nothing more.
void Worker::endRefused(Connection* connection) {
  connection->phase = Connection::Phase::Refusing;
  enter(&lobby_, connection);
  shutdown(connection->client.fd, SHUT_WR);
  setDeadline(connection, now_ + kRefusedLingerMs);
  drainRefused(connection);
}

// Closing with unread bytes would send a RST, which can overtake the reply: read until the client has closed.
void Worker::drainRefused(Connection* connection) {
  char data[4096];
  for (int i = 0; i < 16; ++i) {
    const ssize_t size = recv(connection->client.fd, data, sizeof data, 0);
    if (size > 0) continue;
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    break;
  }
  closeConnection(connection, Reason::Refused);
}
