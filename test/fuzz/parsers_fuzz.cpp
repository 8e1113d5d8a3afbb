// libFuzzer's target for all that reads what strangers send, or what a config says: both sides of SOCKS5, addresses, and their text; and for
// the numbers that events become on their way to TypeScript. Each parser gets the bytes whole and cut short: it must never read too far, use more
// than there is, or change its mind about what it has read.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "binding/wire.h"
#include "core/socket.h"
#include "handshakes/socks5.h"

namespace {
using socks5::Parsed;

void require(bool isTrue) {
  if (!isTrue) std::abort();
}

// What was complete in a shorter piece is the same in the longer one; what is incomplete is so in every shorter one.
template <typename Parse>
void grows(const uint8_t* data, size_t size, Parse parse) {
  size_t used = 0;
  const Parsed whole = parse(data, size, &used);
  if (whole == Parsed::Complete) require(used <= size);
  const size_t cut = size == 0 ? 0 : data[size - 1] % size;
  size_t usedOfCut = 0;
  const Parsed part = parse(data, cut, &usedOfCut);
  if (part == Parsed::Complete) require(whole == Parsed::Complete && usedOfCut <= cut);
  if (part == Parsed::Invalid) require(whole == Parsed::Invalid);
  if (whole == Parsed::Incomplete) require(part == Parsed::Incomplete);
}

void requests(const uint8_t* data, size_t size) {
  grows(data, size, [](const uint8_t* from, size_t length, size_t* used) {
    socks5::Request request;
    return socks5::parseRequest(from, length, used, &request);
  });
  size_t used = 0;
  socks5::Request request;
  if (socks5::parseRequest(data, size, &used, &request) != Parsed::Complete || request.reply != socks5::kSucceeded) return;
  // What a client would say for it means the same.
  const std::string again = socks5::encodeConnect(request.host, request.port);
  socks5::Request other;
  size_t usedAgain = 0;
  require(socks5::parseRequest(reinterpret_cast<const uint8_t*>(again.data()), again.size(), &usedAgain, &other) == Parsed::Complete);
  require(usedAgain == again.size() && other.port == request.port);
  // An address that came as a name is an address.
  Address address;
  require(other.host == (parseAddress(request.host, 0, &address) ? formatAddress(address) : request.host));
}

void addresses(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const uint16_t port = size > 1 ? static_cast<uint16_t>(data[0] << 8 | data[1]) : uint16_t{0};
  Address address;
  if (!parseAddress(text, port, &address)) return;
  Address again;
  require(parseAddress(formatAddress(address), port, &again) && portOf(again) == port);
  require(sameSocket(again, address) || address.sa.sa_family != again.sa.sa_family);  // v4-mapped becomes IPv4
  for (const unsigned bits : {0U, 1U, 31U, 32U, 33U, 127U, 128U, 4294967295U}) require(sharesBits(address, address, bits));
  const std::string reply = socks5::encodeReply(socks5::kSucceeded, address);
  require(socks5::replyLength(reinterpret_cast<const uint8_t*>(reply.data()), reply.size()) == reply.size());
}

// No event may take more room than hasRoom() has looked for.
void numbers(const uint8_t* data, size_t size) {
  struct {
    uint8_t type, reason, protocol, prepared, attempt, error;
    Address client, destination, local;
    uint64_t id, sent, received, milliseconds;
  } input = {};
  std::memcpy(static_cast<void*>(&input), data, std::min(size, sizeof input));
  const Failure failure = {input.error % 2, ""};
  const Protocol protocol = static_cast<Protocol>(input.protocol % 3);
  const Reason reason = static_cast<Reason>(input.reason % 7);
  const uint64_t fastPathId = input.attempt % 2;
  Event event;
  switch (input.type % 4) {
    case 0:
      event = Accepted{input.id, input.client, input.destination, input.local, fastPathId, input.error % 2 == 1};
      break;
    case 1:
      event = Opened{input.id, input.attempt, input.local, protocol, input.prepared % 2 == 1};
      break;
    case 2:
      event = Closed{input.id, reason, failure, input.client, input.destination, fastPathId, input.sent, input.received, input.milliseconds};
      break;
    default:
      event = Failed{input.id, input.attempt, 0, 0, Stage::Connect, failure};
  }
  double* const room = new double[Numbers::kMax];  // exactly, for AddressSanitizer
  Numbers numbers(room, Numbers::kMax);
  require(numbers.hasRoom());
  const bool isWhole = numbers.add(event);
  require(numbers.count() >= 1 && numbers.count() <= Numbers::kMax && !numbers.hasRoom());
  require(isWhole == (room[0] != static_cast<double>(Kind::Object)));
  if (isWhole) require(room[1] == static_cast<double>(input.id));
  delete[] room;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  grows(data, size, [](const uint8_t* from, size_t length, size_t* used) {
    socks5::Offer offer;
    return socks5::parseGreeting(from, length, used, &offer);
  });
  grows(data, size, [](const uint8_t* from, size_t length, size_t* used) {
    std::string username, password;
    return socks5::parseCredentials(from, length, used, &username, &password);
  });
  requests(data, size);
  const size_t reply = socks5::replyLength(data, size);
  require(reply <= 5 + 255 + 2 && (size >= 5 || reply == 5 || reply == 0));
  addresses(data, size);
  numbers(data, size);
  return 0;
}
