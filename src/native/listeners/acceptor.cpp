#include "listeners/acceptor.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "core/mptcp_info.h"
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
  // Keep the objects: events of this turn may still point to them.
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
  if (retryAccepting_ != 0) return;  // an event of this turn, from before the pause
  for (int i = 0; i < kAcceptsATurn && listener.fd >= 0; ++i) {
    LimitCause cause;
    if (!mayAccept(&cause) && !somebodyWaits(cause)) return pauseAccepting(cause);
    // After the client has gone, getpeername(2) would not tell its address.
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
    // accept(2): treat pending network errors of the new socket like EAGAIN.
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

// Whether a client that has asked for nothing can make room. For a lack of connections, those of all workers count: a worker whose own have left
// would otherwise pause while another one has some. Descriptors can be freed here only.
bool Acceptor::somebodyWaits(LimitCause cause) const {
  const Counters& counters = host_->counters;
  if (cause == LimitCause::Connections) return counters.connections < host_->limits.maxConnections + counters.waiting;
  return socks_->isAnybodyWaiting();
}

// A client that has asked for nothing is sent away before others have to wait. The exception is a newcomer of the same address, if there are not
// too many: a gateway that opens several at once is about to ask. Then accepting pauses, which holds up other clients, so it happens only once
// in kBetweenWaitsMs.
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

// Another worker accepted a client beyond the limit, because a client here has a place and has asked for nothing.
void Acceptor::giveWay() {
  while (host_->counters.connections > host_->limits.maxConnections) {
    Connection* const waiting = socks_->firstToGo();
    if (waiting == nullptr || isAboutToAsk(*waiting)) return;
    socks_->sendAway(waiting);
  }
}

// A connection from the HAG's own address is accepted: a gateway connects to the HAG through the HAG to find out how it reads
// (`takesPipelined`). It gets no further than the greeting, because the owner refuses the rest.
bool Acceptor::isClient(int fd, const Address& client, const Listener& listener) const {
  if (!listener.clients) return true;
  for (const AddressRange& one : *listener.clients) {
    if (sharesBits(client, one.base, one.bits)) return true;
  }
  return sameHost(client, localAddress(fd));
}

// Sends the reason before the RST, so that a gateway can tell us from a HAG that is dead or wants credentials. To other SOCKS clients it is a
// method that they did not offer. An orderly end would leave a socket behind for each client, with MPTCP for a minute (net.mptcp.close_timeout).
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
  // Wait for some room, or accepting would pause again at the next client.
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

// A connection from one of this machine's addresses may be our own: if it was redirected to us, we would open it again, and so on without end.
// The same is true for a connection to our own listener.
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
    if (listener.refusesLoops && comesBack(accepted, &cause)) {
      // The kernel forgets where a client wanted to go that gave up long before it was accepted.
      if (cause == RefusalCause::NotRedirected && hasReceivedEnd(fd)) return abortFd(fd);
      return turnAway(fd, cause, client, listener, accepted.destination);
    }
    sharer = lanClients_.of(client, &routes_, loop_->now()).source;
    if (!host_->takePlace(sharer)) return turnAway(fd, RefusalCause::Share, client, listener);
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
  // A SOCKS client's connection counts only once it has asked for something. Before, it makes room when others need its place; and a gateway
  // would take a HAG for dead that refused even the greeting.
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
