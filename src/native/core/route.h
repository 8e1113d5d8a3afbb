// Asks the kernel where it would send a packet (rtnetlink(7)): no list of interface addresses is as complete, because local
// routes make whole networks this machine's own, addresses without carrier stay reachable, and rules may lead elsewhere.
#pragma once

#include "core/socket.h"

enum class Route : uint8_t { Unknown, Unicast, Local, Broadcast, Anycast, Multicast, None };

// For one thread. Its socket is opened at the first question, and kept, so that a lack of descriptors later does not make it blind.
class Routes {
 public:
  Routes() = default;
  ~Routes() { closeFd(fd_); }
  Routes(const Routes&) = delete;
  Routes& operator=(const Routes&) = delete;

  // Of a TCP connection to this address and port. None: there is no route. Unknown: the kernel could not be asked; errno says why.
  // *interface: by which it would leave.
  Route to(const Address& destination, int* interface = nullptr);
  // The Ethernet address of a neighbour there. False: none is known, or the kernel does not tell (before Linux 5.0).
  bool macOf(const Address& neighbour, int interface, uint64_t* mac);

 private:
  struct Answer;
  template <typename Question>
  bool ask(Question* question, Answer* answer);

  int fd_ = -1;
  uint32_t sequence_ = 0;
};
