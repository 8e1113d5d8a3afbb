// What connections with large receive buffers are charged while they move, rest, move again and end.
#include "engine/buffers.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "check.h"

namespace {
constexpr int64_t kMega = 1024 * 1024;
constexpr int64_t kLimit = 32 * kMega;
constexpr int kSize = 2 * 1024 * 1024;
constexpr uint64_t kRestMs = 10 * 1000;
const Source one = {1, 1};

std::pair<int, int> tcpPair() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
  listen(listener, 1);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const int near = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(near, reinterpret_cast<sockaddr*>(&address), size) == 0);
  const int far = accept(listener, nullptr, nullptr);
  close(listener);
  return {near, far};
}

struct Relayed {
  std::pair<int, int> client = tcpPair();
  std::pair<int, int> upstream = tcpPair();
  Connection connection;
  Relayed() {
    connection.sharer = one;
    connection.client.fd = client.first;
    connection.upstream.fd = upstream.first;
    connection.client.protocol = connection.upstream.protocol = Protocol::Tcp;
  }
  ~Relayed() {
    for (const int fd : {client.first, client.second, upstream.first, upstream.second}) close(fd);
  }
};

// All connections rest, then all begin at once: their other ends may fill the buffers, so the sum of the buffers must be bounded.
void restedConnectionsStayBounded() {
  BufferBudget budget;
  BufferBudget idle;
  budget.setLimit(kLimit);
  idle.setLimit(kLimit);
  Buffers buffers(&budget, &idle);
  const int64_t offered = budget.offered(one);
  std::vector<std::unique_ptr<Relayed>> all;
  int64_t held = 0;
  for (int wave = 0; wave < 4; ++wave) {
    // Large buffers, until the client holds its half.
    while (!budget.isOverdrawn(one)) {
      all.push_back(std::make_unique<Relayed>());
      Connection* const connection = &all.back()->connection;
      buffers.begin(connection);
      CHECK(holdReceiveBuffer(&connection->backward, connection->upstream, kSize));
      held += receiveBuffer(connection->upstream);
      buffers.countBulk(connection, backwardOf(connection));
      CHECK(connection->backward.charged >= kSize);
      connection->upstream.readable = connection->client.readable = false;
    }
    for (auto& relayed : all) buffers.letRest(&relayed->connection, kRestMs);
  }
  CHECK(held <= 2 * kLimit);
  for (auto& relayed : all) CHECK(relayed->connection.backward.charged > 0 || relayed->connection.backward.chargedIdle == kSize);
  Connection* const first = &all.front()->connection;
  CHECK(first->backward.charged == 0);
  buffers.countBulk(first, backwardOf(first));
  CHECK(first->backward.charged >= kSize && first->backward.chargedIdle == 0);
  for (auto& relayed : all) {
    buffers.forget(&relayed->connection, &relayed->connection.forward);
    buffers.forget(&relayed->connection, &relayed->connection.backward);
  }
  CHECK(budget.offered(one) == offered && idle.offered(one) == offered);
}

// While a connection rests, its buffer keeps its size. Otherwise the kernel would let it grow with the next bytes, before they are charged.
void restKeepsTheSize() {
  BufferBudget budget;
  BufferBudget idle;
  budget.setLimit(1000 * kMega);
  idle.setLimit(1000 * kMega);
  Buffers buffers(&budget, &idle);
  Relayed relayed;
  Connection* const connection = &relayed.connection;
  buffers.begin(connection);
  CHECK(!buffers.countBulk(connection, backwardOf(connection)) && !connection->backward.isHeld);
  const int size = receiveBuffer(connection->upstream);
  connection->upstream.readable = false;
  CHECK(!buffers.letRest(connection, kRestMs - 1) && connection->backward.charged > 0);
  CHECK(buffers.letRest(connection, kRestMs) && connection->upstream.readable);
  CHECK(connection->backward.charged == 0 && connection->backward.isHeld && receiveBuffer(connection->upstream) == size);
  buffers.forget(connection, &connection->backward);
}
}  // namespace

int main() {
  restedConnectionsStayBounded();
  restKeepsTheSize();
  return passed();
}
