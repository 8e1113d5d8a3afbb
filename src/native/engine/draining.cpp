// A connection that both ends have ended, until its last bytes have arrived. Part of Relays.
//
// The kernel cuts a closed MPTCP socket after 60 s (mptcp_close_timeout), even if bytes still get through: on a slow line, or one that is silent
// for a minute, the end of a download was lost. It does not cut an open one. So we close the socket when all is acknowledged, or when nothing
// more was acknowledged for about as long as the kernel tries with a closed TCP socket (tcp_orphan_retries: 100 s and more).
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
  // If this process ends meanwhile, the kernel delivers the rest as long as it does for any closed socket, instead of sending a RST.
  for (const int fd : {side->fd, other->fd}) resetOnClose(fd, false);
  loop_->end(other->fd, closeFd);
  other->fd = -1;
  --host_->counters.relaying;
  connection->phase = Connection::Phase::Draining;
  connection->activeMs = loop_->now();
  loop_->setDeadline(connection, loop_->now() + kLookMs);
}

// Called when the last byte is acknowledged, and at many other events while the kernel retransmits.
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
  watchAgain(connection, side, EPOLLET);  // reports only EPOLLHUP and EPOLLERR
  loop_->setDeadline(connection, loop_->now() + kLookMs);
}
