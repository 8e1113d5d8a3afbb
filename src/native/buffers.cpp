// What a connection holds in the kernel's buffers, and how it is kept within its allowance (budget.h). Part of Worker.
//
// What the other end was told to have room for may come, so a receive buffer counts as full while its connection moves or waits. Nothing that
// is held can be taken away again: above its allowance a connection gets no larger buffers, and less is written ahead for its targets.
#include <algorithm>
#include <utility>

#include "worker.h"

namespace {
constexpr uint64_t kWeighMs = 100;
constexpr uint64_t kLittle = 32 * 1024;
constexpr int64_t kScarce = 16 * 1024 * 1024;
constexpr uint64_t kMostUnweighed = 1024 * 1024;

bool isBlocked(const Flow& flow, const Side& source, const Side& target) {
  if (flow.done) return false;
  return flow.parked > 0 || (source.readable && (!target.writable || flow.room == 0));
}
}  // namespace

// Where little is left, before the kernel makes its buffers large; otherwise only if it moves much.
void Worker::weighFirst(Connection* connection) {
  connection->weighMs = now_ + kWeighMs;
  connection->forward.allowance = connection->backward.allowance = host_->budget.charge(connection->clientAddress, 0);
  if (connection->forward.allowance <= kScarce) weigh(connection);
}

// For one that has moved little, no system call.
void Worker::weighLater(Connection* connection) {
  if (!host_->budget.hasLimit()) return;
  const uint64_t moved = connection->forward.bytes + connection->backward.bytes - connection->weighedBytes;
  const bool isStuck = connection->countsAsIdle && (isBlocked(connection->forward, connection->client, connection->upstream) ||
                                                    isBlocked(connection->backward, connection->upstream, connection->client));
  if (!connection->weighsAgain && !isStuck && moved < kLittle) return;
  // By bytes, too: within a LAN's round trips the kernel lets a buffer grow fast.
  const uint64_t allowance = static_cast<uint64_t>(connection->forward.allowance);
  const uint64_t most = connection->charged == 0 ? 2 * kLittle : std::clamp<uint64_t>(allowance / 4, 2 * kLittle, kMostUnweighed);
  if (now_ >= connection->weighMs || moved >= most) {
    weigh(connection);
    connection->weighMs = now_ + kWeighMs;
    connection->weighsAgain = moved >= kLittle;
    connection->countsAsIdle = connection->charged > 0 && !connection->weighsAgain && !isStuck;
  } else {
    connection->weighsAgain = true;
  }
  // A last time, when it has stopped.
  if (!connection->weighsAgain || connection->deadline != 0 || !connection->held.empty()) return;
  connection->onlyWeighs = true;
  setDeadline(connection, now_ + kWeighMs);
}

void Worker::weigh(Connection* connection) {
  Flow* const forward = &connection->forward;
  Flow* const backward = &connection->backward;
  const uint64_t bytes = forward->bytes + backward->bytes;
  const bool hasMoved = bytes == 0 || bytes - connection->weighedBytes >= kLittle;
  connection->weighedBytes = bytes;
  Buffers client = buffersOf(connection->client.fd);
  Buffers upstream = buffersOf(connection->upstream.fd);
  const bool isRedirect = connection->kind == ListenerKind::Redirect;
  client.receive = keepWithin(forward, connection->client, isRedirect ? Protocol::Tcp : Protocol::Mptcp, client.receive, forward->allowance);
  upstream.receive = keepWithin(backward, connection->upstream, connection->protocol, upstream.receive, backward->allowance);
  const auto weightOf = [hasMoved](const Flow& flow, const Side& source, const Side& target, const Buffers& from, const Buffers& to) {
    int64_t weight = int64_t{to.unsent} + flow.parked;
    // A buffer that is empty and rests is counted in part: most of them never fill.
    const bool counts = (flow.bytes >= kLittle || flow.frozen) && !flow.ended;
    if (counts) weight += hasMoved || isBlocked(flow, source, target) ? from.receive : from.receive / 4;
    return weight;
  };
  const int64_t weight = weightOf(*forward, connection->client, connection->upstream, client, upstream) +
                         weightOf(*backward, connection->upstream, connection->client, upstream, client);
  const int64_t more = weight - std::exchange(connection->charged, weight);
  forward->allowance = backward->allowance = host_->budget.charge(connection->clientAddress, more);
  if (connection->protocol == Protocol::Tcp) writeAhead(forward, connection->upstream);
  if (isRedirect) writeAhead(backward, connection->client);
}

void Worker::forgetWeight(Connection* connection) {
  if (connection->charged != 0) host_->budget.charge(connection->clientAddress, -std::exchange(connection->charged, 0));
}
