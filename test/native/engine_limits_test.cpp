// What bounds an engine: silence, peers that vanish, descriptors, and the number of its connections.
#include "engine_fixture.h"

namespace {
void idle() {
  Server server;
  EngineOptions few = options();
  few.idleTimeoutMs = 200;
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(server.address));
  });
  const int fd = dialTo(owner.listen(ListenerKind::Redirect));
  bool reset = false;
  // On a busy machine the connection may idle out before the client has sent anything.
  if (sendAll(fd, "x"))
    receiveAll(fd, &reset);
  else
    reset = errno == ECONNRESET;
  CHECK(reset);
  CHECK(eventually([&] { return owner.closed(Reason::Idle) == 1; }));
  closeFd(fd);
  owner.close();
}

// Counts this process's sockets with keepalive, which notice when the other end has vanished.
unsigned keptAlive() {
  unsigned count = 0;
  for (int fd = 3; fd < 1024; ++fd) {
    int isOn = 0;
    int listens = 0;
    socklen_t size = sizeof isOn;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens != 0) continue;
    if (getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &isOn, &size) == 0 && isOn != 0) ++count;
  }
  return count;
}

// Both sockets of both relayed connections have keepalive once the connections have lasted. The redirected client's socket and the test server's
// have it from the beginning.
void vanishedPeers() {
  Server server;
  EngineOptions few = options();
  few.idleTimeoutMs = 16 * 300;
  Owner hag(few, serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  Owner cpe(few, [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, through(entry, server.address, true, true));
  });
  const int fd = dialTo(cpe.listen(ListenerKind::Redirect));
  CHECK(eventually([&] { return cpe.opened == 1 && hag.opened == 1; }));
  CHECK(keptAlive() >= 2);
  CHECK(eventually([&] { return keptAlive() == 5; }));
  shutdown(fd, SHUT_WR);
  CHECK(receiveAll(fd).empty());
  closeFd(fd);
  cpe.close();
  hag.close();
}

// A connection that waits for a pipe idles out: it must not be pumped after its end.
void starvedAndIdle() {
  Server server;
  EngineOptions few = options();
  few.workers = 1;
  few.idleTimeoutMs = 100;
  // The descriptors that the engine keeps for its owner (64, and 2 for each worker), and 4: a listener, the connection's two sockets, and one, too
  // few for a pipe.
  rlimit files;
  CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit low = {descriptors() + 64 + 2 + 4, files.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(server.address));
  });
  CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
  const Address front = owner.listen(ListenerKind::Redirect);
  // On a busy machine a connection may idle out before the client has sent anything. Then the next one is tried.
  bool said = false;
  for (unsigned count = 1; !said && count <= 20; ++count) {
    const int fd = dialTo(front);
    CHECK(eventually([&] { return owner.opened == count; }));
    said = sendAll(fd, "x");
    receiveAll(fd);
    closeFd(fd);
    CHECK(eventually([&] { return owner.closed(Reason::Idle) == count; }));
  }
  CHECK(said);
  usleep(50000);
  CHECK(owner.counters().pipesPooled == 0);
  owner.close();
}

void limits() {
  Server server;
  EngineOptions few = options();
  few.maxConnections = 4;
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(server.address));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  std::vector<int> clients;
  for (unsigned i = 0; i < 20; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return owner.limits == 1; }));
  usleep(300000);
  // Each worker may accept one connection before it sees the count of the others.
  CHECK(owner.limits == 1 && owner.counters().connections <= 4 + 2);
  // All clients end before one is read: those that wait are accepted only when others have ended.
  for (const int fd : clients) shutdown(fd, SHUT_WR);
  for (const int fd : clients) {
    receiveAll(fd);
    closeFd(fd);
  }
  CHECK(eventually([&] { return owner.ended == 20 && owner.limits % 2 == 0; }));
  // A listener is stopped while the limit pauses it.
  clients.clear();
  for (unsigned i = 0; i < 20; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return owner.limits % 2 == 1; }));
  owner.engine().stopListening();
  CHECK(eventually([&] { return owner.limits % 2 == 0; }));
  for (const int fd : clients) closeFd(fd);
  CHECK(eventually([&] { return owner.counters().connections == 0; }));
  owner.close();
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  idle();
  vanishedPeers();
  starvedAndIdle();
  limits();
  CHECK(descriptors() == before);
  return passed();
}
