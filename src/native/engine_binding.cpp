// Engine for TypeScript: index.ts declares it. Only conversion here.
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "bindings.h"
#include "engine.h"
#include "wire.h"

namespace {
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

Napi::Object toObject(Napi::Env env, const Failure& failure) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", failure.code != nullptr ? failure.code : errnoName(failure.error));
  object.Set("errno", static_cast<double>(failure.error));
  object.Set("syscall", failure.syscall);
  return object;
}

const char* name(Stage stage) {
  static constexpr const char* kNames[] = {"connect", "greeting", "authentication", "request"};
  return kNames[static_cast<size_t>(stage)];
}

const char* name(Reason reason) {
  static constexpr const char* kNames[] = {"end", "client-reset", "upstream-reset", "idle", "handshake", "refused", "reset"};
  return kNames[static_cast<size_t>(reason)];
}

const char* name(LimitCause cause) {
  static constexpr const char* kNames[] = {"connections", "descriptors", "memory"};
  return kNames[static_cast<size_t>(cause)];
}

Napi::Object toObject(Napi::Env env, const Event& event) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("connection", toNumber(env, event.id));
  switch (event.type) {
    case Event::Type::Accepted:
      object.Set("type", "accepted");
      object.Set("client", toObject(env, event.client));
      object.Set("destination", toObject(env, event.destination));
      object.Set("local", toObject(env, event.local));
      if (event.order != 0) {
        Napi::Object followed = Napi::Object::New(env);
        followed.Set("order", toNumber(env, event.order));
        followed.Set("late", event.late);
        object.Set("followed", followed);
      }
      break;
    case Event::Type::Credentials:
      object.Set("type", "credentials");
      object.Set("client", toObject(env, event.client));
      object.Set("username", event.username);
      object.Set("password", event.password);
      break;
    case Event::Type::Request:
      object.Set("type", "request");
      object.Set("client", toObject(env, event.client));
      object.Set("local", toObject(env, event.local));
      object.Set("host", event.host);
      object.Set("port", static_cast<double>(event.port));
      break;
    case Event::Type::Opened:
      object.Set("type", "opened");
      object.Set("attempt", static_cast<double>(event.attempt));
      object.Set("local", toObject(env, event.local));
      object.Set("protocol", toValue(env, event.protocol));
      if (event.prepared) object.Set("prepared", true);
      break;
    case Event::Type::Failed:
      object.Set("type", "failed");
      object.Set("attempt", static_cast<double>(event.attempt));
      object.Set("left", static_cast<double>(event.left));
      if (event.early > 0) object.Set("early", toNumber(env, event.early));
      object.Set("stage", name(event.stage));
      object.Set("failure", toObject(env, event.failure));
      if (event.reply >= 0) object.Set("reply", static_cast<double>(event.reply));
      break;
    case Event::Type::Closed:
      object.Set("type", "closed");
      object.Set("reason", name(event.reason));
      if (event.failure.error != 0) object.Set("failure", toObject(env, event.failure));
      object.Set("client", toObject(env, event.client));
      object.Set("sent", toNumber(env, event.sent));
      object.Set("received", toNumber(env, event.received));
      object.Set("durationMs", toNumber(env, event.milliseconds));
      break;
    case Event::Type::Demand:
      object.Set("type", "demand");
      object.Set("clients", toNumber(env, event.count));
      break;
    case Event::Type::Limit:
      object.Set("type", "limit");
      object.Set("limited", event.limited);
      object.Set("cause", name(event.cause));
      break;
    case Event::Type::Probed:
      object.Set("ok", event.failure.error == 0);
      if (event.fd >= 0) object.Set("fd", static_cast<double>(event.fd));
      if (event.failure.error == 0) {
        object.Set("local", toObject(env, event.local));
        object.Set("protocol", toValue(env, event.protocol));
        object.Set("connectMs", toNumber(env, event.milliseconds));
      } else {
        object.Set("stage", name(event.stage));
        object.Set("failure", toObject(env, event.failure));
      }
      break;
    case Event::Type::Inspected:
    case Event::Type::Counted:
      break;
  }
  return object;
}

Napi::Value toArray(Napi::Env env, const std::vector<Inspection>& inspections) {
  Napi::Array array = Napi::Array::New(env, inspections.size());
  uint32_t at = 0;
  for (const Inspection& one : inspections) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("connection", toNumber(env, one.connection));
    object.Set("client", toObject(env, one.client));
    object.Set("remote", toObject(env, one.remote));
    object.Set("protocol", toValue(env, one.protocol));
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
      subflows.Set(index++, entry);
    }
    object.Set("subflows", subflows);
    array.Set(at++, object);
  }
  return array;
}

// A wrong address is a mistake of the caller's: it becomes 0.0.0.0:0, which the kernel refuses to connect to.
Address addressOf(const Napi::Value& value) {
  Address address = noAddress();
  if (!value.IsObject()) return address;
  const Napi::Object object = value.As<Napi::Object>();
  parseAddress(text(object, "address"), static_cast<uint16_t>(number(object, "port")), &address);
  return address;
}

Way wayOf(const Napi::Object& object) {
  Way way;
  way.mptcp = text(object, "protocol") == "mptcp";
  way.remote = addressOf(object.Get("remote"));
  way.bound = object.Get("bind").IsString() && parseAddress(text(object, "bind"), 0, &way.source);
  way.connectTimeoutMs = number(object, "connectTimeoutMs");
  return way;
}

void addCredentials(Way* way, const Napi::Object& object) {
  way->socks = true;
  way->withPassword = object.Get("username").IsString();
  way->username = text(object, "username").substr(0, 255);
  way->password = text(object, "password").substr(0, 255);
  way->handshakeTimeoutMs = number(object, "timeoutMs");
}

std::vector<Network> networksOf(const Napi::Value& value) {
  std::vector<Network> networks;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object object = array.Get(i).As<Napi::Object>();
    Network network;
    if (parseAddress(text(object, "address"), 0, &network.base)) {
      network.bits = number(object, "bits");
      networks.push_back(network);
    }
  }
  return networks;
}

// The client side of SOCKS5 as far as the authentication.
Way greetingOf(const Napi::Object& object) {
  Way way = wayOf(object);
  addCredentials(&way, object);
  return way;
}
}  // namespace

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {InstanceMethod<&EngineObject::Listen>("listen"), InstanceMethod<&EngineObject::StopListening>("stopListening"),
                        InstanceMethod<&EngineObject::SetStandingOrder>("setStandingOrder"),
                        InstanceMethod<&EngineObject::Open>("openWay"), InstanceMethod<&EngineObject::Authenticate>("authenticate"),
                        InstanceMethod<&EngineObject::Refuse>("refuse"), InstanceMethod<&EngineObject::Reset>("reset"),
                        InstanceMethod<&EngineObject::Probe>("probe"), InstanceMethod<&EngineObject::Connect>("connect"),
                        InstanceMethod<&EngineObject::Prepare>("prepare"), InstanceMethod<&EngineObject::KeepPrepared>("keepPrepared"),
                        InstanceMethod<&EngineObject::Abandon>("abandon"), InstanceMethod<&EngineObject::ResetUpstreams>("resetUpstreams"),
                        InstanceMethod<&EngineObject::ResetStranded>("resetStranded"),
                        InstanceMethod<&EngineObject::WatchUpstreams>("watchUpstreams"), InstanceMethod<&EngineObject::Inspect>("inspect"),
                        InstanceMethod<&EngineObject::Stats>("stats"), InstanceMethod<&EngineObject::Close>("close")});
  }

  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info), env_(info.Env()) {
    const Napi::Object options = info[0].As<Napi::Object>();
    EngineOptions engine;
    engine.workers = number(options, "workers");
    engine.maxConnections = number(options, "maxConnections");
    engine.idleTimeoutMs = static_cast<uint64_t>(options.Get("idleTimeoutMs").As<Napi::Number>().Int64Value());
    engine.handshakeTimeoutMs = number(options, "handshakeTimeoutMs");
    Napi::Float64Array numbers = options.Get("numbers").As<Napi::Float64Array>();
    numbers_ = Numbers(numbers.Data(), numbers.ElementLength());
    numbersOwner_ = Napi::Persistent(numbers);
    events_ = Napi::ThreadSafeFunction::New(env_, options.Get("onEvents").As<Napi::Function>(), "bondsocks events", 0, 1);
    // The engine's threads use this object: it stays until close().
    Ref();
    napi_add_env_cleanup_hook(env_, CleanUp, this);
    engine_ = std::make_unique<::Engine>(engine, [this] {
      events_.NonBlockingCall([this](Napi::Env env, Napi::Function callback) { Deliver(env, callback); });
    });
  }

 private:
  static void CleanUp(void* self) { static_cast<EngineObject*>(self)->Shut(); }

  void Shut() {
    if (!engine_) return;
    engine_->close();  // joins the threads: nobody calls events_ any more
    engine_.reset();
    events_.Abort();
  }

  void Deliver(Napi::Env env, Napi::Function callback) {
    if (!engine_) return;
    Napi::HandleScope scope(env);
    std::vector<Event> events = engine_->takeEvents();
    Napi::Array objects = Napi::Array::New(env);
    const auto pass = [&] {
      if (numbers_.count() > 0) callback.Call({Napi::Number::New(env, static_cast<double>(numbers_.count())), objects});
      numbers_.clear();
    };
    for (const Event& event : events) {
      switch (event.type) {
        case Event::Type::Probed:
          Settle(event, toObject(env, event));
          break;
        case Event::Type::Inspected:
          Settle(event, toArray(env, event.inspections));
          break;
        case Event::Type::Counted:
          Settle(event, toNumber(env, event.count));
          break;
        default:
          if (!numbers_.add(event)) objects.Set(objects.Length(), toObject(env, event));
          if (numbers_.hasRoom()) break;
          pass();
          objects = Napi::Array::New(env);
      }
    }
    pass();
  }

  void Settle(const Event& event, Napi::Value answer) {
    const auto found = waiting_.find(event.id);
    if (found == waiting_.end()) return;
    found->second.Resolve(answer);
    waiting_.erase(found);
  }

  // A question to the engine; its answer is an event with the same number.
  Napi::Value Ask(const std::function<void(uint64_t)>& ask) {
    const uint64_t id = ++sequence_;
    const auto added = waiting_.emplace(id, Napi::Promise::Deferred::New(env_));
    if (engine_) ask(id);
    return added.first->second.Promise();
  }

  Napi::Value Listen(const Napi::CallbackInfo& info) {
    const Napi::Object options = info[0].As<Napi::Object>();
    ListenOptions listen;
    listen.kind = text(options, "kind") == "socks" ? ListenerKind::Socks : ListenerKind::Redirect;
    listen.address = addressOf(options);
    listen.authentication = options.Get("authentication").ToBoolean();
    Address bound = noAddress();
    Protocol protocol = Protocol::Unknown;
    Failure failure;
    if (!engine_) return env_.Undefined();
    if (!engine_->listen(listen, &bound, &protocol, &failure)) {
      const std::string code = errnoName(failure.error);
      Napi::Error error = Napi::Error::New(env_, code + ": " + failure.syscall + " " + formatAddress(listen.address) + " port " +
                                                     std::to_string(portOf(listen.address)));
      error.Set("code", code);
      error.Set("errno", static_cast<double>(failure.error));
      error.Set("syscall", failure.syscall);
      error.ThrowAsJavaScriptException();
      return env_.Undefined();
    }
    Napi::Object listening = toObject(env_, bound);
    listening.Set("protocol", toValue(env_, protocol));
    return listening;
  }

  void StopListening(const Napi::CallbackInfo&) {
    if (engine_) engine_->stopListening();
  }

  void SetStandingOrder(const Napi::CallbackInfo& info) {
    if (!engine_) return;
    if (!info[0].IsObject()) return engine_->setStandingOrder(nullptr);
    const Napi::Object object = info[0].As<Napi::Object>();
    const Napi::Object socks = object.Get("socks").As<Napi::Object>();
    const auto order = std::make_shared<StandingOrder>();
    order->id = number(object, "order");
    order->way = wayOf(object);
    addCredentials(&order->way, socks);
    order->way.connectRequest = true;
    order->way.pipelined = text(socks, "handshake") == "pipelined";
    order->way.prepared = socks.Get("prepared").ToBoolean();
    order->patienceMs = number(object, "patienceMs");
    order->destinations = networksOf(object.Get("askAboutDestinations"));
    order->clients = networksOf(object.Get("askAboutClients"));
    engine_->setStandingOrder(order);
  }

  // Its arguments: wire.ts.
  void Open(const Napi::CallbackInfo& info) {
    if (!engine_) return;
    const auto textAt = [&info](size_t at) { return info[at].IsString() ? info[at].As<Napi::String>().Utf8Value() : std::string(); };
    const auto numberAt = [&info](size_t at) { return info[at].IsNumber() ? info[at].As<Napi::Number>().Uint32Value() : 0; };
    Way way;
    way.mptcp = info[2].ToBoolean();
    way.remote = noAddress();
    parseAddress(textAt(3), static_cast<uint16_t>(numberAt(4)), &way.remote);
    way.bound = info[5].IsString() && parseAddress(textAt(5), 0, &way.source);
    way.connectTimeoutMs = numberAt(6);
    if (info[7].IsString()) {
      way.socks = way.connectRequest = true;
      way.host = textAt(7).substr(0, 255);
      way.port = static_cast<uint16_t>(numberAt(8));
      way.withPassword = info[9].IsString();
      way.username = textAt(9).substr(0, 255);
      way.password = textAt(10).substr(0, 255);
      way.pipelined = info[11].ToBoolean();
      way.prepared = info[12].ToBoolean();
      way.handshakeTimeoutMs = numberAt(13);
    }
    engine_->open(connectionId(info[0]), std::move(way), numberAt(1));
  }

  void Authenticate(const Napi::CallbackInfo& info) {
    if (engine_) engine_->authenticate(connectionId(info[0]), info[1].ToBoolean());
  }

  void Refuse(const Napi::CallbackInfo& info) {
    if (engine_) engine_->refuse(connectionId(info[0]), static_cast<uint8_t>(info[1].As<Napi::Number>().Uint32Value()));
  }

  void Reset(const Napi::CallbackInfo& info) {
    if (engine_) engine_->reset(connectionId(info[0]));
  }

  Napi::Value Probe(const Napi::CallbackInfo& info) {
    const Way way = greetingOf(info[0].As<Napi::Object>());
    return Ask([this, &way](uint64_t id) { engine_->probe(id, way); });
  }

  Napi::Value Connect(const Napi::CallbackInfo& info) {
    const Way way = wayOf(info[0].As<Napi::Object>());
    return Ask([this, &way](uint64_t id) { engine_->probe(id, way, Purpose::HandOver); });
  }

  Napi::Value Prepare(const Napi::CallbackInfo& info) {
    const Way way = greetingOf(info[0].As<Napi::Object>());
    return Ask([this, &way](uint64_t id) { engine_->probe(id, way, Purpose::Prepare); });
  }

  Napi::Value KeepPrepared(const Napi::CallbackInfo& info) {
    const Napi::Array array = info[0].As<Napi::Array>();
    std::vector<Way> ways;
    for (uint32_t i = 0; i < array.Length(); ++i) ways.push_back(greetingOf(array.Get(i).As<Napi::Object>()));
    PreparedPool::Kept kept;
    kept.counts.resize(ways.size());
    if (engine_) kept = engine_->keepPrepared(ways, info[1].As<Napi::Number>().Uint32Value(), info[2].As<Napi::Number>().Uint32Value());
    Napi::Array counts = Napi::Array::New(env_, kept.counts.size());
    for (size_t i = 0; i < kept.counts.size(); ++i) counts.Set(static_cast<uint32_t>(i), toNumber(env_, kept.counts[i]));
    Napi::Object object = Napi::Object::New(env_);
    object.Set("counts", counts);
    if (kept.endedMs > 0) object.Set("endedMs", toNumber(env_, kept.endedMs));
    return object;
  }

  void Abandon(const Napi::CallbackInfo& info) {
    Address source = noAddress();
    if (engine_ && parseAddress(info[0].As<Napi::String>().Utf8Value(), 0, &source)) engine_->abandon(source);
  }

  Napi::Value ResetUpstreams(const Napi::CallbackInfo& info) {
    const Address remote = addressOf(info[0]);
    return Ask([this, &remote](uint64_t id) { engine_->resetUpstreams(id, remote); });
  }

  Napi::Value ResetStranded(const Napi::CallbackInfo&) {
    return Ask([this](uint64_t id) { engine_->resetStranded(id); });
  }

  void WatchUpstreams(const Napi::CallbackInfo& info) {
    if (engine_) engine_->watchUpstreams(addressOf(info[0]), info[1].As<Napi::Boolean>().Value());
  }

  Napi::Value Inspect(const Napi::CallbackInfo& info) {
    std::vector<ConnectionId> connections;
    const bool some = info.Length() > 0 && info[0].IsArray();
    if (some) {
      const Napi::Array array = info[0].As<Napi::Array>();
      for (uint32_t i = 0; i < array.Length(); ++i) connections.push_back(connectionId(array.Get(i)));
    }
    if (some && connections.empty()) connections.push_back(0);  // no connection has this number
    return Ask([this, &connections](uint64_t id) { engine_->inspect(id, connections); });
  }

  Napi::Value Stats(const Napi::CallbackInfo&) {
    Napi::Object object = Napi::Object::New(env_);
    static const Counters none;
    const Counters& counters = engine_ ? engine_->counters() : none;
    object.Set("connections", toNumber(env_, counters.connections));
    object.Set("relaying", toNumber(env_, counters.relaying));
    object.Set("pipesInUse", toNumber(env_, counters.pipesInUse));
    object.Set("pipesPooled", toNumber(env_, counters.pipesPooled));
    object.Set("bytesParked", static_cast<double>(counters.bytesParked));
    return object;
  }

  void Close(const Napi::CallbackInfo&) {
    if (!engine_) return;
    Shut();
    napi_remove_env_cleanup_hook(env_, CleanUp, this);
    Unref();
  }

  Napi::Env env_;
  Napi::ThreadSafeFunction events_;
  Numbers numbers_{nullptr, 0};
  Napi::Reference<Napi::Float64Array> numbersOwner_;
  std::unique_ptr<::Engine> engine_;
  uint64_t sequence_ = 0;
  std::unordered_map<uint64_t, Napi::Promise::Deferred> waiting_;
};

void InitEngine(Napi::Env env, Napi::Object exports) { exports.Set("Engine", EngineObject::Define(env)); }
