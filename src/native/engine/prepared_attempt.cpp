// An attempt that awaits its HAG's answer, one that goes on with a prepared connection, and what follows where that was dead before. Part of
// Worker.
#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "engine/worker.h"

namespace {
// How often a prepared connection is looked at that has been asked for something and has not answered.
constexpr uint64_t kAliveMs = 100;
// Longer than it takes until what was sent has come over another WAN instead, and that was acknowledged.
constexpr uint64_t kDoubtMs = 500;
constexpr uint64_t kDoubtRoundTrips = 4;
// Of the time for an answer, how often it begins anew.
constexpr uint64_t kMostTimes = 4;
// A client that speaks first does so at once, and its words leave with the request: behind it, MPTCP's scheduler would give them to the
// subflow with the least under way, the slow one.
constexpr uint64_t kFirstWordsMs = 3;
}  // namespace

void Worker::takePrepared(Attempt* attempt, const Prepared& prepared) {
  attempt->usesPrepared = true;
  attempt->side.fd = prepared.fd;
  attempt->side.protocol = prepared.protocol;
  attempt->connectMs = prepared.connectMs;
  if (now_ - prepared.sinceMs >= kWaitedLongMs) resetBbrFilter(prepared.fd);
  attempt->step = Attempt::Step::Reply;
  grantTime(attempt);
  commit(attempt);
  addRequest(attempt);
  const bool holds = attempt->spec.pipelined && attempt->early == 0;
  if (holds) attempt->holdUntilMs = now_ + kFirstWordsMs;
  awaitAnswer(attempt);
  sendOutput(attempt);
  if (!watch(attempt->side.fd, tagOf(attempt, Tag::Attempt), kStreamEvents)) fail(attempt, Stage::Request, {errno, "epoll_ctl"});
}

// A HAG has this time for its answer, from the last sign that what it was sent comes through: on a full uplink that takes long. Not without
// an end, should the sign be all that ever comes.
void Worker::grantTime(Attempt* attempt) {
  const uint64_t timeMs = attempt->spec.handshakeTimeoutMs;
  attempt->answerUntilMs = std::min(now_ + timeMs, attempt->startedMs + attempt->spec.connectTimeoutMs + kMostTimes * timeMs);
}

void Worker::awaitAnswer(Attempt* attempt) {
  if (attempt->connection == nullptr) return setDeadline(attempt, attempt->answerUntilMs);  // a probe asks for an answer in time
  const uint64_t lookMs = attempt->usesPrepared ? kAliveMs : std::max<uint64_t>(attempt->spec.handshakeTimeoutMs / 16, 1);
  const uint64_t untilMs = attempt->holdUntilMs > now_ ? attempt->holdUntilMs : now_ + lookMs;
  setDeadline(attempt, std::min(untilMs, attempt->answerUntilMs));
}

// False: its time is over.
bool Worker::lookAtUnanswered(Attempt* attempt) {
  int unacknowledged = 0;
  if (attempt->connection != nullptr && ioctl(attempt->side.fd, SIOCOUTQ, &unacknowledged) == 0) {
    const size_t acknowledged = attempt->sent - std::min(attempt->sent, static_cast<size_t>(unacknowledged));
    if (acknowledged > attempt->acknowledged) grantTime(attempt);
    attempt->acknowledged = acknowledged;
  }
  if (now_ >= attempt->answerUntilMs) return false;
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

// Nothing of what was sent over a prepared connection was acknowledged. Of a lost WAN no acknowledgements come, so there that proves nothing.
bool Worker::isUnheard(const Attempt& attempt) const {
  int unacknowledged = 0;
  return attempt.usesPrepared && !attempt.abandoned && ioctl(attempt.side.fd, SIOCOUTQ, &unacknowledged) == 0 &&
         static_cast<size_t>(unacknowledged) >= attempt.sent;
}

// What is on the path, or the HAG's machine, may have forgotten a prepared connection without a word: it is silent, and new ones get through.
// Its contemporaries are forgotten as well then. Where new ones were silent at first, too, it may have been the path, and what was sent
// will come through: TCP repeats it after twice the time at the latest.
bool Worker::isForgotten(const Attempt& attempt) {
  const uint64_t waitedMs = now_ - attempt.startedMs;
  const uint64_t doubtMs = std::max(kDoubtMs, kDoubtRoundTrips * attempt.connectMs);
  if (waitedMs < doubtMs || attempt.sent == 0 || !isUnheard(attempt)) return false;
  const uint64_t newMs = host_->prepared.drop(attempt.spec.remote, attempt.startedMs);
  return newMs != 0 && waitedMs >= doubtMs + 2 * (newMs - attempt.startedMs);
}

// The other end has reset or ended the connection instead of answering. A prepared one may have been dead before, and so are its contemporaries
// then, where nothing of what was sent over it was acknowledged. A client that has said nothing yet begins anew.
void Worker::lose(Attempt* attempt, Failure failure) {
  if (isUnheard(*attempt)) host_->prepared.drop(attempt->spec.remote, attempt->startedMs);
  if (!attempt->usesPrepared || saidOf(*attempt) > 0) return fail(attempt, stageOf(*attempt), failure);
  end(attempt->side.fd, abortFd);
  attempt->side.fd = -1;
  attempt->usesPrepared = false;
  attempt->holdUntilMs = 0;
  attempt->early = attempt->sent = attempt->acknowledged = 0;
  attempt->output.clear();
  attempt->input.clear();
  attempt->step = Attempt::Step::Connecting;
  attempt->connection->committed = false;
  if (attempt->connection->fastPathId != 0) handBack(attempt->connection, true);
  DialSpec anew = std::move(attempt->spec);
  anew.prepared = false;
  dial(attempt, std::move(anew));
}
