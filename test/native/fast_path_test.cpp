// The fast path: clients that need no decision of the owner, redirected by iptables in a network namespace of the test's own.
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <cstring>

#include "engine_fixture.h"

namespace {
constexpr uint16_t kFront = 12345;
constexpr char kElsewhere[] = "192.0.2.9";
constexpr char kBypassed[] = "192.0.2.130";

// Returns false, and prints why, if this machine does not allow it.
bool makeNamespace() {
  if (unshare(CLONE_NEWNET) != 0) {
    std::printf("# skipped: no network namespace can be made: %s\n", strerror(errno));
    return false;
  }
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
  closeFd(fd);
  for (const char* command :
       {"ip route add 192.0.2.0/24 dev lo src 127.0.0.1", "iptables -w -t nat -A OUTPUT -p tcp -d 192.0.2.0/24 -j REDIRECT --to-ports 12345"}) {
    if (std::system(command) == 0) continue;
    std::printf("# skipped: no redirection: %s\n", command);
    return false;
  }
  return true;
}

Address at(const char* text, uint16_t port) {
  Address address;
  CHECK(parseAddress(text, port, &address));
  return address;
}

// Connects every request to the server, whatever its destination.
Owner::Decide serving(const Address& server) {
  return [server](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Credentials>(&event)) engine.authenticate(it->id, it->password == "secret");
    if (const auto* const it = std::get_if<Request>(&event)) {
      CHECK(it->host == kElsewhere || it->host == kBypassed);
      engine.dial(it->id, direct(server));
    }
    if (const auto* const it = std::get_if<Failed>(&event)) engine.refuse(it->id, 5);
  };
}

std::shared_ptr<FastPath> fastPathTo(const Address& hag, bool pipelined, uint64_t id = 1) {
  auto fastPath = std::make_shared<FastPath>();
  fastPath->id = id;
  fastPath->spec = through(hag, hag, pipelined, true);
  fastPath->patienceMs = 5000;
  fastPath->destinations = {{at("192.0.2.128", 0), 25}};
  return fastPath;
}

void listenAtFront(Owner* owner) {
  Address bound;
  Protocol protocol;
  Failure failure;
  CHECK(owner->engine().listen({ListenerKind::Redirect, loopback(kFront), false}, &bound, &protocol, &failure));
}

void give(Owner* owner, const std::shared_ptr<const FastPath>& fastPath) {
  owner->engine().setFastPath(fastPath);
  usleep(20000);  // until every worker has it
}

void exchanged(unsigned i, const char* destination = kElsewhere) { exchange(dialTo(at(destination, 443)), pattern(i, 1 + i * 300)); }

// While the fast path works, the owner gets one event for each connection, at its end, in batches.
void reportedAtTheEnd() {
  Server server;
  for (const bool pipelined : {false, true}) {
    Owner hag(options(), serving(server.address));
    const Address entry = hag.listen(ListenerKind::Socks, true);
    std::atomic<uint64_t> sent{0}, received{0};
    Owner cpe(options(), [&](Engine&, const Event& event) {
      const auto* const it = std::get_if<Closed>(&event);
      CHECK(it != nullptr);
      CHECK(it->fastPathId == 3 && it->reason == Reason::End && sameHost(it->client, loopback()));
      CHECK(sameHost(it->destination, at(kElsewhere, 0)) && portOf(it->destination) == 443);
      sent += it->sent;
      received += it->received;
    });
    listenAtFront(&cpe);
    give(&cpe, fastPathTo(entry, pipelined, 3));
    inParallel(100, [](unsigned i) { exchanged(i); });
    CHECK(eventually([&] { return cpe.ended == 100 && hag.closed(Reason::End) == 100; }));
    CHECK(hag.seen == 100 && cpe.counters().connections == 0);
    CHECK(sent == 1485100 && received == sent);
    CHECK(cpe.batches < 50);
    cpe.close();
    hag.close();
  }
}

// Once the listeners have stopped, ends are reported at once. A client that left before its path was open is not counted for the fast path.
void reportedWhileStopping() {
  Server server;
  const int silent = silentListener();
  Owner hag(options(), serving(server.address));
  const Address entry = hag.listen(ListenerKind::Socks, true);
  std::atomic<unsigned> unopened{0};
  Owner cpe(options(), [&](Engine&, const Event& event) {
    const auto* const it = std::get_if<Closed>(&event);
    CHECK(it != nullptr);
    if (it->fastPathId == 0) ++unopened;
  });
  listenAtFront(&cpe);
  give(&cpe, fastPathTo(entry, true));
  const int client = dialTo(at(kElsewhere, 443));
  CHECK(eventually([&] { return cpe.counters().relaying == 1; }));
  give(&cpe, fastPathTo(localAddress(silent), true));
  const int leaver = dialTo(at(kElsewhere, 443));
  CHECK(eventually([&] { return cpe.counters().connections == 2; }));
  cpe.engine().stopListening();
  usleep(20000);
  const auto start = Clock::now();
  abortFd(leaver);
  exchange(client, "the last words");
  CHECK(eventually([&] { return cpe.ended == 2; }));
  CHECK(Clock::now() - start < std::chrono::milliseconds(800));
  CHECK(unopened == 1 && cpe.closed(Reason::End) == 1 && cpe.closed(Reason::ClientReset) == 1);
  cpe.close();
  hag.close();
  closeFd(silent);
}

// The owner decides about bypassed destinations, and about all once there is no fast path any more.
void asked() {
  Server server;
  Owner hag(options(), serving(server.address));
  const Address entry = hag.listen(ListenerKind::Socks, true);
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    const auto* const it = std::get_if<Accepted>(&event);
    if (it == nullptr) return;
    CHECK(it->fastPathId == 0);
    DialSpec spec = through(entry, it->destination, true, true);
    spec.host = formatAddress(it->destination);
    engine.dial(it->id, spec);
  });
  listenAtFront(&cpe);
  give(&cpe, fastPathTo(entry, true));
  exchanged(1, kBypassed);
  CHECK(eventually([&] { return cpe.ended == 1; }));
  CHECK(cpe.seen == 1 && cpe.opened == 1);
  exchanged(2);
  CHECK(cpe.seen == 1);
  give(&cpe, nullptr);
  exchanged(3);
  CHECK(eventually([&] { return cpe.ended == 3; }));
  CHECK(cpe.seen == 2 && cpe.opened == 2);
  cpe.close();
  hag.close();
}

// The fast path fails, or does not answer in time: then the owner decides, and the client still gets its answer.
void announced() {
  Server server;
  const int silent = silentListener();
  const Address nobody = nobodyThere();
  Owner hag(options(), serving(server.address));
  const Address entry = hag.listen(ListenerKind::Socks, true);
  for (const bool timedOut : {false, true}) {
    Owner cpe(options(), [&](Engine& engine, const Event& event) {
      DialSpec good = through(entry, entry, true, true);
      good.host = kElsewhere;
      if (const auto* const it = std::get_if<Accepted>(&event)) {
        CHECK(it->fastPathId == 7 && it->timedOut == timedOut && sameHost(it->destination, at(kElsewhere, 0)) && portOf(it->destination) == 443);
        CHECK(portOf(it->local) == kFront && sameHost(it->client, loopback()));
        if (timedOut) engine.dial(it->id, good, 1);
      }
      if (const auto* const it = std::get_if<Failed>(&event)) {
        CHECK(!timedOut && it->attempt == 0 && it->left == 0);
        engine.dial(it->id, good, 1);
      }
      if (const auto* const it = std::get_if<Opened>(&event)) CHECK(it->attempt == 1);
    });
    listenAtFront(&cpe);
    const auto fastPath = fastPathTo(timedOut ? localAddress(silent) : nobody, false, 7);
    fastPath->patienceMs = 30;
    give(&cpe, fastPath);
    inParallel(40, [](unsigned i) { exchanged(i); });
    CHECK(eventually([&] { return cpe.closed(Reason::End) == 40; }));
    CHECK(cpe.seen == 40 && cpe.opened == 40 && cpe.failed == (timedOut ? 0 : 40));
    cpe.close();
  }
  hag.close();
  closeFd(silent);
}

// Prepared connections are used, and dead ones are replaced. The owner is told how many clients came.
void prepared() {
  Server server;
  auto hag = std::make_unique<Owner>(options(), serving(server.address));
  const Address entry = hag->listen(ListenerKind::Socks, true);
  std::atomic<unsigned> ready{0}, demand{0}, announcedLate{0};
  Owner cpe(options(), [&](Engine&, const Event& event) {
    if (const auto* const it = std::get_if<Probed>(&event); it != nullptr && it->failure.error == 0) ++ready;
    if (const auto* const it = std::get_if<Demand>(&event)) demand += static_cast<unsigned>(it->clients);
    if (std::holds_alternative<Accepted>(event)) ++announcedLate;
  });
  listenAtFront(&cpe);
  const auto fastPath = fastPathTo(entry, true);
  fastPath->spec.prepared = true;
  give(&cpe, fastPath);
  DialSpec greeting = fastPath->spec;
  greeting.connectRequest = greeting.pipelined = false;
  const auto prepare = [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) cpe.engine().probe(100 + i, greeting, Purpose::Prepare);
  };
  prepare(10);
  CHECK(eventually([&] { return ready == 10; }));
  usleep((PreparedPool::kJoiningMs + 50) * 1000);
  inParallel(15, [](unsigned i) { exchanged(i); });
  CHECK(eventually([&] { return demand == 15; }));
  CHECK(hag->seen == 15 && announcedLate == 0);
  CHECK(eventually([&] { return cpe.engine().keepPrepared({greeting}, 100, 60000).counts == std::vector<uint64_t>{0}; }));

  prepare(4);
  CHECK(eventually([&] { return ready == 14; }));
  hag->close();
  hag = std::make_unique<Owner>(options(), serving(server.address));
  Address bound;
  Protocol protocol;
  Failure failure;
  CHECK(hag->engine().listen({ListenerKind::Socks, entry, true}, &bound, &protocol, &failure));
  usleep((PreparedPool::kJoiningMs + 50) * 1000);
  inParallel(8, [](unsigned i) { exchanged(i); });
  cpe.close();
  hag->close();
}

// All at once: fast paths that change, clients that leave at any moment, a HAG that dies, and WANs that are lost.
void turmoil() {
  Server server;
  const int silent = silentListener();
  Owner hag(options(), serving(server.address));
  const Address entry = hag.listen(ListenerKind::Socks, true);
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    DialSpec good = through(entry, entry, true, true);
    good.host = kElsewhere;
    if (const auto* const it = std::get_if<Accepted>(&event); it != nullptr && it->timedOut) engine.dial(it->id, good, 1);
    if (const auto* const it = std::get_if<Accepted>(&event); it != nullptr && it->fastPathId == 0) engine.reset(it->id);
    if (const auto* const it = std::get_if<Failed>(&event)) engine.reset(it->id);
  });
  listenAtFront(&cpe);
  std::atomic<bool> over{false};
  std::thread owner([&] {
    for (unsigned turn = 0; !over; ++turn) {
      const auto fastPath = fastPathTo(turn % 3 == 0 ? localAddress(silent) : entry, turn % 2 == 0, turn + 1);
      fastPath->patienceMs = turn % 5;
      fastPath->spec.prepared = turn % 4 == 0;
      fastPath->spec.bound = true;
      fastPath->spec.source = loopback();
      cpe.engine().setFastPath(turn % 7 == 0 ? nullptr : fastPath);
      usleep(2000);
      if (turn % 5 == 0) cpe.engine().abandon(loopback());
      if (turn % 11 == 0) cpe.engine().resetConnectionsTo(0, entry);
    }
  });
  inParallel(400, [](unsigned i) { comeAndGo(dialTo(at(kElsewhere, 443)), i); });
  over = true;
  owner.join();
  cpe.close();
  CHECK(eventually([&] { return hag.counters().connections == 0; }));
  hag.close();
  closeFd(silent);
}

// The fast path fails, and the owner, which is asked then, never answers.
void lostAnswer() {
  EngineOptions few = options();
  few.decisionTimeoutMs = 150;
  Owner cpe(few, [](Engine&, const Event&) {});
  listenAtFront(&cpe);
  give(&cpe, fastPathTo(nobodyThere(), true));
  const int client = dialTo(at(kElsewhere, 80));
  bool reset = false;
  receiveAll(client, &reset);
  CHECK(reset);
  CHECK(eventually([&] { return cpe.closed(Reason::Reset) == 1; }));
  CHECK(cpe.failed == 1);
  closeFd(client);
  cpe.close();
}
}  // namespace

int main() {
  if (!makeNamespace()) return passed();
  const unsigned before = descriptors();
  reportedAtTheEnd();
  reportedWhileStopping();
  asked();
  announced();
  lostAnswer();
  prepared();
  turmoil();
  CHECK(descriptors() == before);
  return passed();
}
