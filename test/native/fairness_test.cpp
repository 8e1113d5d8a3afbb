// Connections that could each keep their worker busy forever, and beside them one that seldom sends a byte.
#include "engine_fixture.h"

#include <algorithm>

namespace {
constexpr unsigned kFloods = 6;

// If the client sends `f`, sends as long as somebody reads. Otherwise sends back what comes.
void floodOrEcho(int fd) {
  const std::string much(1 << 20, 'x');
  char byte;
  if (recv(fd, &byte, 1, 0) == 1 && byte == 'f') {
    while (send(fd, much.data(), much.size(), MSG_NOSIGNAL) > 0) {
    }
  } else {
    while (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1) {
    }
  }
  closeFd(fd);
}

int askFor(char what, const Address& front) {
  const int fd = dialTo(front);
  CHECK(sendAll(fd, {what}));
  return fd;
}

// The bytes that the floods received while each byte of another connection went to the server and back, sorted.
std::vector<uint64_t> betweenWordAndEcho(const Address& front, const std::atomic<uint64_t>& flooded) {
  std::vector<uint64_t> all;
  const int fd = askFor('e', front);
  for (const auto until = Clock::now() + std::chrono::milliseconds(1500); Clock::now() < until; usleep(2000)) {
    const uint64_t before = flooded;
    char byte = 'x';
    CHECK(sendAll(fd, {byte}) && recv(fd, &byte, 1, 0) == 1);
    all.push_back(flooded - before);
  }
  closeFd(fd);
  std::sort(all.begin(), all.end());
  return all;
}

void floodsLeaveOthersTheirTurns() {
  const int listener = silentListener();
  std::vector<std::thread> servers, clients;
  std::thread accepting([&] {
    pollfd waiting = {listener, POLLIN, 0};
    while (servers.size() < kFloods + 1) {
      CHECK(poll(&waiting, 1, 20000) == 1);
      servers.emplace_back(floodOrEcho, accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    }
  });
  EngineOptions one = options();
  one.workers = 1;
  Owner owner(one, [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(localAddress(listener)));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  std::atomic<bool> over{false};
  std::atomic<uint64_t> flooded{0};
  for (unsigned i = 0; i < kFloods; ++i) {
    clients.emplace_back([&] {
      const int fd = askFor('f', front);
      std::string buffer(1 << 20, '\0');
      while (!over) flooded += static_cast<uint64_t>(std::max<ssize_t>(0, recv(fd, buffer.data(), buffer.size(), 0)));
      abortFd(fd);
    });
  }
  CHECK(eventually([&] { return owner.counters().relaying == kFloods && flooded > (100U << 20); }));
  const std::vector<uint64_t> between = betweenWordAndEcho(front, flooded);
  over = true;
  for (auto& thread : clients) thread.join();
  accepting.join();
  for (auto& thread : servers) thread.join();
  owner.close();
  closeFd(listener);
  // The byte and its echo wait for one turn each, behind half a megabyte of every flood. Without turns it was 30 to 340 MB.
  CHECK(between[between.size() * 9 / 10] < (24U << 20));
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  floodsLeaveOthersTheirTurns();
  CHECK(descriptors() == before);
  return passed();
}
