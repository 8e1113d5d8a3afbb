// The handshake of an attempt: what it sends, and what comes back. Part of Dialler.
#include "handshakes/socks5.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>

#include "engine/dialler.h"

namespace {
// On a new connection, up to so many bytes of the client leave with the handshake; more leave separately behind it.
constexpr size_t kFirstWords = 4 * 1024;
}  // namespace

void Dialler::connected(Attempt* attempt) {
  const DialSpec& spec = attempt->spec;
  attempt->connectMs = loop_->now() - attempt->startedMs;
  if (!spec.socks) return succeed(attempt);
  attempt->isConnecting = false;
  attempt->handshake = Socks5Client(spec.withPassword);
  grantTime(attempt);
  awaitAnswer(attempt);
  attempt->output = socks5::encodeGreeting(spec.withPassword);
  if (spec.pipelined) {
    commit(attempt);
    if (spec.withPassword) attempt->output += socks5::encodeCredentials(spec.username, spec.password);
    addRequest(attempt);
  }
  sendOutput(attempt);
}

void Dialler::addRequest(Attempt* attempt) {
  attempt->output += socks5::encodeConnect(attempt->spec.host, attempt->spec.port);
  addEarly(attempt);
}

// If the HAG takes pipelined handshakes, adds what the client has sent by now and was not added yet. The bytes are only peeked at, so that after
// a failure the next attempt can send them.
void Dialler::addEarly(Attempt* attempt) {
  if (!attempt->spec.pipelined) return;
  char early[kEarlyBytes];
  const ssize_t size = recv(attempt->connection->client.fd, early, sizeof early, MSG_PEEK);
  if (size <= static_cast<ssize_t>(attempt->early)) return;
  attempt->output.append(early + attempt->early, static_cast<size_t>(size) - attempt->early);
  attempt->early = static_cast<size_t>(size);
}

// Clients rarely send their first bytes in the packet that opens the connection. What comes after our request was sent need not wait for the
// reply.
void Dialler::sendEarly(Connection* connection) {
  Attempt* const attempt = connection->attempts.front().get();
  addEarly(attempt);
  sendOutput(attempt);
}

void Dialler::sendOutput(Attempt* attempt) {
  if (attempt->early == 0 && loop_->now() < attempt->holdUntilMs) return;
  while (!attempt->output.empty()) {
    const size_t handshake = attempt->output.size() - std::min(attempt->early, attempt->output.size());
    const bool isApart = handshake > 0 && !attempt->usesPrepared && attempt->early > kFirstWords;
    const ssize_t sent = send(attempt->side.fd, attempt->output.data(), isApart ? handshake : attempt->output.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      attempt->output.erase(0, static_cast<size_t>(sent));
      attempt->sent += static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR) {
      // What the other end sent before its RST can still be read, but the error is reported only once, here.
      attempt->side.error = errno;
      return;
    }
  }
}

// Reads until `input` holds `size` bytes, and not one more: what follows belongs to the relay.
bool Dialler::readExactly(Attempt* attempt, size_t size) {
  while (attempt->input.size() < size) {
    char data[300];
    const size_t wanted = std::min(size - attempt->input.size(), sizeof data);
    const ssize_t got = recv(attempt->side.fd, data, wanted, 0);
    if (got > 0) {
      attempt->input.append(data, static_cast<size_t>(got));
    } else if (got == 0) {
      lose(attempt, {ECONNRESET, "recv"});
      return false;
    } else if (errno != EINTR) {
      if (errno != EAGAIN) lose(attempt, {errno, "recv"});
      return false;
    }
  }
  return true;
}

void Dialler::readAnswers(Attempt* attempt) {
  using Outcome = Socks5Client::Outcome;
  for (;;) {
    const size_t size = attempt->handshake.expected(attempt->input);
    const Stage stage = attempt->stage();
    if (size == 0) return fail(attempt, stage, {EPROTO, "socks"});
    if (!readExactly(attempt, size)) return;
    switch (attempt->handshake.take(attempt->input)) {
      case Outcome::More:
        continue;
      case Outcome::Opened:
        return succeed(attempt);
      case Outcome::Failed:
        return fail(attempt, stage, {EREMOTEIO, "socks", "SOCKS_REPLY"}, attempt->handshake.reply());
      case Outcome::NotAClient:
        return fail(attempt, stage, {EACCES, "socks", "NOT_A_CLIENT"});
      case Outcome::Refused:
        return fail(attempt, stage, {EACCES, "socks"});
      case Outcome::NotSocks:
        return fail(attempt, stage, {EPROTO, "socks"});
      case Outcome::Next:
        break;
    }
    attempt->input.clear();
    if (attempt->connection != nullptr) grantTime(attempt);
    if (!goOn(attempt)) return;
  }
}

// False: the handshake has come as far as was wanted, or has failed.
bool Dialler::goOn(Attempt* attempt) {
  const DialSpec& spec = attempt->spec;
  if (attempt->handshake.step() == Socks5Client::Step::Reply) {
    if (!spec.connectRequest) {
      succeed(attempt);
      return false;
    }
    commit(attempt);
    if (!spec.pipelined) addRequest(attempt);
  } else if (!spec.pipelined) {
    attempt->output += socks5::encodeCredentials(spec.username, spec.password);
  }
  sendOutput(attempt);
  return attempt->side.fd >= 0;
}
