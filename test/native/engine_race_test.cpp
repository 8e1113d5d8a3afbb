// Attempts that race, are abandoned or lose their HAG, and sockets that go to the owner.
#include "engine_fixture.h"

#include <map>

namespace {
// Three attempts at once: two at the HAG, one at a server that accepts and never answers. One CONNECT arrives a client, with its early data.
void races() {
  Server server;
  const int silent = silentListener();
  for (const bool pipelined : {false, true}) {
    Owner hag(options(), serve);
    const Address entry = hag.listen(ListenerKind::Socks);
    Owner cpe(options(), [&](Engine& engine, const Event& event) {
      if (event.type == Event::Type::Accepted) {
        engine.dial(event.id, through(localAddress(silent), server.address, false, false), 0);
        engine.dial(event.id, through(entry, server.address, pipelined, false), 1);
        engine.dial(event.id, through(entry, server.address, pipelined, false), 2);
        engine.dial(event.id, through(entry, server.address, pipelined, false), 2);  // ignored: the number is taken
      }
      if (event.type == Event::Type::Opened) {
        CHECK(event.attempt == 1 || event.attempt == 2);
        engine.dial(event.id, direct(server.address), 3);  // ignored: decided
      }
    });
    const Address front = cpe.listen(ListenerKind::Redirect);
    constexpr unsigned kCount = 100;
    inParallel(kCount, [&](unsigned i) {
      exchange(dialTo(front), pattern(i, i * 300));
    });
    CHECK(eventually([&] { return cpe.closed(Reason::End) == kCount && hag.closed(Reason::End) == kCount && hag.counters().connections == 0; }));
    CHECK(cpe.opened == kCount && cpe.failed == 0 && hag.seen == kCount && hag.opened == kCount);
    CHECK(eventually([&] { return cpe.counters().descriptors == 3 + 2 * cpe.counters().pipesPooled; }));  // its listeners
    cpe.close();
    hag.close();
  }
  closeFd(silent);
}

// Attempts that fail, win and are joined late, owners' resets, and clients that leave, all at once.
void racesInTurmoil() {
  Server server;
  const int silent = silentListener();
  const Address nobody = nobodyThere();
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  std::map<ConnectionId, std::set<uint32_t>> underWay;  // as the owner knows it; aborted ones are still in it
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    const auto start = [&](uint32_t number) {
      const bool wrong = number == 3;
      DialSpec spec = number == 0 ? through(localAddress(silent), server.address, event.id % 2 == 0, true)
                : number == 1 ? through(nobody, server.address, true, true)
                              : through(entry, server.address, event.id % 3 == 0, true, wrong ? "wrong" : "secret");
      if (number == 0) spec.connectTimeoutMs = spec.handshakeTimeoutMs = 20;
      engine.dial(event.id, spec, number);
      underWay[event.id].insert(number);
    };
    if (event.type == Event::Type::Accepted) {
      for (uint32_t number = 0; number < 4; ++number) start(number);
      if (event.id % 7 == 0) engine.reset(event.id);
    }
    if (event.type == Event::Type::Failed) {
      CHECK(underWay[event.id].count(event.attempt) == 1 && event.left < 5);
      underWay[event.id].erase(event.attempt);
      if (event.left == 0) {
        underWay[event.id].clear();
        start(2);  // the good one, which may have been aborted when another went on alone
      } else if (event.attempt == 1) {
        start(4);
      }
    }
    if (event.type == Event::Type::Opened) CHECK(event.attempt == 2 || event.attempt == 4);
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
    const std::string heard = receiveAll(fd, &reset);
    // The owner's reset is told once, to whatever call comes first.
    if (!sent || !ended) reset = true;
    CHECK(reset || heard == text);  // whole, once, in order
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

// All that goes to a HAG ends, relayed or under way, and nothing else.
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
    if (event.type == Event::Type::Accepted) {
      const unsigned kind = static_cast<unsigned>(event.id / Worker::kMaxWorkers % 3);
      if (kind == 2) ++unheard;
      engine.dial(event.id, through(kind == 0 ? dead : kind == 1 ? alive : quiet, server.address, false, false), kind);
    }
    if (event.type == Event::Type::Failed) {
      CHECK(event.attempt == 2 && event.left == 0 && event.failure.error == ECONNRESET);
      ++lost;
      engine.reset(event.id);
    }
    if (event.type == Event::Type::Closed && event.reason == Reason::UpstreamReset) CHECK(event.failure.error == ECONNRESET);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  std::vector<int> clients;
  for (unsigned i = 0; i < 60; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return cpe.seen == 60 && cpe.opened == 60 - unheard; }));
  const unsigned relayed = cpe.opened;
  CHECK(relayed > 0);
  cpe.engine().resetUpstreams(1, dead);
  cpe.engine().resetUpstreams(2, quiet);
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

// Sockets for the owner: each arrives once; those that are not fetched in time are closed with the engine (main counts descriptors).
void handedOver() {
  Server server;
  const Address nobody = nobodyThere();
  std::atomic<unsigned> usable{0};
  std::atomic<unsigned> refused{0};
  Owner owner(options(), [&](Engine&, const Event& event) {
    if (event.type != Event::Type::Probed) return;
    if (event.fd < 0) {
      CHECK(event.failure.error == ECONNREFUSED && event.stage == Stage::Connect);
      ++refused;
      return;
    }
    CHECK(send(event.fd, "x", 1, MSG_NOSIGNAL) == 1);
    shutdown(event.fd, SHUT_WR);
    pollfd answered = {event.fd, POLLIN, 0};
    char answer = 0;
    CHECK(poll(&answered, 1, 5000) == 1 && recv(event.fd, &answer, 1, 0) == 1 && answer == 'x');
    closeFd(event.fd);
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
  racesInTurmoil();
  aHagThatDied();
  handedOver();
  CHECK(descriptors() == before);
  return passed();
}
