// The bytes that a client has sent by then leave with the handshake of a new connection: a few in the same packet, more in packets of their own.
#include "engine_fixture.h"

#include <netinet/tcp.h>
#include <sys/ioctl.h>

namespace {
// tcpi_data_segs_in (uapi/linux/tcp.h), which the C library's struct lacks.
unsigned packetsWithData(int fd) {
  uint32_t info[64] = {};
  socklen_t size = sizeof info;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 && size >= 156);
  return info[38];
}

void leaves(size_t words, bool isApart) {
  const int hag = silentListener();
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    const auto* const it = std::get_if<Accepted>(&event);
    if (it == nullptr) return;
    usleep(50000);  // until the client has sent all
    DialSpec spec = through(localAddress(hag), localAddress(hag), true, false);
    spec.mptcp = false;
    engine.dial(it->id, spec);
  });
  const int client = dialTo(cpe.listen(ListenerKind::Redirect));
  CHECK(sendAll(client, std::string(words, 'x')));
  int taken = -1;
  CHECK(eventually([&] { return (taken = accept4(hag, nullptr, nullptr, SOCK_CLOEXEC)) >= 0; }));
  const size_t all = 3 + 10 + words;
  int came = 0;
  CHECK(eventually([&] { return ioctl(taken, FIONREAD, &came) == 0 && static_cast<size_t>(came) >= all; }));
  CHECK(static_cast<size_t>(came) == all);
  // A packet on loopback has room for all of it, so a second packet was made on purpose.
  CHECK((packetsWithData(taken) > 1) == isApart);
  for (const int fd : {client, taken, hag}) closeFd(fd);
  cpe.close();
}
}  // namespace

int main() {
  leaves(0, false);
  leaves(1000, false);
  leaves(4096, false);
  leaves(4097, true);
  leaves(30000, true);
  return passed();
}
