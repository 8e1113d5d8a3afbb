// Converts what crosses between the engine and TypeScript, as contract.ts declares it. For the *_binding.cpp files.
#pragma once
#include <napi.h>

#include <string>
#include <vector>

#include "engine/events.h"

// Empty, or 0, if the property is missing or of another type.
std::string text(const Napi::Object& object, const char* key);
uint32_t number(const Napi::Object& object, const char* key);
ConnectionId connectionId(const Napi::Value& value);
// A wrong address is the caller's mistake. It becomes 0.0.0.0:0, and the kernel refuses to connect to that.
Address addressOf(const Napi::Value& value);
DialSpec dialSpecOf(const Napi::Object& object);
void addCredentials(DialSpec* spec, const Napi::Object& object);
// The client side of SOCKS5 up to the authentication.
DialSpec greetingOf(const Napi::Object& object);
std::vector<AddressRange> addressRangesOf(const Napi::Value& value);

Napi::Value toNumber(Napi::Env env, uint64_t value);
Napi::Value toValue(Napi::Env env, Protocol protocol);
Napi::Object toObject(Napi::Env env, const Address& address);
Napi::Object toObject(Napi::Env env, const Event& event);
Napi::Value toArray(Napi::Env env, const std::vector<Inspection>& inspections);
Napi::Value toArray(Napi::Env env, const std::vector<Refusal>& refusals);
