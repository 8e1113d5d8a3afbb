// SOCKS5 (RFC 1928) with user and password (RFC 1929): both sides' messages, no I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/socket.h"

namespace socks5 {

// RFC 1928 section 3 leaves 0x80 to 0xfe to private use. kNotAClient: the answer of `bondsocks hag` to a client that is not in its `clients`.
// kBondsocks: a gateway offers it in addition, to find out whether it talks to `bondsocks hag`, which then chooses it and goes on with the
// method that its config wants.
enum Method : uint8_t { kNoAuthentication = 0x00, kUserPassword = 0x02, kBondsocks = 0xfd, kNotAClient = 0xfe, kNoneAcceptable = 0xff };
enum Reply : uint8_t { kSucceeded = 0, kGeneralFailure = 1, kNotAllowed = 2, kCommandNotSupported = 7, kAddressTypeNotSupported = 8 };

// A parser's result. `Complete`: the message has *used bytes; the next one begins behind them.
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
  uint8_t reply = kSucceeded;  // anything but kSucceeded: the message is complete, but answer with this failure
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

// The length of a server's reply. It takes the first 5 bytes to tell; with fewer, returns 5. 0: not SOCKS5.
size_t replyLength(const uint8_t* data, size_t size);

}  // namespace socks5
