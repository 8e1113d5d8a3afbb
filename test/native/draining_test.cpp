// When the engine is closed, the last bytes of a connection that both ends have ended may still be on their way: they must arrive.
#include "engine_fixture.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

namespace {
// A server sends `text` back through a HAG. The client has not read it yet when the HAG's engine is closed.
void closedBeforeItArrived(const std::string& text) {
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
  if (client < 0) return;  // a kernel without MPTCP
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  const int small = 4096;
  const timeval patience = {20, 0};
  CHECK(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  CHECK(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
  CHECK(connect(client, &entry.sa, sizeof entry.in) == 0);
  const uint16_t port = portOf(server.address);
  CHECK(sendAll(client, {5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, static_cast<char>(port >> 8), static_cast<char>(port)}));
  CHECK(sendAll(client, text));
  shutdown(client, SHUT_WR);
  CHECK(eventually([&] { return hag.opened == 1 && hag.counters().relaying == 0; }));
  CHECK(hag.counters().connections == 1);
  hag.close();
  bool reset;
  const std::string received = receiveAll(client, &reset);
  CHECK(!reset && received.size() == 12 + text.size() && received.substr(12) == text);
  closeFd(client);
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  closedBeforeItArrived(pattern(1, 40000));
  CHECK(descriptors() == before);
  return passed();
}
