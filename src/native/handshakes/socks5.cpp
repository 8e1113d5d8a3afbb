#include "handshakes/socks5.h"

#include <arpa/inet.h>
#include <string.h>

namespace socks5 {
namespace {
constexpr uint8_t kVersion = 5;
constexpr uint8_t kCredentialsVersion = 1;
constexpr uint8_t kConnect = 1;
enum AddressType : uint8_t { kIPv4 = 1, kDomain = 3, kIPv6 = 4 };

void append(std::string* text, unsigned byte) { text->push_back(static_cast<char>(byte)); }

void appendPort(std::string* text, uint16_t port) {
  append(text, port >> 8);
  append(text, port & 0xffU);
}

void appendBytes(std::string* text, const void* bytes, size_t size) { text->append(static_cast<const char*>(bytes), size); }

// Reads the address part of a message, from its type byte on.
void appendAddress(std::string* text, const Address& address) {
  if (address.sa.sa_family == AF_INET6) {
    append(text, kIPv6);
    appendBytes(text, &address.in6.sin6_addr, 16);
  } else {
    append(text, kIPv4);
    appendBytes(text, &address.in.sin_addr, 4);
  }
  appendPort(text, portOf(address));
}
}  // namespace

Parsed parseGreeting(const uint8_t* data, size_t size, size_t* used, Offer* offer) {
  if (size >= 1 && data[0] != kVersion) return Parsed::Invalid;
  if (size < 2) return Parsed::Incomplete;
  const size_t methods = data[1];
  if (methods == 0) return Parsed::Invalid;
  if (size < 2 + methods) return Parsed::Incomplete;
  *used = 2 + methods;
  const auto has = [&](uint8_t method) { return memchr(data + 2, method, methods) != nullptr; };
  *offer = {has(kNoAuthentication), has(kUserPassword), has(kBondsocks)};
  return Parsed::Complete;
}

Parsed parseCredentials(const uint8_t* data, size_t size, size_t* used, std::string* username, std::string* password) {
  if (size >= 1 && data[0] != kCredentialsVersion) return Parsed::Invalid;
  if (size < 2) return Parsed::Incomplete;
  const size_t nameSize = data[1];
  if (size < 2 + nameSize + 1) return Parsed::Incomplete;
  const size_t passwordSize = data[2 + nameSize];
  *used = 3 + nameSize + passwordSize;
  if (size < *used) return Parsed::Incomplete;
  username->assign(reinterpret_cast<const char*>(data) + 2, nameSize);
  password->assign(reinterpret_cast<const char*>(data) + 3 + nameSize, passwordSize);
  return Parsed::Complete;
}

Parsed parseRequest(const uint8_t* data, size_t size, size_t* used, Request* request) {
  if (size >= 1 && data[0] != kVersion) return Parsed::Invalid;
  if (size < 4) return Parsed::Incomplete;
  size_t start = 4;
  size_t length = 0;
  switch (data[3]) {
    case kIPv4:
      length = 4;
      break;
    case kIPv6:
      length = 16;
      break;
    case kDomain:
      if (size < 5) return Parsed::Incomplete;
      start = 5;
      length = data[4];
      if (length == 0) return Parsed::Invalid;
      break;
    default:
      // The length of an unknown address type is not known: answer, and read no further.
      *used = size;
      request->reply = kAddressTypeNotSupported;
      return Parsed::Complete;
  }
  *used = start + length + 2;
  if (size < *used) return Parsed::Incomplete;
  if (data[1] != kConnect) request->reply = kCommandNotSupported;
  if (data[3] == kDomain) {
    request->host.assign(reinterpret_cast<const char*>(data) + start, length);
    // Every C library that sees the name later would cut it at a NUL.
    if (request->host.find('\0') != std::string::npos) return Parsed::Invalid;
  } else {
    Address address = noAddress();
    if (data[3] == kIPv4) {
      address.in.sin_family = AF_INET;
      memcpy(&address.in.sin_addr, data + start, 4);
    } else {
      address.in6.sin6_family = AF_INET6;
      memcpy(&address.in6.sin6_addr, data + start, 16);
    }
    request->host = formatAddress(address);
  }
  request->port = static_cast<uint16_t>(data[start + length] << 8 | data[start + length + 1]);
  return Parsed::Complete;
}

std::string encodeReply(uint8_t reply, const Address& bound) {
  std::string text;
  append(&text, kVersion);
  append(&text, reply);
  append(&text, 0);
  appendAddress(&text, bound);
  return text;
}

std::string encodeGreeting(bool withPassword) {
  std::string text;
  append(&text, kVersion);
  // Offers one method only: pipelining needs to know the server's choice in advance.
  append(&text, 1);
  append(&text, withPassword ? kUserPassword : kNoAuthentication);
  return text;
}

std::string encodeCredentials(const std::string& username, const std::string& password) {
  std::string text;
  append(&text, kCredentialsVersion);
  append(&text, static_cast<unsigned>(username.size()));
  text += username;
  append(&text, static_cast<unsigned>(password.size()));
  text += password;
  return text;
}

std::string encodeConnect(const std::string& host, uint16_t port) {
  std::string text;
  append(&text, kVersion);
  append(&text, kConnect);
  append(&text, 0);
  Address address;
  if (parseAddress(host, port, &address)) {
    appendAddress(&text, address);
    return text;
  }
  append(&text, kDomain);
  append(&text, static_cast<unsigned>(host.size()));
  text += host;
  appendPort(&text, port);
  return text;
}

size_t replyLength(const uint8_t* data, size_t size) {
  if (size >= 1 && data[0] != kVersion) return 0;
  if (size < 5) return 5;
  switch (data[3]) {
    case kIPv4:
      return 4 + 4 + 2;
    case kIPv6:
      return 4 + 16 + 2;
    case kDomain:
      return 5U + data[4] + 2U;
    default:
      return 0;
  }
}

}  // namespace socks5
