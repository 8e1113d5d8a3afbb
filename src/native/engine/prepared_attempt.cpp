// An attempt that awaits its HAG's answer, one that goes on with a prepared connection, and what follows where that was dead before. Part of
// Dialler.
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "engine/dialler.h"

namespace {
// How often a prepared connection is looked at that has been asked for something and has not answered.
constexpr uint64_t kAliveMs = 100;
// Longer than it takes until what was sent has come over another WAN instead, and that was acknowledged.
constexpr uint64_t kForgottenMs = 500;
constexpr uint64_t kForgottenRoundTrips = 4;
// Of the time for an answer, how often it begins anew.
constexpr uint64_t kMostTimes = 4;
// A client that speaks first does so at once, and its words leave with the request: behind it, MPTCP's scheduler would give them to the
// subflow with the least under way, the slow one.
constexpr uint64_t kFirstWordsMs = 3;

// Nothing of what was sent over a prepared connection was acknowledged. Of a lost WAN no acknowledgements come, so there that proves nothing.
bool isUnheard(const Attempt& attempt) {
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

// A HAG has this time for its answer, from the last sign that what it was sent comes through: on a full uplink that takes long. Not without
// an end, should the sign be all that ever comes.
void Dialler::grantTime(Attempt* attempt) {
  const uint64_t timeMs = attempt->spec.handshakeTimeoutMs;
  attempt->answerUntilMs = std::min(loop_->now() + timeMs, attempt->startedMs + attempt->spec.connectTimeoutMs + kMostTimes * timeMs);
}

void Dialler::awaitAnswer(Attempt* attempt) {
  if (attempt->connection == nullptr) return loop_->setDeadline(attempt, attempt->answerUntilMs);  // a probe asks for an answer in time
  const uint64_t lookMs = attempt->usesPrepared ? kAliveMs : std::max<uint64_t>(attempt->spec.handshakeTimeoutMs / 16, 1);
  const uint64_t untilMs = attempt->holdUntilMs > loop_->now() ? attempt->holdUntilMs : loop_->now() + lookMs;
  loop_->setDeadline(attempt, std::min(untilMs, attempt->answerUntilMs));
}

// False: its time is over.
bool Dialler::lookAtUnanswered(Attempt* attempt) {
  int unacknowledged = 0;
  if (attempt->connection != nullptr && ioctl(attempt->side.fd, SIOCOUTQ, &unacknowledged) == 0) {
    const size_t acknowledged = attempt->sent - std::min(attempt->sent, static_cast<size_t>(unacknowledged));
    if (acknowledged > attempt->acknowledged) grantTime(attempt);
    attempt->acknowledged = acknowledged;
  }
  if (loop_->now() >= attempt->answerUntilMs) return false;
  // Of a plain RST MPTCP says nothing, so it has to be asked.
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

// What is on the path, or the HAG's machine, may have forgotten a prepared connection without a word: it is silent, and new ones get through.
// Its contemporaries are forgotten as well then. Where new ones were silent at first, too, it may have been the path, and what was sent
// will come through: TCP repeats it after twice the time at the latest.
bool Dialler::isForgotten(const Attempt& attempt) {
  const uint64_t waitedMs = loop_->now() - attempt.startedMs;
  const uint64_t forgottenMs = std::max(kForgottenMs, kForgottenRoundTrips * attempt.connectMs);
  if (waitedMs < forgottenMs || attempt.sent == 0 || !isUnheard(attempt)) return false;
  const uint64_t newMs = host_->prepared.drop(attempt.spec.remote, attempt.startedMs);
  return newMs != 0 && waitedMs >= forgottenMs + 2 * (newMs - attempt.startedMs);
}

// The other end has reset or ended the connection instead of answering. A prepared one may have been dead before, and so are its contemporaries
// then, where nothing of what was sent over it was acknowledged. A client that has said nothing yet begins anew.
void Dialler::lose(Attempt* attempt, Failure failure) {
  if (isUnheard(*attempt)) host_->prepared.drop(attempt->spec.remote, attempt->startedMs);
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
