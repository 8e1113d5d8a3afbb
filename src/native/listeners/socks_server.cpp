#include "listeners/socks_server.h"

#include <errno.h>
#include <sys/socket.h>

#include <utility>

#include "handshakes/socks5.h"

namespace {
constexpr uint64_t kRefusedLingerMs = 2000;
// The longest message has a user and a password of 255 bytes each. With it, a greeting before and a request behind fit in.
constexpr size_t kPeekBytes = 1024;
}  // namespace

void SocksServer::begin(Connection* connection) {
  sendAtOnce(connection->client.fd);
  connection->phase = Connection::Phase::Greeting;
  loop_->setDeadline(connection, loop_->now() + host_->limits.handshakeTimeoutMs);
  enter(&lobby_, connection);
}

// Reads the messages that have come. It peeks, then consumes exactly the messages, so that a pipelining client's payload behind the request
// stays in the socket for the relay.
void SocksServer::serve(Connection* connection) {
  using Phase = Connection::Phase;
  uint8_t data[kPeekBytes];
  while (connection->phase == Phase::Greeting || connection->phase == Phase::Credentials || connection->phase == Phase::Request) {
    const ssize_t size = recv(connection->client.fd, data, sizeof data, MSG_PEEK);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) return relays_->closeConnection(connection, Reason::ClientReset, {errno, "recv"});
    if (size == 0) return relays_->closeConnection(connection, Reason::Handshake, {ECONNRESET, "recv"});
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
      const unsigned method = !acceptable                  ? socks5::kNoneAcceptable
                              : offer.bondsocks            ? socks5::kBondsocks
                              : connection->authentication ? socks5::kUserPassword
                                                           : socks5::kNoAuthentication;
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
        connection->sharing = host_->takePlace(connection->sharer);
        if (!connection->sharing) {
          recv(connection->client.fd, data, used, 0);
          loop_->tellRefused(RefusalCause::Share, connection->clientAddress);
          return refuseNow(connection, socks5::kNotAllowed);
        }
        relays_->leaveLobby(connection);
      }
      question = Request{connection->id, connection->clientAddress, localAddress(connection->client.fd), request.host, request.port};
      next = Phase::AwaitingDecision;
    }
    // No message is as long as the buffer, so more bytes would not complete it.
    if (parsed == socks5::Parsed::Incomplete && length < sizeof data) return;
    if (parsed != socks5::Parsed::Complete) return relays_->closeConnection(connection, Reason::Handshake, {EPROTO, "socks"});
    recv(connection->client.fd, data, used, 0);
    connection->phase = next;
    if (!answer.empty() && send(connection->client.fd, answer.data(), answer.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(answer.size())) {
      return relays_->closeConnection(connection, Reason::ClientReset, {errno, "send"});
    }
    if (next == Phase::Refusing) {
      loop_->tellRefused(RefusalCause::Method, connection->clientAddress);
      return endRefused(connection);
    }
    if (next == Phase::Credentials) loop_->setDeadline(connection, loop_->now() + host_->limits.handshakeTimeoutMs);
    if (next == Phase::Request) awaitRequest(connection);
    if (next == Phase::AwaitingDecision && loop_->now() - connection->acceptedMs >= kWaitedLongMs) resetBbrFilter(connection->client.fd);
    if (next == Phase::AwaitingVerdict || next == Phase::AwaitingDecision) {
      relays_->awaitOwner(connection);
      loop_->tell(std::move(question));
    }
  }
}

// A gateway greets in advance and sends its request when its next client comes, so it has many times the time of a handshake.
void SocksServer::awaitRequest(Connection* connection) {
  constexpr uint64_t kGreetedTimes = 12;
  loop_->setDeadline(connection, loop_->now() + kGreetedTimes * host_->limits.handshakeTimeoutMs);
}

void SocksServer::authenticate(ConnectionId id, bool accepted) {
  Connection* const connection = relays_->find(id);
  if (connection == nullptr || connection->phase != Connection::Phase::AwaitingVerdict) return;
  const char answer[] = {1, static_cast<char>(accepted ? 0 : 1)};
  if (send(connection->client.fd, answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) {
    return relays_->closeConnection(connection, Reason::ClientReset, {errno, "send"});
  }
  if (accepted) {
    connection->phase = Connection::Phase::Request;
    enter(&guests_, connection);
    awaitRequest(connection);
    return serve(connection);
  }
  loop_->tellRefused(RefusalCause::Credentials, connection->clientAddress);
  endRefused(connection);
}

void SocksServer::refuse(ConnectionId id, uint8_t reply) {
  Connection* const connection = relays_->find(id);
  if (connection == nullptr) return;
  if (connection->phase != Connection::Phase::AwaitingDecision && connection->phase != Connection::Phase::Opening) return;
  if (connection->kind == ListenerKind::Redirect) return relays_->closeConnection(connection, Reason::Reset);
  relays_->releaseAll(connection);
  refuseNow(connection, reply);
}

void SocksServer::refuseNow(Connection* connection, uint8_t reply) {
  const std::string answer = socks5::encodeReply(reply, noAddress());
  send(connection->client.fd, answer.data(), answer.size(), MSG_NOSIGNAL);
  endRefused(connection);
}

// After the last answer to a client that was refused.
void SocksServer::endRefused(Connection* connection) {
  connection->phase = Connection::Phase::Refusing;
  enter(&lobby_, connection);
  shutdown(connection->client.fd, SHUT_WR);
  loop_->setDeadline(connection, loop_->now() + kRefusedLingerMs);
  drainRefused(connection);
}

// close(2) with unread bytes would send a RST, which can overtake the reply. So read until the client has closed.
void SocksServer::drainRefused(Connection* connection) {
  char data[4096];
  for (int i = 0; i < 16; ++i) {
    const ssize_t size = recv(connection->client.fd, data, sizeof data, 0);
    if (size > 0) continue;
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    break;
  }
  relays_->closeConnection(connection, Reason::Refused);
}

// The client that should make room first. What it has sent by now is read before. Clients with accepted credentials come last. Null: every
// client has asked for something.
Connection* SocksServer::firstToGo() {
  const auto id = [this] { return lobby_.firstToGo() != 0 ? lobby_.firstToGo() : guests_.firstToGo(); };
  for (;;) {
    Connection* const first = relays_->find(id());
    if (first == nullptr) return nullptr;
    serve(first);
    if (first->phase != Connection::Phase::Closed && id() == first->id) return first;
  }
}

void SocksServer::sendAway(Connection* waiting) {
  loop_->tellRefused(RefusalCause::Waited, waiting->clientAddress);
  relays_->closeConnection(waiting, Reason::Reset);
}

void SocksServer::enter(Lobby* lobby, Connection* connection) {
  relays_->leaveLobby(connection);
  lobby->enter(connection->clientAddress, connection->id);
  connection->lobby = lobby;
  ++host_->counters.waiting;
}
