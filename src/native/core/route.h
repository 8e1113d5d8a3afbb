// Asks the kernel where it would send a packet (rtnetlink(7)). A list of interface addresses is not enough: local routes can make whole networks
// this machine's own, addresses stay reachable without carrier, and rules may lead elsewhere.
#pragma once

#include "core/socket.h"

enum class Route : uint8_t { Unknown, Unicast, Local, Broadcast, Anycast, Multicast, None };

// For one thread. The first question opens its socket, which stays open, so that it still works when descriptors run out.
class Routes {
 public:
  Routes() = default;
  ~Routes() { closeFd(fd_); }
  Routes(const Routes&) = delete;
  Routes& operator=(const Routes&) = delete;

  // The route of a TCP connection to this address and port. None: there is no route. Unknown: the kernel could not be asked; errno says why.
  // *interface: the interface by which it would leave.
  Route to(const Address& destination, int* interface = nullptr);
  // The neighbour's Ethernet address. False if it is not known, or the kernel does not tell (before Linux 5.0).
  bool macOf(const Address& neighbour, int interface, uint64_t* mac);

 private:
  struct Answer;
  template <typename Question>
  bool ask(Question* question, Answer* answer);

  int fd_ = -1;
  uint32_t sequence_ = 0;
};
