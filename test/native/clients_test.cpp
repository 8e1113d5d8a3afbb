// Shares, refusals and the lobby, without sockets.
#include "core/clients.h"

#include "check.h"
#include "core/refusals.h"
#include "engine/lobby.h"

namespace {
Address at(const char* text) {
  Address address;
  CHECK(parseAddress(text, 1, &address));
  return address;
}

void shares() {
  Shares shares;
  const auto take = [&shares](const char* client, uint64_t limit) { return shares.take(sourceOf(at(client)), limit); };
  for (int i = 0; i < 3; ++i) CHECK(take("192.0.2.1", 3));
  CHECK(!take("192.0.2.1", 3));
  CHECK(take("192.0.2.2", 3));
  shares.giveBack(sourceOf(at("192.0.2.1")));
  CHECK(take("192.0.2.1", 3));
  // An IPv6 network of 64 bits counts as one client.
  CHECK(take("2001:db8::1", 2) && take("2001:db8::ffff:1", 2));
  CHECK(!take("2001:db8::2", 2));
  CHECK(take("2001:db8:0:1::1", 2));
  CHECK(sourceOf(at("2001:db8::1")) == sourceOf(at("2001:db8::2")) && sourceOf(at("192.0.2.1")) != sourceOf(at("192.0.2.2")));
  // No limit.
  for (int i = 0; i < 10; ++i) CHECK(take("192.0.2.9", 0));
  for (int i = 0; i < 10; ++i) shares.giveBack(sourceOf(at("192.0.2.9")));
}

void refusals() {
  Refusals refusals;
  CHECK(refusals.add(RefusalCause::Share, at("192.0.2.1"), noAddress()));
  CHECK(!refusals.add(RefusalCause::Share, at("192.0.2.1"), noAddress()));
  CHECK(!refusals.add(RefusalCause::NotAClient, at("192.0.2.1"), noAddress()));
  CHECK(refusals.take().size() == 2);
  CHECK(refusals.take().empty());
  // However many clients are refused, the list is bounded, and every refusal is counted.
  for (unsigned i = 0; i < 100000; ++i) {
    Address client = at("10.0.0.0");
    client.in.sin_addr.s_addr += htonl(i);
    CHECK(refusals.add(RefusalCause::NotAClient, client, noAddress()) == (i == 0));
  }
  uint64_t count = 0;
  const std::vector<Refusal> taken = refusals.take();
  CHECK(taken.size() < 1000);
  for (const Refusal& one : taken) count += one.count;
  CHECK(count == 100000);
}

void lobby() {
  Lobby lobby;
  CHECK(lobby.firstToGo() == 0);
  lobby.enter(at("192.0.2.1"), 1);
  lobby.enter(at("192.0.2.2"), 2);
  CHECK(lobby.firstToGo() == 1);
  lobby.enter(at("192.0.2.2"), 3);
  CHECK(lobby.firstToGo() == 2);
  lobby.leave(at("192.0.2.2"), 2);
  CHECK(lobby.firstToGo() == 1);
  lobby.leave(at("192.0.2.1"), 1);
  lobby.leave(at("192.0.2.1"), 1);
  lobby.leave(at("192.0.2.7"), 9);
  CHECK(lobby.firstToGo() == 3);
  lobby.enter(at("192.0.2.2"), 3);
  lobby.leave(at("192.0.2.2"), 3);
  CHECK(lobby.firstToGo() == 0);
}
}  // namespace

int main() {
  shares();
  refusals();
  lobby();
  return passed();
}
