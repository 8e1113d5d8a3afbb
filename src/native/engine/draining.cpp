// A connection that both ends have ended, until what was said last has arrived. Part of Relays.
//
// The kernel cuts a closed MPTCP socket after 60 s (mptcp_close_timeout), whatever still comes through: on a slow line, or on one that is
// silent for a minute, the end of a download was lost. One that is open it leaves alone, so it is closed when all was acknowledged, or when
// nothing more was for about as long as the kernel tries with a closed TCP socket (tcp_orphan_retries: 100 s and more).
#include <errno.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "engine/relays.h"

namespace {
constexpr uint64_t kLookMs = 1000;
constexpr uint64_t kPatienceMs = 120 * 1000;
}  // namespace

void Relays::drain(Connection* connection) {
  const Side* const side = connection->mptcpSide();
  connection->unacknowledged = side == nullptr ? 0 : unacknowledged(side->fd);
  if (connection->unacknowledged == 0) return closeConnection(connection, Reason::End);
  Side* const other = side == &connection->upstream ? &connection->client : &connection->upstream;
  // Nothing is left to say: should this process end meanwhile, the kernel sees to the rest for as long as it does.
  for (const int fd : {side->fd, other->fd}) resetOnClose(fd, false);
  loop_->end(other->fd, closeFd);
  other->fd = -1;
  --host_->counters.relaying;
  connection->phase = Connection::Phase::Draining;
  connection->activeMs = loop_->now();
  loop_->setDeadline(connection, loop_->now() + kLookMs);
}

// An event comes when the last byte is acknowledged, and many others while the kernel tries again.
void Relays::lookAtDraining(Connection* connection, bool isDue) {
  const Side& side = *connection->mptcpSide();
  const int left = unacknowledged(side.fd);
  if (left == 0) return closeConnection(connection, Reason::End);
  if (!isDue) return;
  if (left < connection->unacknowledged) connection->activeMs = loop_->now();
  connection->unacknowledged = left;
  if (loop_->now() - connection->activeMs >= std::min(kPatienceMs, host_->limits.idleTimeoutMs)) {
    return closeConnection(connection, &side == &connection->upstream ? Reason::UpstreamReset : Reason::ClientReset, {ETIMEDOUT, "close"});
  }
  watchAgain(connection, side, EPOLLET);  // only its hang-up
  loop_->setDeadline(connection, loop_->now() + kLookMs);
}
