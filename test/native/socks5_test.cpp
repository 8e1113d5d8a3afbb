// The SOCKS5 codec: the server's side reads what the client's side writes, however it is split, and no input makes it read too far. Also the
// client's steps.
#include "handshakes/socks5.h"
#include "handshakes/socks5_client.h"

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "check.h"

using socks5::Parsed;

namespace {
const uint8_t* bytes(const std::string& text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// A copy of exactly `size` bytes on the heap, so that AddressSanitizer sees every byte read too far.
template <typename Parse>
Parsed parseFirst(const std::string& text, size_t size, Parse parse) {
  const std::vector<uint8_t> exact(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
  return parse(exact.data(), exact.size());
}

// Every prefix is incomplete. The whole message uses only its own bytes, even if another one follows.
template <typename Parse>
void splits(const std::string& text, const size_t* used, Parse parse) {
  for (size_t size = 0; size < text.size(); ++size) CHECK(parseFirst(text, size, parse) == Parsed::Incomplete);
  CHECK(parseFirst(text, text.size(), parse) == Parsed::Complete);
  CHECK(*used == text.size());
  const std::string longer = text + "payload";
  CHECK(parseFirst(longer, longer.size(), parse) == Parsed::Complete);
  CHECK(*used == text.size());
}

void greetings() {
  size_t used = 0;
  socks5::Offer offer;
  const auto parse = [&](const uint8_t* data, size_t size) { return socks5::parseGreeting(data, size, &used, &offer); };
  splits(socks5::encodeGreeting(false), &used, parse);
  CHECK(offer.none && !offer.password && !offer.bondsocks);
  splits(socks5::encodeGreeting(true), &used, parse);
  CHECK(!offer.none && offer.password && !offer.bondsocks);
  splits(std::string("\5\3\1\2\0", 5), &used, parse);
  CHECK(offer.none && offer.password);
  splits(std::string("\5\2\xfd\2"), &used, parse);
  CHECK(!offer.none && offer.password && offer.bondsocks);
  splits(std::string("\5\xff") + std::string(255, '\x80'), &used, parse);
  CHECK(!offer.none && !offer.password && !offer.bondsocks);
  CHECK(parseFirst("\4", 1, parse) == Parsed::Invalid);
  CHECK(parseFirst("GET / HTTP/1.1", 14, parse) == Parsed::Invalid);
  CHECK(parseFirst(std::string("\5\0", 2), 2, parse) == Parsed::Invalid);
}

void credentials() {
  size_t used = 0;
  std::string username;
  std::string password;
  const auto parse = [&](const uint8_t* data, size_t size) { return socks5::parseCredentials(data, size, &used, &username, &password); };
  for (const size_t size : {size_t{0}, size_t{1}, size_t{255}}) {
    const std::string user(size, 'u');
    const std::string secret(255 - size, '\xfe');
    splits(socks5::encodeCredentials(user, secret), &used, parse);
    CHECK(username == user && password == secret);
  }
  CHECK(parseFirst("\5", 1, parse) == Parsed::Invalid);
}

void requests() {
  size_t used = 0;
  socks5::Request request;
  const auto parse = [&](const uint8_t* data, size_t size) {
    request = {};
    return socks5::parseRequest(data, size, &used, &request);
  };
  for (const std::string& host : {std::string("192.0.2.1"), std::string("2001:db8::1"), std::string("example.org"), std::string(255, 'x')}) {
    splits(socks5::encodeConnect(host, 65432), &used, parse);
    CHECK(request.host == host && request.port == 65432 && request.reply == socks5::kSucceeded);
  }
  CHECK(socks5::encodeConnect("192.0.2.1", 80) == std::string("\5\1\0\1\xc0\0\2\1\0\x50", 10));
  CHECK(socks5::encodeConnect("a.b", 443) == std::string("\5\1\0\3\3a.b\1\xbb", 10));

  std::string bind = socks5::encodeConnect("192.0.2.1", 80);
  bind[1] = 2;
  CHECK(parseFirst(bind, bind.size(), parse) == Parsed::Complete && request.reply == socks5::kCommandNotSupported);
  CHECK(parseFirst(std::string("\5\1\0\2", 4), 4, parse) == Parsed::Complete && request.reply == socks5::kAddressTypeNotSupported);
  CHECK(parseFirst(std::string("\5\1\0\3\0\0\x50", 7), 7, parse) == Parsed::Invalid);
  CHECK(parseFirst(std::string("\5\1\0\3\3a\0b\0\x50", 10), 10, parse) == Parsed::Invalid);
  CHECK(parseFirst("\4", 1, parse) == Parsed::Invalid);
}

void replies() {
  Address address;
  CHECK(parseAddress("198.51.100.7", 1080, &address));
  const std::string four = socks5::encodeReply(socks5::kSucceeded, address);
  CHECK(four == std::string("\5\0\0\1\xc6\x33\x64\7\4\x38", 10));
  CHECK(socks5::replyLength(bytes(four), four.size()) == 10);
  CHECK(parseAddress("2001:db8::1", 1080, &address));
  const std::string six = socks5::encodeReply(5, address);
  CHECK(six.size() == 22 && six[1] == 5 && socks5::replyLength(bytes(six), 5) == 22);
  CHECK(socks5::encodeReply(1, noAddress()) == std::string("\5\1\0\1\0\0\0\0\0\0", 10));
  for (size_t size = 0; size < 5; ++size) CHECK(socks5::replyLength(bytes(four), size) == 5);
  CHECK(socks5::replyLength(bytes(std::string("\5\0\0\3\4", 5)), 5) == 11);
  CHECK(socks5::replyLength(bytes(std::string("\5\0\0\2\4", 5)), 5) == 0);
  CHECK(socks5::replyLength(bytes("\4"), 1) == 0);
}

void noise() {
  std::mt19937 random(1928);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  while (std::chrono::steady_clock::now() < until) {
    std::string text(random() % 600, '\0');
    for (char& one : text) one = static_cast<char>(random());
    // Most messages begin correctly. Otherwise nearly all would be rejected at the first byte.
    if (text.size() > 4 && random() % 8 != 0) {
      text[0] = static_cast<char>(random() % 2 == 0 ? 5 : 1);
      text[3] = static_cast<char>(random() % 5);
    }
    size_t used = 0;
    socks5::Offer offer;
    std::string first, second;
    socks5::Request request;
    const auto within = [&](Parsed parsed) { CHECK(parsed != Parsed::Complete || used <= text.size()); };
    within(parseFirst(text, text.size(), [&](auto* data, size_t size) { return socks5::parseGreeting(data, size, &used, &offer); }));
    within(parseFirst(text, text.size(), [&](auto* data, size_t size) { return socks5::parseCredentials(data, size, &used, &first, &second); }));
    within(parseFirst(text, text.size(), [&](auto* data, size_t size) { return socks5::parseRequest(data, size, &used, &request); }));
    parseFirst(text, text.size(), [](auto* data, size_t size) {
      CHECK(socks5::replyLength(data, size) <= 5 + 255 + 2);
      return Parsed::Complete;
    });
  }
}
// Gives the client one answer after the other, and of each only as many bytes as it expects.
Socks5Client::Outcome answered(bool withPassword, const std::vector<std::string>& answers, int* reply = nullptr) {
  Socks5Client client(withPassword);
  auto outcome = Socks5Client::Outcome::Next;
  for (const std::string& answer : answers) {
    CHECK(outcome == Socks5Client::Outcome::Next);
    std::string input;
    do {
      const size_t size = client.expected(input);
      if (size == 0) return Socks5Client::Outcome::NotSocks;
      CHECK(size > input.size() && size <= answer.size());
      input = answer.substr(0, size);
      outcome = client.take(input);
    } while (outcome == Socks5Client::Outcome::More);
    CHECK(outcome != Socks5Client::Outcome::Opened || input.size() == answer.size());
  }
  if (reply != nullptr) *reply = client.reply();
  return outcome;
}

void clientSteps() {
  using Outcome = Socks5Client::Outcome;
  const std::string none("\x05\x00", 2), password("\x05\x02", 2), accepted("\x01\x00", 2), refused("\x01\x01", 2);
  Address bound = noAddress();
  CHECK(parseAddress("2001:db8::1", 443, &bound));
  const std::string opened = socks5::encodeReply(socks5::kSucceeded, bound);
  const std::string named(
      "\x05\x00\x00\x03\x02"
      "ab\x01\xbb",
      9);
  int reply = -1;
  CHECK(answered(false, {none, opened}) == Outcome::Opened);
  CHECK(answered(false, {none, named}) == Outcome::Opened);
  CHECK(answered(true, {password, accepted, opened}) == Outcome::Opened);
  CHECK(answered(true, {password, accepted}) == Outcome::Next);
  CHECK(answered(true, {password, accepted, socks5::encodeReply(5, noAddress())}, &reply) == Outcome::Failed && reply == 5);
  CHECK(answered(true, {password, refused}) == Outcome::Refused);
  CHECK(answered(true, {password, none}) == Outcome::NotSocks);
  CHECK(answered(true, {none}) == Outcome::NotSocks);
  CHECK(answered(false, {password}) == Outcome::NotSocks);
  CHECK(answered(false, {"\x05\xff"}) == Outcome::Refused);
  CHECK(answered(false, {"\x05\xfe"}) == Outcome::NotAClient);
  CHECK(answered(false, {"HTTP/1.1 400"}) == Outcome::NotSocks);
  CHECK(answered(false, {none, "HTTP/1.1 400"}) == Outcome::NotSocks);
}
}  // namespace

int main() {
  clientSteps();
  greetings();
  credentials();
  requests();
  replies();
  noise();
  return passed();
}
