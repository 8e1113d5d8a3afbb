// Prepared connections, opened and greeted in advance: used, found dead, closed, and all of that at once.
#include "engine_fixture.h"

namespace {
DialSpec greeting(const Address& hag) {
  DialSpec spec = through(hag, hag, false, true);
  spec.connectRequest = false;
  return spec;
}

// A CPE that tries a prepared connection first, and counts events.
class Cpe {
 public:
  Cpe(const Address& hag, const Address& server)
      : owner(options(), [this, hag, server](Engine& engine, const Event& event) {
          if (const auto* const it = std::get_if<Accepted>(&event)) {
            DialSpec spec = through(hag, server, it->id % 2 == 0, true);
            spec.prepared = true;
            engine.dial(it->id, spec);
          }
          if (const auto* const it = std::get_if<Opened>(&event); it != nullptr && it->prepared) ++prepared;
          if (const auto* const it = std::get_if<Probed>(&event); it != nullptr && it->failure.error == 0) ++ready;
          if (const auto* const it = std::get_if<Failed>(&event)) engine.reset(it->id);
        }) {}
  void prepare(const Address& hag, unsigned count) {
    for (unsigned i = 0; i < count; ++i) owner.engine().probe(++asked_, greeting(hag), Purpose::Prepare);
  }
  void serve(const Address& front, unsigned count) {
    inParallel(count, [&front](unsigned i) { exchange(dialTo(front), pattern(i, i * 300)); });
  }
  std::atomic<unsigned> ready{0}, prepared{0};
  Owner owner;

 private:
  std::atomic<uint64_t> asked_{0};
};

void used() {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  Cpe cpe(entry, server.address);
  const Address front = cpe.owner.listen(ListenerKind::Redirect);
  cpe.prepare(entry, 10);
  CHECK(eventually([&] { return cpe.ready == 10; }));
  CHECK(cpe.owner.engine().keepPrepared({greeting(entry)}, 100, 60000).counts == std::vector<uint64_t>{10});
  usleep((PreparedPool::kJoiningMs + 50) * 1000);
  cpe.serve(front, 30);
  CHECK(cpe.prepared == 10);
  CHECK(eventually([&] { return cpe.owner.closed(Reason::End) == 30 && hag.closed(Reason::End) == 30; }));

  // Another password means another path. Connections over paths that are not asked for, or that are too old, are closed.
  cpe.prepare(entry, 3);
  CHECK(eventually([&] { return cpe.ready == 13; }));
  DialSpec other = greeting(entry);
  other.password = "another";
  CHECK((cpe.owner.engine().keepPrepared({other, greeting(entry)}, 100, 60000).counts == std::vector<uint64_t>{0, 3}));
  usleep(20000);
  CHECK((cpe.owner.engine().keepPrepared({greeting(entry)}, 100, 10).counts == std::vector<uint64_t>{0}));
  CHECK(eventually([&] { return hag.counters().connections == 0; }));
  cpe.prepare(entry, 3);
  CHECK(eventually([&] { return cpe.ready == 16; }));
  cpe.owner.close();  // checks that no descriptor is left
  hag.close();
}

// The HAG has ended the prepared connections, or another one has taken its place: clients notice nothing.
void foundDead() {
  Server server;
  auto hag = std::make_unique<Owner>(options(), serve);
  const Address entry = hag->listen(ListenerKind::Socks, true);
  Cpe cpe(entry, server.address);
  const Address front = cpe.owner.listen(ListenerKind::Redirect);
  cpe.prepare(entry, 8);
  CHECK(eventually([&] { return cpe.ready == 8; }));
  hag->close();
  hag = std::make_unique<Owner>(options(), serve);
  Address bound;
  Protocol protocol;
  Failure failure;
  CHECK(hag->engine().listen({ListenerKind::Socks, entry, true}, &bound, &protocol, &failure));
  cpe.serve(front, 20);
  CHECK(cpe.prepared == 0);
  CHECK(eventually([&] { return cpe.owner.closed(Reason::End) == 20; }));
  cpe.prepare(entry, 2);
  CHECK(eventually([&] { return cpe.ready == 10; }));
  hag->close();
  usleep(20000);
  const PreparedPool::Kept kept = cpe.owner.engine().keepPrepared({greeting(entry)}, 100, 60000);
  CHECK(kept.counts == std::vector<uint64_t>{0} && kept.endedMs >= 1);
  cpe.owner.close();
}

void turmoil() {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  Cpe cpe(entry, server.address);
  const Address front = cpe.owner.listen(ListenerKind::Redirect);
  std::atomic<bool> over{false};
  std::thread owner([&] {
    for (unsigned turn = 0; !over; ++turn) {
      cpe.prepare(entry, 4);
      usleep(3000);
      cpe.owner.engine().keepPrepared({greeting(entry)}, turn % 5, turn % 3 == 0 ? 1 : 60000);
      if (turn % 7 == 0) cpe.owner.engine().resetConnectionsTo(0, entry);
    }
  });
  inParallel(400, [&front](unsigned i) { comeAndGo(dialTo(front), i); });
  over = true;
  owner.join();
  cpe.owner.close();
  CHECK(eventually([&] { return hag.counters().connections == 0; }));
  hag.close();
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  used();
  foundDead();
  turmoil();
  CHECK(descriptors() == before);
  return passed();
}
