// Attempts that wait for their HAG's answer, attempts that use a prepared connection, and what follows if that connection was already dead. Part
// of Dialler.
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "engine/dialler.h"

namespace {
// How often to look at a prepared connection that has not answered yet.
constexpr uint64_t kAliveMs = 100;
// Longer than it takes to send the request again over another WAN and to get its acknowledgement.
constexpr uint64_t kForgottenMs = 500;
constexpr uint64_t kForgottenRoundTrips = 4;
// The longest wait for an answer, in times of `handshakeTimeoutMs`.
constexpr uint64_t kMaxTimes = 4;
// A client that speaks first does so at once. Its bytes should leave with the request: sent after it, MPTCP's scheduler would give them to the
// subflow with the fewest bytes in flight, which is the slow one.
constexpr uint64_t kFirstWordsMs = 3;

// Whether nothing that was sent over a prepared connection was acknowledged. If a WAN was lost, that proves nothing, because its
// acknowledgements do not come.
bool isUnacknowledged(const Attempt& attempt) {
  int unacknowledged = 0;
  return attempt.usesPrepared && !attempt.abandoned && ioctl(attempt.side.fd, SIOCOUTQ, &unacknowledged) == 0 &&
         static_cast<size_t>(unacknowledged) >= attempt.sent;
}
}  // namespace

void Dialler::takePrepared(Attempt* attempt, const Prepared& prepared) {
  attempt->usesPrepared = true;
  attempt->side.fd = prepared.fd;
  attempt->side.protocol = prepared.protocol;
  attempt->connectMs = prepared.connectMs;
  if (loop_->now() - prepared.sinceMs >= kWaitedLongMs) resetBbrFilter(prepared.fd);
  attempt->isConnecting = false;
  attempt->handshake = Socks5Client(attempt->spec.withPassword, Socks5Client::Step::Reply);
  grantTime(attempt);
  commit(attempt);
  addRequest(attempt);
  const bool holds = attempt->spec.pipelined && attempt->early == 0;
  if (holds) attempt->holdUntilMs = loop_->now() + kFirstWordsMs;
  awaitAnswer(attempt);
  sendOutput(attempt);
  if (!loop_->watch(attempt->side.fd, tagOf(attempt, Tag::Attempt), kStreamEvents)) fail(attempt, Stage::Request, {errno, "epoll_ctl"});
}

// The time for the HAG's answer begins anew with each acknowledgement, because on a full uplink sending takes long. But the whole takes at most
// kMaxTimes as long, in case nothing but acknowledgements comes.
void Dialler::grantTime(Attempt* attempt) {
  const uint64_t timeMs = attempt->spec.handshakeTimeoutMs;
  attempt->answerUntilMs = std::min(loop_->now() + timeMs, attempt->startedMs + attempt->spec.connectTimeoutMs + kMaxTimes * timeMs);
}

void Dialler::awaitAnswer(Attempt* attempt) {
  if (attempt->connection == nullptr) return loop_->setDeadline(attempt, attempt->answerUntilMs);  // a probe wants its answer in time
  const uint64_t lookMs = attempt->usesPrepared ? kAliveMs : std::max<uint64_t>(attempt->spec.handshakeTimeoutMs / 16, 1);
  const uint64_t untilMs = attempt->holdUntilMs > loop_->now() ? attempt->holdUntilMs : loop_->now() + lookMs;
  loop_->setDeadline(attempt, std::min(untilMs, attempt->answerUntilMs));
}

// False: the time for the answer is over.
bool Dialler::lookAtUnanswered(Attempt* attempt) {
  int unacknowledged = 0;
  if (attempt->connection != nullptr && ioctl(attempt->side.fd, SIOCOUTQ, &unacknowledged) == 0) {
    const size_t acknowledged = attempt->sent - std::min(attempt->sent, static_cast<size_t>(unacknowledged));
    if (acknowledged > attempt->acknowledged) grantTime(attempt);
    attempt->acknowledged = acknowledged;
  }
  if (loop_->now() >= attempt->answerUntilMs) return false;
  // MPTCP reports nothing after a plain RST, so look for subflows.
  if (hasNoSubflow(attempt->side.fd)) {
    lose(attempt, {ENOTCONN, "recv"});
  } else if (isForgotten(*attempt)) {
    lose(attempt, {ETIMEDOUT, "recv"});
  } else {
    sendOutput(attempt);
    awaitAnswer(attempt);
  }
  return true;
}

// Whether a NAT on the path, or the HAG's machine, has forgotten a prepared connection without a RST: it is silent, but newer connections get
// through. Then those made before it are forgotten, too, and dropped. If the next newer connection was made only after the request, the path may
// have been silent until then; the request then gets through with TCP's retransmission, after twice that time at the latest, so wait for that.
bool Dialler::isForgotten(const Attempt& attempt) {
  const uint64_t waitedMs = loop_->now() - attempt.startedMs;
  const uint64_t forgottenMs = std::max(kForgottenMs, kForgottenRoundTrips * attempt.connectMs);
  if (waitedMs < forgottenMs || attempt.sent == 0 || !isUnacknowledged(attempt)) return false;
  const uint64_t newMs = host_->prepared.drop(attempt.spec.remote, attempt.startedMs);
  return newMs != 0 && waitedMs >= forgottenMs + 2 * (newMs - attempt.startedMs);
}

// The other end has reset or ended the connection instead of answering. If nothing was acknowledged, a prepared connection may have been dead
// already; then those made before the attempt are dead, too, and are dropped. If the client has sent nothing, the attempt begins anew.
void Dialler::lose(Attempt* attempt, Failure failure) {
  if (isUnacknowledged(*attempt)) host_->prepared.drop(attempt->spec.remote, attempt->startedMs);
  if (!attempt->usesPrepared || attempt->said() > 0) return fail(attempt, attempt->stage(), failure);
  loop_->end(attempt->side.fd, abortFd);
  attempt->side.fd = -1;
  attempt->usesPrepared = false;
  attempt->holdUntilMs = 0;
  attempt->early = attempt->sent = attempt->acknowledged = 0;
  attempt->output.clear();
  attempt->input.clear();
  attempt->isConnecting = true;
  attempt->connection->committed = false;
  if (attempt->connection->fastPathId != 0) fastPaths_->handBack(attempt->connection, true);
  DialSpec anew = std::move(attempt->spec);
  anew.prepared = false;
  dial(attempt, std::move(anew));
}
