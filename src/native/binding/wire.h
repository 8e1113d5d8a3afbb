// Passes the events that every connection has as numbers, because each property of an object costs 0.3 us. wire.ts reads them.
#pragma once

#include <arpa/inet.h>

#include "engine/events.h"

enum class Kind { Object, Accepted, Opened, Closed };

class Numbers {
 public:
  static constexpr size_t kMax = 11;  // numbers of one event

  Numbers(double* begin, size_t capacity) : begin_(begin), capacity_(capacity) {}

  bool hasRoom() const { return count_ + kMax <= capacity_; }
  size_t count() const { return count_; }
  void clear() { count_ = 0; }

  // False: pass `event` as an object.
  bool add(const Event& event) {
    const bool isAdded = std::visit([this](const auto& one) { return addOne(one); }, event);
    if (!isAdded) put(static_cast<double>(Kind::Object));
    return isAdded;
  }

 private:
  bool addOne(const Accepted& one) {
    if (one.fastPathId != 0 || !isFour(one.client) || !isFour(one.destination) || !isFour(one.local)) return false;
    start(Kind::Accepted, one.id);
    put(one.client);
    put(one.destination);
    put(one.local);
    return true;
  }
  bool addOne(const Opened& one) {
    if (!isFour(one.local)) return false;
    start(Kind::Opened, one.id);
    put(one.attempt);
    put(one.protocol == Protocol::Unknown ? 0 : one.protocol == Protocol::Tcp ? 1 : 2);
    put(one.prepared ? 1 : 0);
    put(one.local);
    return true;
  }
  bool addOne(const Closed& one) {
    if (!isFour(one.client) || !isFour(one.destination) || one.failure.error != 0) return false;
    start(Kind::Closed, one.id);
    put(static_cast<double>(one.reason));
    put(static_cast<double>(one.sent));
    put(static_cast<double>(one.received));
    put(static_cast<double>(one.durationMs));
    put(static_cast<double>(one.fastPathId));
    put(one.client);
    put(one.destination);
    return true;
  }
  template <typename Rare>
  bool addOne(const Rare&) {
    return false;
  }

  static bool isFour(const Address& address) { return address.sa.sa_family == AF_INET; }
  void start(Kind kind, ConnectionId id) {
    put(static_cast<double>(kind));
    put(static_cast<double>(id));
  }
  void put(double number) { begin_[count_++] = number; }
  void put(const Address& address) {
    put(ntohl(address.in.sin_addr.s_addr));
    put(portOf(address));
  }

  double* begin_;
  size_t capacity_;
  size_t count_ = 0;
};
