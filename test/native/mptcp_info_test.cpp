// What is said of a connection's subflows while it lives and after it ended. Where this kernel has no MPTCP, of a TCP connection.
#include "mptcp_info.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "check.h"

namespace {
int wait(int fd, short events) {
  pollfd waiting = {fd, events, 0};
  return poll(&waiting, 1, 5000);
}
}  // namespace

int main() {
  Address address;
  CHECK(parseAddress("127.0.0.1", 0, &address));
  Protocol protocol;
  Failure failure;
  const int listener = listenSocket(address, true, false, &protocol, &failure);
  CHECK(listener >= 0);
  address = localAddress(listener);
  const int client = dialSocket(address, nullptr, true, &protocol, &failure);
  CHECK(client >= 0 && wait(client, POLLOUT) == 1 && socketError(client) == 0 && wait(listener, POLLIN) == 1);
  const int server = accept(listener, nullptr, nullptr);
  CHECK(server >= 0 && protocolOf(client) == protocol);

  // Both ends use BBR where this kernel has it.
  Protocol plain;
  const int any = dialSocket(address, nullptr, false, &plain, &failure);
  const bool hasBbr = setsockopt(any, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3) == 0;
  closeFd(any);
  for (const int end : {client, server}) {
    char name[16] = "";
    socklen_t length = sizeof name;
    CHECK(getsockopt(end, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0);
    CHECK(!hasBbr || protocolOf(end) != Protocol::Mptcp || std::string(name) == "bbr");
  }

  // What waited for long sends as before, by the congestion control that it had.
  for (const int end : {client, server}) {
    char before[16] = "", after[16] = "";
    socklen_t length = sizeof before;
    CHECK(getsockopt(end, IPPROTO_TCP, TCP_CONGESTION, before, &length) == 0);
    startAfresh(end);
    length = sizeof after;
    CHECK(getsockopt(end, IPPROTO_TCP, TCP_CONGESTION, after, &length) == 0 && std::string(before) == after);
  }

  const std::string text(20000, 'x');
  CHECK(send(server, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) && wait(client, POLLIN) == 1);
  const auto subflows = subflowsOf(client);
  for (const Subflow& subflow : subflows) {
    CHECK(portOf(subflow.remote) == portOf(address) && portOf(subflow.local) == portOf(localAddress(client)));
    CHECK(subflow.bytesReceived > 0 && subflow.rttUs > 0);
  }
  CHECK(protocol == Protocol::Mptcp ? subflows.size() <= 1 : subflows.empty());
  CHECK(!hasNoSubflow(client));

  CHECK(!hasHeardEnd(client));

  // Both have ended it. What was not read yet needs no subflow any more: it may still be on its way to somebody slow.
  shutdown(client, SHUT_WR);
  char end;
  CHECK(wait(server, POLLIN) == 1 && recv(server, &end, 1, 0) == 0);
  closeFd(server);
  CHECK(wait(client, POLLHUP) == 1);
  while (!subflowsOf(client).empty()) CHECK(poll(nullptr, 0, 10) == 0);
  CHECK(hasHeardEnd(client));
  std::string heard(30000, '\0');
  CHECK(recv(client, &heard[0], heard.size(), MSG_WAITALL) == static_cast<ssize_t>(text.size()));
  CHECK(hasHeardEnd(client));
  closeFd(client);
  closeFd(listener);
  return passed();
}
