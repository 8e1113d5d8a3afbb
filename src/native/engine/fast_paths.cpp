#include "engine/fast_paths.h"

#include <algorithm>
#include <utility>

uint64_t FastPaths::idFor(const Accepted& accepted) const {
  if (!fastPath_ || sameSocket(accepted.destination, accepted.local)) return 0;
  const auto isIn = [&accepted](const AddressRange& one) { return sharesBits(accepted.destination, one.base, one.bits); };
  return std::any_of(fastPath_->destinations.begin(), fastPath_->destinations.end(), isIn) ? 0 : fastPath_->id;
}

DialSpec FastPaths::begin(Connection* connection) {
  DialSpec spec = fastPath_->spec;
  spec.host = formatAddress(connection->destination);
  spec.port = portOf(connection->destination);
  if (spec.prepared) ++demand_;
  loop_->setDeadline(connection, loop_->now() + fastPath_->patienceMs);
  return spec;
}

void FastPaths::handBack(Connection* connection, bool timedOut) {
  loop_->setDeadline(connection, 0);
  const Address local = localAddress(connection->client.fd);
  const uint64_t id = std::exchange(connection->fastPathId, 0);
  loop_->tell(Accepted{connection->id, connection->clientAddress, connection->destination, local, id, timedOut});
}

void FastPaths::tellDemand() {
  if (demand_ > 0) loop_->tell(Demand{std::exchange(demand_, 0)});
}
