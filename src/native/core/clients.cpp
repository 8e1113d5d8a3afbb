#include "core/clients.h"

#include <string.h>

namespace {
constexpr size_t kRememberedClients = 1024;
constexpr uint64_t kRememberedMs = 1000;
// Stands in front of what is no IPv6 address. IPv6 addresses that begin so are multicast, which no client has.
constexpr uint64_t kIpv4 = UINT64_MAX;
constexpr uint64_t kMac = UINT64_MAX - 1;

std::pair<uint64_t, uint64_t> bitsOf(const Address& address) {
  if (address.sa.sa_family != AF_INET6) return {kIpv4, address.in.sin_addr.s_addr};
  std::pair<uint64_t, uint64_t> bits;
  memcpy(&bits.first, address.in6.sin6_addr.s6_addr, sizeof bits.first);
  memcpy(&bits.second, address.in6.sin6_addr.s6_addr + sizeof bits.first, sizeof bits.second);
  return bits;
}
}  // namespace

Source sourceOf(const Address& client) {
  const auto address = bitsOf(client);
  return {address.first, client.sa.sa_family == AF_INET6 ? 0 : address.second};
}

bool Shares::take(const Source& client, uint64_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  uint64_t& taken = taken_[client];
  if (limit != 0 && taken >= limit) return false;  // `taken` is above 0, so no empty entry stays in the map
  ++taken;
  return true;
}

void Shares::giveBack(const Source& client) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = taken_.find(client);
  if (--found->second == 0) taken_.erase(found);
}

const LanClients::Known& LanClients::of(const Address& client, Routes* routes, uint64_t nowMs) {
  const auto found = known_.find(bitsOf(client));
  if (found != known_.end() && nowMs < found->second.untilMs) return found->second;
  if (known_.size() >= kRememberedClients) known_.clear();
  // The port would only matter to rules about ports; what we send to the client goes to its address.
  Address host = client;
  (host.sa.sa_family == AF_INET6 ? host.in6.sin6_port : host.in.sin_port) = 0;
  int interface = 0;
  uint64_t mac = 0;
  const Route route = routes->to(host, &interface);
  const bool isNeighbour = route == Route::Unicast && routes->macOf(host, interface, &mac);
  return known_[bitsOf(client)] = {route == Route::Local, isNeighbour ? Source{kMac, mac} : sourceOf(client), nowMs + kRememberedMs};
}
