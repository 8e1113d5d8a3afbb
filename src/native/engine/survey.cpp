#include "engine/survey.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

namespace {
// Whether the connection needs a subflow and has none. After the other end's FIN all its bytes are here, perhaps still on their way to a slow
// client. Then a reset only helps once the client has them and has not ended its own direction: it tells the client that nobody receives its
// bytes any more.
bool isStranded(const Connection& connection) {
  const int fd = connection.upstream.fd;
  if (!hasNoSubflow(fd)) return false;
  if (!hasReceivedEnd(fd)) return true;
  int undelivered = 0;
  return connection.backward.done && ioctl(connection.client.fd, SIOCOUTQ, &undelivered) == 0 && undelivered == 0;
}
}  // namespace

void Survey::sweepIdle() {
  const int keepaliveS = host_->keepaliveS;
  // Half the keepalive time, so that keepalive is set in time for its first probe.
  const uint64_t idleMs = std::min<uint64_t>(host_->limits.idleTimeoutMs / 16, static_cast<uint64_t>(keepaliveS) * 500);
  const uint64_t youngMs = std::clamp<uint64_t>(idleMs, 50, 60000);
  const uint64_t everyMs = std::min<uint64_t>(youngMs, 15000);
  nextSweep_ = loop_->now() + everyMs;
  std::vector<Connection*> idle;
  for (auto& entry : relays_->all()) {
    Connection* const connection = entry.second.get();
    if (connection->phase != Connection::Phase::Relaying) continue;
    if (loop_->now() - connection->activeMs >= host_->limits.idleTimeoutMs) idle.push_back(connection);
    relays_->letRest(connection);
    if (connection->client.protocol == Protocol::Mptcp && loop_->now() - connection->acceptedMs >= everyMs) askAboutOldSubflows(connection);
    const int keptAliveS = connection->keptAliveS;
    if (keptAliveS == keepaliveS || keptAliveS == Connection::kWatchedClosely || loop_->now() - connection->acceptedMs < youngMs) continue;
    // Set late, because most connections end before and are spared the calls. A redirected client has it from its listener.
    connection->keptAliveS = keepaliveS;
    keepAlive(connection->upstream.fd, keepaliveS);
    if (connection->kind == ListenerKind::Socks && connection->asksLeft == 0) keepAlive(connection->client.fd);
  }
  for (Connection* connection : idle) relays_->closeConnection(connection, Reason::Idle, {ETIMEDOUT, "idle"});
}

// On a HAG. A gateway announces once that it has lost an address (RM_ADDR). If that packet is lost, the subflows from there live on here, until
// the kernel's limit lets no other subflow join, and the connection is left with one WAN and dies with it. So if two subflows come from one
// address, keepalive asks often: the gateway resets subflows that it does not know. Two WANs may really share an address; therefore this ends
// after two minutes, until another subflow joins.
void Survey::askAboutOldSubflows(Connection* connection) {
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

uint64_t Survey::countOnly(const Address& source, uint64_t olderThanMs) {
  uint64_t count = 0;
  for (auto& entry : relays_->all()) {
    const Connection& connection = *entry.second;
    if (connection.phase != Connection::Phase::Relaying || connection.upstream.protocol != Protocol::Mptcp) continue;
    if (loop_->now() - connection.acceptedMs >= olderThanMs && hasOnly(connection.upstream.fd, source)) ++count;
  }
  return count;
}

uint64_t Survey::resetStranded() {
  std::vector<Connection*> stranded;
  for (auto& entry : relays_->all()) {
    Connection* const connection = entry.second.get();
    if (connection->phase != Connection::Phase::Relaying || connection->upstream.protocol != Protocol::Mptcp) continue;
    if (isStranded(*connection)) stranded.push_back(connection);
  }
  for (Connection* connection : stranded) relays_->closeConnection(connection, Reason::UpstreamReset, {ENETDOWN, "reset"});
  return stranded.size();
}

void Survey::watchConnectionsTo(const Address& remote, bool closely) {
  for (auto& entry : relays_->all()) {
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

uint64_t Survey::resetConnectionsTo(const Address& remote) {
  std::vector<Connection*> relayed;
  for (auto& entry : relays_->all()) {
    Connection* const connection = entry.second.get();
    // A connection that drains to a HAG is lost with it, too.
    if (connection->upstream.fd >= 0 && sameSocket(connection->upstreamAddress, remote)) relayed.push_back(connection);
  }
  for (Connection* connection : relayed) relays_->closeConnection(connection, Reason::UpstreamReset, {ECONNRESET, "reset"});
  return relayed.size();
}

std::vector<Inspection> Survey::inspect(const std::vector<Connection*>& connections) const {
  std::vector<Inspection> found;
  for (Connection* const one : connections) {
    if (one->phase != Connection::Phase::Relaying) continue;
    const Side* const side = one->mptcpSide();
    // A connection may have fallen back from MPTCP since it was opened.
    const Protocol protocol = side == nullptr ? Protocol::Tcp : protocolOf(side->fd);
    const bool isMptcp = protocol != Protocol::Tcp;
    found.push_back({one->id, one->clientAddress, localAddress(one->upstream.fd), remoteAddress(one->upstream.fd), protocol, one->forward.bytes,
                     one->backward.bytes, loop_->now() - one->acceptedMs, isMptcp && isFull(side->fd),
                     isMptcp ? subflowsOf(side->fd) : std::vector<Subflow>()});
  }
  return found;
}

std::vector<Inspection> Survey::inspect(const std::vector<ConnectionId>& ids) {
  std::vector<Connection*> connections;
  if (ids.empty()) {
    for (auto& entry : relays_->all()) connections.push_back(entry.second.get());
  }
  for (const ConnectionId id : ids) {
    if (Connection* const connection = relays_->find(id)) connections.push_back(connection);
  }
  return inspect(connections);
}

std::vector<Inspection> Survey::inspectBusy(const Busy& wanted) {
  std::vector<Connection*> connections;
  for (auto& entry : relays_->all()) {
    Connection* const one = entry.second.get();
    if (one->phase != Connection::Phase::Relaying || loop_->now() - one->acceptedMs < wanted.olderThanMs) continue;
    if (one->forward.bytes + one->backward.bytes >= wanted.minBytes) connections.push_back(one);
  }
  if (connections.size() > wanted.max) {
    const auto middle = connections.begin() + static_cast<std::ptrdiff_t>(wanted.max);
    std::nth_element(connections.begin(), middle, connections.end(), [](auto* one, auto* other) { return one->activeMs > other->activeMs; });
    connections.resize(wanted.max);
  }
  return inspect(connections);
}
