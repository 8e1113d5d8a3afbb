// Events of every connection as numbers: an object costs 0.3 us a property. wire.ts reads them.
#pragma once

#include <arpa/inet.h>

#include "engine/events.h"

enum class Kind { Object, Accepted, Opened, Closed };

class Numbers {
 public:
  static constexpr size_t kMost = 11;  // of an event

  Numbers(double* begin, size_t capacity) : begin_(begin), capacity_(capacity) {}

  bool hasRoom() const { return count_ + kMost <= capacity_; }
  size_t count() const { return count_; }
  void clear() { count_ = 0; }

  // False: `event` has to cross as an object.
  bool add(const Event& event) {
    const auto isFour = [](const Address& address) { return address.sa.sa_family == AF_INET; };
    if (event.type == Event::Type::Accepted && event.fastPathId == 0 && isFour(event.client) && isFour(event.destination) && isFour(event.local)) {
      start(Kind::Accepted, event);
      put(event.client);
      put(event.destination);
      put(event.local);
    } else if (event.type == Event::Type::Opened && isFour(event.local)) {
      start(Kind::Opened, event);
      put(event.attempt);
      put(event.protocol == Protocol::Unknown ? 0 : event.protocol == Protocol::Tcp ? 1 : 2);
      put(event.prepared ? 1 : 0);
      put(event.local);
    } else if (event.type == Event::Type::Closed && isFour(event.client) && isFour(event.destination) && event.failure.error == 0) {
      start(Kind::Closed, event);
      put(static_cast<double>(event.reason));
      put(static_cast<double>(event.sent));
      put(static_cast<double>(event.received));
      put(static_cast<double>(event.milliseconds));
      put(static_cast<double>(event.fastPathId));
      put(event.client);
      put(event.destination);
    } else {
      put(static_cast<double>(Kind::Object));
      return false;
    }
    return true;
  }

 private:
  void start(Kind kind, const Event& event) {
    put(static_cast<double>(kind));
    put(static_cast<double>(event.id));
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
