#include "engine/lobby.h"

Lobby::Rank Lobby::rankOf(const Source& source, const std::set<ConnectionId>& connections) {
  return {connections.size(), UINT64_MAX - *connections.begin(), source};
}

void Lobby::enter(const Address& client, ConnectionId connection) {
  const Source source = sourceOf(client);
  std::set<ConnectionId>& connections = all_[source];
  if (!connections.empty()) ranks_.erase(rankOf(source, connections));
  connections.insert(connection);
  ranks_.insert(rankOf(source, connections));
}

void Lobby::leave(const Address& client, ConnectionId connection) {
  const Source source = sourceOf(client);
  const auto found = all_.find(source);
  if (found == all_.end() || found->second.count(connection) == 0) return;
  ranks_.erase(rankOf(source, found->second));
  found->second.erase(connection);
  if (found->second.empty()) {
    all_.erase(found);
  } else {
    ranks_.insert(rankOf(source, found->second));
  }
}

size_t Lobby::count(const Address& client) const {
  const auto found = all_.find(sourceOf(client));
  return found == all_.end() ? 0 : found->second.size();
}

ConnectionId Lobby::firstToGo() const {
  if (ranks_.empty()) return 0;
  return UINT64_MAX - std::get<1>(*ranks_.rbegin());
}
