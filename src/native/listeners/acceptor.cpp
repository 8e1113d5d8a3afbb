#include "listeners/acceptor.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "handshakes/socks5.h"

namespace {
constexpr int kAcceptsATurn = 64;
constexpr uint64_t kRetryMs = 100;
constexpr uint64_t kAboutToAskMs = 1000;
constexpr uint64_t kBetweenWaitsMs = 10000;
constexpr size_t kFewWaiting = 16;
}  // namespace

void Acceptor::addListener(const Listener& listener) {
  listeners_.push_back(std::make_unique<Listener>(listener));
  if (retryAccepting_ == 0) loop_->watch(listener.fd, tagOf(listeners_.back().get(), Tag::Listener), EPOLLIN);
}

void Acceptor::stopListening() {
  loop_->tellAtOnce();
  // The objects stay: this turn's batch may still name them.
  for (auto& listener : listeners_) {
    if (listener->fd < 0) continue;
    loop_->end(listener->fd, closeFd);
    listener->fd = -1;
  }
  if (retryAccepting_ == 0) return;
  retryAccepting_ = 0;
  host_->resumedAccepting();
}

void Acceptor::retry() {
  if (loop_->now() >= retryMs()) resumeAccepting();
}

void Acceptor::acceptClients(const Listener& listener) {
  if (retryAccepting_ != 0) return;  // this turn's batch may still name it
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

bool Acceptor::mayAccept(LimitCause* cause) const {
  const EngineLimits& limits = host_->limits;
  if (host_->counters.connections >= limits.maxConnections) {
    *cause = LimitCause::Connections;
    return false;
  }
  *cause = LimitCause::Descriptors;
  return host_->descriptorsAhead() <= limits.acceptLimit;
}

// Of any worker, where places are what lacks: those of ours would not last while its clients come to us.
bool Acceptor::somebodyWaits(LimitCause cause) const {
  const Counters& counters = host_->counters;
  if (cause == LimitCause::Connections) return counters.connections < host_->limits.maxConnections + counters.waiting;
  return socks_->isAnybodyWaiting();
}

// Whoever asks for nothing leaves before others have to wait; but not for one's own next connection, unless there are too many: a gateway
// that opens some at once is about to ask. Others wait behind that, so it is not for ever again.
bool Acceptor::makeRoom(const Address& newcomer, LimitCause* cause) {
  while (!mayAccept(cause)) {
    Connection* const waiting = socks_->firstToGo();
    if (waiting == nullptr) return somebodyWaits(*cause);
    if (sourceOf(waiting->clientAddress) == sourceOf(newcomer) && isAboutToAsk(*waiting) && loop_->now() >= mayWaitMs_) {
      waitUntilMs_ = waiting->acceptedMs + kAboutToAskMs;
      mayWaitMs_ = loop_->now() + kBetweenWaitsMs;
      return false;
    }
    socks_->sendAway(waiting);
  }
  return true;
}

bool Acceptor::isAboutToAsk(const Connection& waiting) const {
  const size_t count = socks_->countWaiting(waiting.clientAddress);
  return loop_->now() - waiting.acceptedMs < kAboutToAskMs && count < kFewWaiting;
}

// Another worker has accepted a client beyond the limit, because somebody here holds a place for nothing.
void Acceptor::giveWay() {
  while (host_->counters.connections > host_->limits.maxConnections) {
    Connection* const waiting = socks_->firstToGo();
    if (waiting == nullptr || isAboutToAsk(*waiting)) return;
    socks_->sendAway(waiting);
  }
}

// A HAG's connection to itself is none of a stranger's: by that a gateway finds out how it reads (`takesPipelined`). It gets no further than
// the greeting, because its owner refuses the rest.
bool Acceptor::isClient(int fd, const Address& client, const Listener& listener) const {
  if (!listener.clients) return true;
  for (const AddressRange& one : *listener.clients) {
    if (sharesBits(client, one.base, one.bits)) return true;
  }
  return sameHost(client, localAddress(fd));
}

// A gateway hears why before the RST, so that it can tell us from a HAG that is dead, or that wants credentials; to other SOCKS clients it is
// a method that they did not offer. An orderly end would leave a socket behind for each, of MPTCP for a minute (net.mptcp.close_timeout).
void Acceptor::turnAway(int fd, RefusalCause cause, const Address& client, const Listener& listener, const Address& destination) {
  constexpr char kAnswer[] = {5, static_cast<char>(socks5::kNotAClient)};
  if (listener.kind == ListenerKind::Socks) send(fd, kAnswer, sizeof kAnswer, MSG_NOSIGNAL);
  abortFd(fd);
  loop_->tellRefused(cause, client, destination);
}

void Acceptor::pauseAccepting(LimitCause cause) {
  for (auto& listener : listeners_) {
    if (listener->fd >= 0) loop_->unwatch(listener->fd);
  }
  retryAccepting_ = loop_->now() + kRetryMs;
  host_->pausedAccepting(cause);
}

void Acceptor::resumeAccepting() {
  const EngineLimits& limits = host_->limits;
  // Some room first, or it would pause again at the next client.
  const bool isFull = host_->counters.connections > limits.maxConnections * 95 / 100 || host_->descriptorsAhead() > limits.acceptLimit * 95 / 100;
  LimitCause cause;
  mayAccept(&cause);
  if (isFull && (loop_->now() < waitUntilMs_ || !somebodyWaits(cause))) {
    retryAccepting_ = loop_->now() + kRetryMs;
    return;
  }
  retryAccepting_ = 0;
  for (auto& listener : listeners_) {
    if (listener->fd >= 0) loop_->watch(listener->fd, tagOf(listener.get(), Tag::Listener), EPOLLIN);
  }
  host_->resumedAccepting();
}

// Every connection that this process opens has one of the machine's addresses as its source: redirected to us, it would be opened and redirected
// without end. So would one to our own listener.
bool Acceptor::comesBack(const Accepted& accepted, RefusalCause* cause) {
  const bool isSamePort = portOf(accepted.destination) == portOf(accepted.local);
  *cause = RefusalCause::NotRedirected;
  if (isSamePort && (sameHost(accepted.destination, accepted.local) || routes_.to(accepted.destination) == Route::Local)) return true;
  *cause = RefusalCause::Loop;
  return lanClients_.of(accepted.client, &routes_, loop_->now()).isOwn;
}

void Acceptor::welcome(int fd, const Address& client, const Listener& listener) {
  const bool isRedirect = listener.kind == ListenerKind::Redirect;
  Source sharer = sourceOf(client);
  Accepted accepted = {0, client, noAddress(), noAddress()};
  if (isRedirect) {
    accepted.local = localAddress(fd);
    if (!originalDestination(fd, accepted.local.sa.sa_family, &accepted.destination)) accepted.destination = accepted.local;
    RefusalCause cause;
    if (listener.refusesLoops && comesBack(accepted, &cause)) return turnAway(fd, cause, client, listener, accepted.destination);
    sharer = lanClients_.of(client, &routes_, loop_->now()).source;
    if (!host_->shares.take(sharer, host_->limits.maxConnectionsPerClient)) return turnAway(fd, RefusalCause::Share, client, listener);
  }
  auto owned = std::make_unique<Connection>();
  owned->id = accepted.id = ++sequence_ * kMaxWorkers + index_;
  owned->kind = listener.kind;
  owned->authentication = listener.authentication;
  owned->client.fd = fd;
  owned->client.protocol = listener.protocol;
  owned->clientAddress = client;
  owned->sharer = sharer;
  owned->acceptedMs = owned->activeMs = loop_->now();
  // Of a SOCKS client what has asked for something counts. What has not holds no place that others need, and a HAG that did not even greet
  // would be taken for dead.
  owned->sharing = isRedirect;
  owned->destination = accepted.destination;
  if (isRedirect) owned->fastPathId = fastPaths_->idFor(accepted);
  Connection* const connection = relays_->add(std::move(owned));
  if (!isRedirect) {
    socks_->begin(connection);
  } else if (connection->fastPathId == 0) {
    relays_->awaitOwner(connection);
    loop_->tell(accepted);
  }
  if (!loop_->watch(fd, tagOf(connection, Tag::Client), kStreamEvents)) {
    return relays_->closeConnection(connection, Reason::Reset, {errno, "epoll_ctl"});
  }
  if (connection->fastPathId != 0) dialler_->followFastPath(connection);
}
