// Two connected sockets, for tests of the relay between a source and a target.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include "check.h"
#include "core/socket.h"

struct Pair {
  int near = -1;
  int far = -1;
};

// Over loopback TCP, because a socketpair(2) has no RST.
inline Pair tcpPair(bool mptcp = false) {
  Address address;
  Protocol protocol;
  Failure failure;
  CHECK(parseAddress("127.0.0.1", 0, &address));
  const int listener = listenSocket(address, mptcp, false, &protocol, &failure);
  CHECK(listener >= 0);
  const int near = dialSocket(localAddress(listener), nullptr, mptcp, &protocol, &failure);
  CHECK(near >= 0);
  pollfd waiting = {listener, POLLIN, 0};
  CHECK(poll(&waiting, 1, 5000) == 1);
  const int far = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
  CHECK(far >= 0);
  closeFd(listener);
  return {near, far};
}
