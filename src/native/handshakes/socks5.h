// SOCKS5 (RFC 1928) with user and password (RFC 1929): both sides' messages, no I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/socket.h"

namespace socks5 {

// RFC 1928 section 3 leaves 0x80 to 0xfe to private use. kNotAClient: what `bondsocks hag` says to whoever is not in its `clients`.
// kBondsocks: a gateway that offers it, too, asks whether it talks to `bondsocks hag`. One that is chooses it, and goes on as with the
// method that its config wants.
enum Method : uint8_t { kNoAuthentication = 0x00, kUserPassword = 0x02, kBondsocks = 0xfd, kNotAClient = 0xfe, kNoneAcceptable = 0xff };
enum Reply : uint8_t { kSucceeded = 0, kGeneralFailure = 1, kNotAllowed = 2, kCommandNotSupported = 7, kAddressTypeNotSupported = 8 };

// What a parser made of the bytes so far. `Complete`: *used bytes belong to this message, what follows to the next.
enum class Parsed { Incomplete, Complete, Invalid };

// The server's view of a client's messages.
struct Offer {
  bool none = false;
  bool password = false;
  bool bondsocks = false;
};
Parsed parseGreeting(const uint8_t* data, size_t size, size_t* used, Offer* offer);
Parsed parseCredentials(const uint8_t* data, size_t size, size_t* used, std::string* username, std::string* password);

struct Request {
  uint8_t reply = kSucceeded;  // not kSucceeded: complete, but answer with this failure
  std::string host;            // IP literal or domain name
  uint16_t port = 0;
};
Parsed parseRequest(const uint8_t* data, size_t size, size_t* used, Request* request);

// RFC 1928 section 6, with the address that the server connected from.
std::string encodeReply(uint8_t reply, const Address& bound);

// The client's messages.
std::string encodeGreeting(bool withPassword);
std::string encodeCredentials(const std::string& username, const std::string& password);
std::string encodeConnect(const std::string& host, uint16_t port);

// How long a server's reply is, as far as its first bytes tell; at least 5 are needed to know (fewer: 5 is returned). 0: not SOCKS5.
size_t replyLength(const uint8_t* data, size_t size);

}  // namespace socks5
