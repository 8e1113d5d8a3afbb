#include "binding/values.h"

namespace {
Napi::Object toObject(Napi::Env env, const Failure& failure) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", failure.code != nullptr ? failure.code : errnoName(failure.error));
  object.Set("errno", static_cast<double>(failure.error));
  object.Set("syscall", failure.syscall);
  return object;
}

const char* name(Stage stage) {
  static constexpr const char* kNames[] = {"connect", "greeting", "authentication", "request", "watch"};
  return kNames[static_cast<size_t>(stage)];
}

const char* name(Reason reason) {
  static constexpr const char* kNames[] = {"end", "client-reset", "upstream-reset", "idle", "handshake", "refused", "reset"};
  return kNames[static_cast<size_t>(reason)];
}

const char* name(LimitCause cause) {
  static constexpr const char* kNames[] = {"connections", "descriptors", "memory", "pipes"};
  return kNames[static_cast<size_t>(cause)];
}
const char* name(RefusalCause cause) {
  static constexpr const char* kNames[] = {"not-a-client", "method", "credentials", "share", "waited", "not-redirected", "loop"};
  return kNames[static_cast<size_t>(cause)];
}
}  // namespace

std::string text(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

uint32_t number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return value.IsNumber() ? value.As<Napi::Number>().Uint32Value() : 0;
}

ConnectionId connectionId(const Napi::Value& value) { return static_cast<ConnectionId>(value.As<Napi::Number>().Int64Value()); }

Napi::Value toNumber(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Object toObject(Napi::Env env, const Address& address) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("address", formatAddress(address));
  object.Set("port", static_cast<double>(portOf(address)));
  return object;
}

Napi::Value toValue(Napi::Env env, Protocol protocol) {
  if (protocol == Protocol::Unknown) return env.Undefined();
  return Napi::String::New(env, protocol == Protocol::Mptcp ? "mptcp" : "tcp");
}

namespace {
struct ToObject {
  Napi::Env env;
  Napi::Object object;

  void operator()(const Accepted& event) {
    start("accepted", event.id);
    object.Set("client", toObject(env, event.client));
    object.Set("destination", toObject(env, event.destination));
    object.Set("local", toObject(env, event.local));
    if (event.fastPathId == 0) return;
    Napi::Object viaFastPath = Napi::Object::New(env);
    viaFastPath.Set("id", toNumber(env, event.fastPathId));
    viaFastPath.Set("timedOut", event.timedOut);
    object.Set("viaFastPath", viaFastPath);
  }
  void operator()(const Credentials& event) {
    start("credentials", event.id);
    object.Set("client", toObject(env, event.client));
    object.Set("username", event.username);
    object.Set("password", event.password);
  }
  void operator()(const Request& event) {
    start("request", event.id);
    object.Set("client", toObject(env, event.client));
    object.Set("local", toObject(env, event.local));
    object.Set("host", event.host);
    object.Set("port", static_cast<double>(event.port));
  }
  void operator()(const Opened& event) {
    start("opened", event.id);
    object.Set("attempt", static_cast<double>(event.attempt));
    object.Set("local", toObject(env, event.local));
    object.Set("protocol", toValue(env, event.protocol));
    if (event.prepared) object.Set("prepared", true);
  }
  void operator()(const Failed& event) {
    start("failed", event.id);
    object.Set("attempt", static_cast<double>(event.attempt));
    object.Set("left", static_cast<double>(event.left));
    if (event.early > 0) object.Set("early", toNumber(env, event.early));
    object.Set("stage", name(event.stage));
    object.Set("failure", toObject(env, event.failure));
    if (event.reply >= 0) object.Set("reply", static_cast<double>(event.reply));
  }
  void operator()(const Closed& event) {
    start("closed", event.id);
    object.Set("reason", name(event.reason));
    if (event.failure.error != 0) object.Set("failure", toObject(env, event.failure));
    object.Set("client", toObject(env, event.client));
    if (event.destination.sa.sa_family != AF_UNSPEC) object.Set("destination", toObject(env, event.destination));
    if (event.fastPathId != 0) object.Set("fastPath", toNumber(env, event.fastPathId));
    object.Set("sent", toNumber(env, event.sent));
    object.Set("received", toNumber(env, event.received));
    object.Set("durationMs", toNumber(env, event.durationMs));
  }
  void operator()(const Demand& event) {
    object.Set("type", "demand");
    object.Set("clients", toNumber(env, event.clients));
  }
  void operator()(const Active&) { object.Set("type", "active"); }
  void operator()(const Limit& event) {
    object.Set("type", "limit");
    object.Set("limited", event.limited);
    object.Set("cause", name(event.cause));
  }
  void operator()(const Refused&) { object.Set("type", "refused"); }
  void operator()(const Probed& event) {
    object.Set("ok", event.failure.error == 0);
    if (event.fd >= 0) object.Set("fd", static_cast<double>(event.fd));
    if (event.failure.error == 0) {
      object.Set("local", toObject(env, event.local));
      object.Set("protocol", toValue(env, event.protocol));
    } else {
      object.Set("stage", name(event.stage));
      object.Set("failure", toObject(env, event.failure));
    }
    if (event.failure.error == 0 || event.stage != Stage::Connect) object.Set("connectMs", toNumber(env, event.connectMs));
  }
  void operator()(const Inspected&) {}
  void operator()(const Counted&) {}

 private:
  void start(const char* type, ConnectionId id) {
    object.Set("type", type);
    object.Set("connection", toNumber(env, id));
  }
};
}  // namespace

Napi::Object toObject(Napi::Env env, const Event& event) {
  ToObject answer{env, Napi::Object::New(env)};
  std::visit(answer, event);
  return answer.object;
}

Napi::Value toArray(Napi::Env env, const std::vector<Refusal>& refusals) {
  Napi::Array array = Napi::Array::New(env, refusals.size());
  uint32_t at = 0;
  for (const Refusal& one : refusals) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("cause", name(one.cause));
    object.Set("count", toNumber(env, one.count));
    if (one.client.sa.sa_family != AF_UNSPEC) object.Set("client", formatAddress(one.client));
    if (one.destination.sa.sa_family != AF_UNSPEC) object.Set("destination", toObject(env, one.destination));
    array.Set(at++, object);
  }
  return array;
}

Napi::Value toArray(Napi::Env env, const std::vector<Inspection>& inspections) {
  Napi::Array array = Napi::Array::New(env, inspections.size());
  uint32_t at = 0;
  for (const Inspection& one : inspections) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("connection", toNumber(env, one.connection));
    object.Set("client", toObject(env, one.client));
    object.Set("local", toObject(env, one.local));
    object.Set("remote", toObject(env, one.remote));
    object.Set("protocol", toValue(env, one.protocol));
    object.Set("ageMs", toNumber(env, one.ageMs));
    object.Set("full", one.full);
    object.Set("sent", toNumber(env, one.sent));
    object.Set("received", toNumber(env, one.received));
    Napi::Array subflows = Napi::Array::New(env, one.subflows.size());
    uint32_t index = 0;
    for (const Subflow& subflow : one.subflows) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("local", toObject(env, subflow.local));
      entry.Set("remote", toObject(env, subflow.remote));
      entry.Set("bytesSent", toNumber(env, subflow.bytesSent));
      entry.Set("bytesReceived", toNumber(env, subflow.bytesReceived));
      entry.Set("rttUs", static_cast<double>(subflow.rttUs));
      entry.Set("unackedPackets", static_cast<double>(subflow.unackedPackets));
      entry.Set("lastAckMs", static_cast<double>(subflow.lastAckMs));
      entry.Set("timeouts", static_cast<double>(subflow.timeouts));
      entry.Set("joining", subflow.joining);
      entry.Set("packetsSent", static_cast<double>(subflow.packetsSent));
      entry.Set("packetsSentAgain", static_cast<double>(subflow.packetsSentAgain));
      subflows.Set(index++, entry);
    }
    object.Set("subflows", subflows);
    array.Set(at++, object);
  }
  return array;
}

Address addressOf(const Napi::Value& value) {
  Address address = noAddress();
  if (!value.IsObject()) return address;
  const Napi::Object object = value.As<Napi::Object>();
  parseAddress(text(object, "address"), static_cast<uint16_t>(number(object, "port")), &address);
  return address;
}

DialSpec dialSpecOf(const Napi::Object& object) {
  DialSpec spec;
  spec.mptcp = text(object, "protocol") == "mptcp";
  spec.remote = addressOf(object.Get("remote"));
  spec.bound = object.Get("bind").IsString() && parseAddress(text(object, "bind"), 0, &spec.source);
  spec.connectTimeoutMs = number(object, "connectTimeoutMs");
  return spec;
}

void addCredentials(DialSpec* spec, const Napi::Object& object) {
  spec->socks = true;
  spec->withPassword = object.Get("username").IsString();
  spec->username = text(object, "username").substr(0, 255);
  spec->password = text(object, "password").substr(0, 255);
  spec->handshakeTimeoutMs = number(object, "timeoutMs");
}

std::vector<AddressRange> addressRangesOf(const Napi::Value& value) {
  std::vector<AddressRange> networks;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object object = array.Get(i).As<Napi::Object>();
    AddressRange network;
    if (parseAddress(text(object, "address"), 0, &network.base)) {
      network.bits = number(object, "bits");
      networks.push_back(network);
    }
  }
  return networks;
}

DialSpec greetingOf(const Napi::Object& object) {
  DialSpec spec = dialSpecOf(object);
  addCredentials(&spec, object);
  return spec;
}
