// Attempts that race, are abandoned or lose their HAG, and sockets that are handed to the owner.
#include "engine_fixture.h"

#include <map>

namespace {
// Three attempts at once: two at the HAG, one at a server that never answers. For each client one CONNECT arrives, with its early data.
void races() {
  Server server;
  const int silent = silentListener();
  for (const bool pipelined : {false, true}) {
    Owner hag(options(), serve);
    const Address entry = hag.listen(ListenerKind::Socks);
    Owner cpe(options(), [&](Engine& engine, const Event& event) {
      if (const auto* const it = std::get_if<Accepted>(&event)) {
        engine.dial(it->id, through(localAddress(silent), server.address, false, false), 0);
        engine.dial(it->id, through(entry, server.address, pipelined, false), 1);
        engine.dial(it->id, through(entry, server.address, pipelined, false), 2);
        engine.dial(it->id, through(entry, server.address, pipelined, false), 2);  // ignored: the number is taken
      }
      if (const auto* const it = std::get_if<Opened>(&event)) {
        CHECK(it->attempt == 1 || it->attempt == 2);
        engine.dial(it->id, direct(server.address), 3);  // ignored: the race is decided
      }
    });
    const Address front = cpe.listen(ListenerKind::Redirect);
    constexpr unsigned kCount = 100;
    inParallel(kCount, [&](unsigned i) { exchange(dialTo(front), pattern(i, i * 300)); });
    CHECK(eventually([&] { return cpe.closed(Reason::End) == kCount && hag.closed(Reason::End) == kCount && hag.counters().connections == 0; }));
    CHECK(cpe.opened == kCount && cpe.failed == 0 && hag.seen == kCount && hag.opened == kCount);
    CHECK(eventually([&] { return cpe.counters().descriptors == 3 + 2 * cpe.counters().pipesPooled; }));  // its listeners
    cpe.close();
    hag.close();
  }
  closeFd(silent);
}

// A probe that watches its connection: it ends well when its time is over, and at once when the HAG ends the connection.
void watches() {
  Server server;
  auto hag = std::make_unique<Owner>(options(), serve);
  const Address entry = hag->listen(ListenerKind::Socks);
  std::mutex mutex;
  std::vector<Probed> probed;
  Owner cpe(options(), [&](Engine&, const Event& event) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto* const it = std::get_if<Probed>(&event)) probed.push_back(*it);
  });
  const auto count = [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    return probed.size();
  };
  DialSpec spec = through(entry, server.address, false, false);
  spec.mptcp = spec.connectRequest = false;
  spec.watchMs = 2500;
  const auto before = Clock::now();
  cpe.engine().probe(1, spec);
  CHECK(eventually([&] { return count() == 1; }));
  CHECK(probed[0].failure.error == 0 && Clock::now() - before >= std::chrono::milliseconds(2500));
  spec.watchMs = 60000;
  cpe.engine().probe(2, spec);
  CHECK(eventually([&] { return hag->counters().connections == 1; }));
  hag->close();
  CHECK(eventually([&] { return count() == 2; }));
  CHECK(probed[1].failure.error == ECONNRESET && (probed[1].stage == Stage::Watch || probed[1].stage == Stage::Greeting));
  cpe.close();
}

// All at once: attempts that fail, win or are added late, resets by the owner, and clients that leave.
void racesInTurmoil() {
  Server server;
  const int silent = silentListener();
  const Address nobody = nobodyThere();
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  std::map<ConnectionId, std::set<uint32_t>> underWay;  // as the owner knows it: aborted attempts are still in it
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    const auto start = [&](ConnectionId id, uint32_t number) {
      const bool wrong = number == 3;
      DialSpec spec = number == 0   ? through(localAddress(silent), server.address, id % 2 == 0, true)
                      : number == 1 ? through(nobody, server.address, true, true)
                                    : through(entry, server.address, id % 3 == 0, true, wrong ? "wrong" : "secret");
      if (number == 0) spec.connectTimeoutMs = spec.handshakeTimeoutMs = 20;
      engine.dial(id, spec, number);
      underWay[id].insert(number);
    };
    if (const auto* const it = std::get_if<Accepted>(&event)) {
      for (uint32_t number = 0; number < 4; ++number) start(it->id, number);
      if (it->id % 7 == 0) engine.reset(it->id);
    }
    if (const auto* const it = std::get_if<Failed>(&event)) {
      CHECK(underWay[it->id].count(it->attempt) == 1 && it->left < 5);
      underWay[it->id].erase(it->attempt);
      if (it->left == 0) {
        underWay[it->id].clear();
        start(it->id, 2);  // the attempt that works; it may have been aborted when another went on alone
      } else if (it->attempt == 1) {
        start(it->id, 4);
      }
    }
    if (const auto* const it = std::get_if<Opened>(&event)) CHECK(it->attempt == 2 || it->attempt == 4);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  std::atomic<unsigned> whole{0};
  inParallel(300, [&](unsigned i) {
    const int fd = dialTo(front);
    std::mt19937 random(i);
    const std::string text = pattern(i, random() % 30000);
    const bool sent = sendAll(fd, text);
    if (random() % 3 == 0) {
      usleep(static_cast<useconds_t>(random() % 6000));
      return abortFd(fd);
    }
    const bool ended = shutdown(fd, SHUT_WR) == 0;
    bool reset;
    const std::string received = receiveAll(fd, &reset);
    // The kernel reports the owner's reset once, to whichever call comes first.
    if (!sent || !ended) reset = true;
    CHECK(reset || received == text);  // whole, once, in order
    whole += reset ? 0 : 1;
    closeFd(fd);
  });
  CHECK(eventually([&] { return cpe.ended == 300 && hag.counters().connections == 0; }));
  CHECK(whole > 0 && cpe.failed > 0);
  CHECK(eventually([&] { return cpe.counters().descriptors == 3 + 2 * cpe.counters().pipesPooled; }));
  cpe.close();
  hag.close();
  closeFd(silent);
}

// All connections and attempts to one HAG end, and no others.
void aHagThatDied() {
  Server server;
  const int silent = silentListener();
  const Address quiet = localAddress(silent);
  Owner hag(options(), serve);
  const Address dead = hag.listen(ListenerKind::Socks);
  const Address alive = hag.listen(ListenerKind::Socks);
  std::atomic<unsigned> lost{0};
  std::atomic<unsigned> unheard{0};
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) {
      const unsigned kind = static_cast<unsigned>(it->id / Acceptor::kMaxWorkers % 3);
      if (kind == 2) ++unheard;
      engine.dial(it->id, through(kind == 0 ? dead : kind == 1 ? alive : quiet, server.address, false, false), kind);
    }
    if (const auto* const it = std::get_if<Failed>(&event)) {
      CHECK(it->attempt == 2 && it->left == 0 && it->failure.error == ECONNRESET);
      ++lost;
      engine.reset(it->id);
    }
    if (const auto* const it = std::get_if<Closed>(&event); it != nullptr && it->reason == Reason::UpstreamReset)
      CHECK(it->failure.error == ECONNRESET);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  std::vector<int> clients;
  for (unsigned i = 0; i < 60; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return cpe.seen == 60 && cpe.opened == 60 - unheard; }));
  const unsigned relayed = cpe.opened;
  CHECK(relayed > 0);
  cpe.engine().resetConnectionsTo(1, dead);
  cpe.engine().resetConnectionsTo(2, quiet);
  CHECK(eventually([&] { return cpe.counts == 2 && cpe.ended == cpe.counted + lost; }));
  CHECK(cpe.closed(Reason::UpstreamReset) == cpe.counted && cpe.counted > 0 && cpe.counted < relayed);
  CHECK(lost == 60 - relayed && lost > 0);
  for (const int fd : clients) {
    shutdown(fd, SHUT_WR);
    receiveAll(fd);
    closeFd(fd);
  }
  CHECK(eventually([&] { return cpe.ended == 60; }));
  CHECK(cpe.closed(Reason::End) == relayed - cpe.counted);
  cpe.close();
  hag.close();
  closeFd(silent);
}

// Each socket is handed to the owner once. Those that the owner has not fetched are closed with the engine (main() counts descriptors).
void handedOver() {
  Server server;
  const Address nobody = nobodyThere();
  std::atomic<unsigned> usable{0};
  std::atomic<unsigned> refused{0};
  Owner owner(options(), [&](Engine&, const Event& event) {
    const auto* const it = std::get_if<Probed>(&event);
    if (it == nullptr) return;
    if (it->fd < 0) {
      CHECK(it->failure.error == ECONNREFUSED && it->stage == Stage::Connect);
      ++refused;
      return;
    }
    CHECK(send(it->fd, "x", 1, MSG_NOSIGNAL) == 1);
    shutdown(it->fd, SHUT_WR);
    pollfd answered = {it->fd, POLLIN, 0};
    char answer = 0;
    CHECK(poll(&answered, 1, 5000) == 1 && recv(it->fd, &answer, 1, 0) == 1 && answer == 'x');
    closeFd(it->fd);
    ++usable;
  });
  for (unsigned i = 1; i <= 60; ++i) owner.engine().probe(i, direct(i % 3 == 0 ? nobody : server.address), Purpose::HandOver);
  CHECK(eventually([&] { return usable == 40 && refused == 20; }));
  CHECK(eventually([&] { return owner.counters().descriptors == 0; }));
  for (unsigned i = 1; i <= 60; ++i) owner.engine().probe(i, direct(server.address), Purpose::HandOver);
  owner.close();
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  races();
  watches();
  racesInTurmoil();
  aHagThatDied();
  handedOver();
  CHECK(descriptors() == before);
  return passed();
}
