// The class Engine that contract.ts declares.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "binding/bindings.h"
#include "binding/values.h"
#include "binding/wire.h"
#include "engine/engine.h"

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {InstanceMethod<&EngineObject::Listen>("listen"),
                        InstanceMethod<&EngineObject::StopListening>("stopListening"),
                        InstanceMethod<&EngineObject::SetFastPath>("setFastPath"),
                        InstanceMethod<&EngineObject::Dial>("dialWith"),
                        InstanceMethod<&EngineObject::Authenticate>("authenticate"),
                        InstanceMethod<&EngineObject::Refuse>("refuse"),
                        InstanceMethod<&EngineObject::Reset>("reset"),
                        InstanceMethod<&EngineObject::Probe>("probe"),
                        InstanceMethod<&EngineObject::Connect>("connect"),
                        InstanceMethod<&EngineObject::Prepare>("prepare"),
                        InstanceMethod<&EngineObject::KeepPrepared>("keepPrepared"),
                        InstanceMethod<&EngineObject::UseDevices>("useDevices"),
                        InstanceMethod<&EngineObject::Abandon>("abandon"),
                        InstanceMethod<&EngineObject::ResetConnectionsTo>("resetConnectionsTo"),
                        InstanceMethod<&EngineObject::ResetStranded>("resetStranded"),
                        InstanceMethod<&EngineObject::CountOnly>("countOnly"),
                        InstanceMethod<&EngineObject::WatchConnectionsTo>("watchConnectionsTo"),
                        InstanceMethod<&EngineObject::SetKeepalive>("setKeepalive"),
                        InstanceMethod<&EngineObject::Inspect>("inspect"),
                        InstanceMethod<&EngineObject::InspectBusy>("inspectBusy"),
                        InstanceMethod<&EngineObject::TakeRefusals>("takeRefusals"),
                        InstanceMethod<&EngineObject::Stats>("stats"),
                        InstanceMethod<&EngineObject::Close>("close")});
  }

  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info), env_(info.Env()) {
    const Napi::Object options = info[0].As<Napi::Object>();
    EngineOptions engine;
    engine.workers = number(options, "workers");
    engine.maxConnections = number(options, "maxConnections");
    engine.maxConnectionsPerClient = number(options, "maxConnectionsPerClient");
    if (options.Has("bufferMemory")) engine.bufferMemory = options.Get("bufferMemory").ToNumber().Int64Value();
    engine.idleTimeoutMs = static_cast<uint64_t>(options.Get("idleTimeoutMs").As<Napi::Number>().Int64Value());
    engine.handshakeTimeoutMs = number(options, "handshakeTimeoutMs");
    if (options.Has("mark")) engine.mark = number(options, "mark");
    if (options.Has("decisionTimeoutMs")) engine.decisionTimeoutMs = number(options, "decisionTimeoutMs");
    Napi::Float64Array numbers = options.Get("numbers").As<Napi::Float64Array>();
    numbers_ = Numbers(numbers.Data(), numbers.ElementLength());
    numbersOwner_ = Napi::Persistent(numbers);
    events_ = Napi::ThreadSafeFunction::New(env_, options.Get("onEvents").As<Napi::Function>(), "bondsocks events", 0, 1);
    // The engine's threads use this object, so it lives until close().
    Ref();
    napi_add_env_cleanup_hook(env_, CleanUp, this);
    engine_ = std::make_unique<::Engine>(
        engine, [this] { events_.NonBlockingCall([this](Napi::Env env, Napi::Function callback) { Deliver(env, callback); }); });
  }

 private:
  static void CleanUp(void* self) { static_cast<EngineObject*>(self)->Shut(); }

  void Shut() {
    if (!engine_) return;
    engine_->close();  // joins the threads, so nobody uses events_ any more
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
      // wire.ts catches all exceptions. If one comes through all the same, Node-API refuses all calls while it is pending.
      if (env.IsExceptionPending()) env.GetAndClearPendingException();
    };
    for (const Event& event : events) {
      if (!engine_) return;  // the owner closed it in the callback
      if (const auto* const probed = std::get_if<Probed>(&event)) {
        Settle(probed->id, toObject(env, event));
      } else if (const auto* const inspected = std::get_if<Inspected>(&event)) {
        Settle(inspected->id, toArray(env, inspected->inspections));
      } else if (const auto* const counted = std::get_if<Counted>(&event)) {
        Settle(counted->id, toNumber(env, counted->count));
      } else {
        if (!numbers_.add(event)) objects.Set(objects.Length(), toObject(env, event));
        if (numbers_.hasRoom()) continue;
        pass();
        objects = Napi::Array::New(env);
      }
    }
    pass();
  }

  void Settle(uint64_t id, Napi::Value answer) {
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) return;
    found->second.Resolve(answer);
    waiting_.erase(found);
  }

  // A question to the engine. The answer is an event with the same number.
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
    listen.refusesLoops = options.Get("refuseLoops").ToBoolean();
    if (options.Get("clients").IsArray()) listen.clients = std::make_shared<std::vector<AddressRange>>(addressRangesOf(options.Get("clients")));
    Address bound = noAddress();
    Protocol protocol = Protocol::Unknown;
    Failure failure;
    if (!engine_) return env_.Undefined();
    if (!engine_->listen(listen, &bound, &protocol, &failure)) {
      const std::string code = errnoName(failure.error);
      Napi::Error error = Napi::Error::New(
          env_, code + ": " + failure.syscall + " " + formatAddress(listen.address) + " port " + std::to_string(portOf(listen.address)));
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

  void SetFastPath(const Napi::CallbackInfo& info) {
    if (!engine_) return;
    if (!info[0].IsObject()) return engine_->setFastPath(nullptr);
    const Napi::Object object = info[0].As<Napi::Object>();
    const Napi::Object socks = object.Get("socks").As<Napi::Object>();
    const auto fastPath = std::make_shared<FastPath>();
    fastPath->id = number(object, "id");
    fastPath->spec = dialSpecOf(object);
    addCredentials(&fastPath->spec, socks);
    fastPath->spec.connectRequest = true;
    fastPath->spec.pipelined = text(socks, "handshake") == "pipelined";
    fastPath->spec.prepared = socks.Get("prepared").ToBoolean();
    fastPath->patienceMs = number(object, "patienceMs");
    fastPath->destinations = addressRangesOf(object.Get("askAboutDestinations"));
    engine_->setFastPath(fastPath);
  }

  // wire.ts builds the arguments.
  void Dial(const Napi::CallbackInfo& info) {
    if (!engine_) return;
    const auto textAt = [&info](size_t at) { return info[at].IsString() ? info[at].As<Napi::String>().Utf8Value() : std::string(); };
    const auto numberAt = [&info](size_t at) { return info[at].IsNumber() ? info[at].As<Napi::Number>().Uint32Value() : 0; };
    DialSpec spec;
    spec.mptcp = info[2].ToBoolean();
    spec.remote = noAddress();
    parseAddress(textAt(3), static_cast<uint16_t>(numberAt(4)), &spec.remote);
    spec.bound = info[5].IsString() && parseAddress(textAt(5), 0, &spec.source);
    spec.connectTimeoutMs = numberAt(6);
    if (info[7].IsString()) {
      spec.socks = spec.connectRequest = true;
      spec.host = textAt(7).substr(0, 255);
      spec.port = static_cast<uint16_t>(numberAt(8));
      spec.withPassword = info[9].IsString();
      spec.username = textAt(9).substr(0, 255);
      spec.password = textAt(10).substr(0, 255);
      spec.pipelined = info[11].ToBoolean();
      spec.prepared = info[12].ToBoolean();
      spec.handshakeTimeoutMs = numberAt(13);
    }
    engine_->dial(connectionId(info[0]), std::move(spec), numberAt(1));
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
    DialSpec spec = greetingOf(info[0].As<Napi::Object>());
    spec.watchMs = number(info[0].As<Napi::Object>(), "watchMs");
    return Ask([this, &spec](uint64_t id) { engine_->probe(id, spec); });
  }

  Napi::Value Connect(const Napi::CallbackInfo& info) {
    const DialSpec spec = dialSpecOf(info[0].As<Napi::Object>());
    return Ask([this, &spec](uint64_t id) { engine_->probe(id, spec, Purpose::HandOver); });
  }

  Napi::Value Prepare(const Napi::CallbackInfo& info) {
    const DialSpec spec = greetingOf(info[0].As<Napi::Object>());
    return Ask([this, &spec](uint64_t id) { engine_->probe(id, spec, Purpose::Prepare); });
  }

  Napi::Value KeepPrepared(const Napi::CallbackInfo& info) {
    const Napi::Array array = info[0].As<Napi::Array>();
    std::vector<DialSpec> specs;
    for (uint32_t i = 0; i < array.Length(); ++i) specs.push_back(greetingOf(array.Get(i).As<Napi::Object>()));
    PreparedPool::Kept kept;
    kept.counts.resize(specs.size());
    if (engine_) kept = engine_->keepPrepared(specs, info[1].As<Napi::Number>().Uint32Value(), info[2].As<Napi::Number>().Uint32Value());
    Napi::Array counts = Napi::Array::New(env_, kept.counts.size());
    for (size_t i = 0; i < kept.counts.size(); ++i) counts.Set(static_cast<uint32_t>(i), toNumber(env_, kept.counts[i]));
    Napi::Object object = Napi::Object::New(env_);
    object.Set("counts", counts);
    if (kept.endedMs > 0) object.Set("endedMs", toNumber(env_, kept.endedMs));
    return object;
  }

  void UseDevices(const Napi::CallbackInfo& info) {
    const Napi::Array array = info[0].As<Napi::Array>();
    std::vector<std::pair<Address, std::string>> devices;
    for (uint32_t i = 0; i < array.Length(); ++i) {
      const Napi::Object one = array.Get(i).As<Napi::Object>();
      Address address = noAddress();
      if (parseAddress(text(one, "address"), 0, &address)) devices.emplace_back(address, text(one, "device"));
    }
    if (engine_) engine_->useDevices(std::move(devices), info[1].As<Napi::Boolean>().Value());
  }

  void Abandon(const Napi::CallbackInfo& info) {
    Address source = noAddress();
    if (engine_ && parseAddress(info[0].As<Napi::String>().Utf8Value(), 0, &source)) engine_->abandon(source);
  }

  Napi::Value ResetConnectionsTo(const Napi::CallbackInfo& info) {
    const Address remote = addressOf(info[0]);
    return Ask([this, &remote](uint64_t id) { engine_->resetConnectionsTo(id, remote); });
  }

  Napi::Value ResetStranded(const Napi::CallbackInfo&) {
    return Ask([this](uint64_t id) { engine_->resetStranded(id); });
  }

  Napi::Value CountOnly(const Napi::CallbackInfo& info) {
    Address source = noAddress();
    parseAddress(info[0].As<Napi::String>().Utf8Value(), 0, &source);
    const auto olderThanMs = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
    return Ask([this, &source, olderThanMs](uint64_t id) { engine_->countOnly(id, source, olderThanMs); });
  }

  void WatchConnectionsTo(const Napi::CallbackInfo& info) {
    if (engine_) engine_->watchConnectionsTo(addressOf(info[0]), info[1].As<Napi::Boolean>().Value());
  }

  void SetKeepalive(const Napi::CallbackInfo& info) {
    if (engine_) engine_->setKeepalive(info[0].As<Napi::Number>().Int32Value());
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

  Napi::Value InspectBusy(const Napi::CallbackInfo& info) {
    const Napi::Object object = info[0].As<Napi::Object>();
    const Busy wanted = {number(object, "max"), number(object, "olderThanMs"), number(object, "minBytes")};
    return Ask([this, &wanted](uint64_t id) { engine_->inspectBusy(id, wanted); });
  }

  Napi::Value TakeRefusals(const Napi::CallbackInfo&) { return toArray(env_, engine_ ? engine_->takeRefusals() : std::vector<Refusal>()); }

  Napi::Value Stats(const Napi::CallbackInfo&) {
    Napi::Object object = Napi::Object::New(env_);
    static const Counters none;
    const Counters& counters = engine_ ? engine_->counters() : none;
    object.Set("connections", toNumber(env_, counters.connections));
    object.Set("relaying", toNumber(env_, counters.relaying));
    object.Set("pipesInUse", toNumber(env_, counters.pipesInUse));
    object.Set("pipesPooled", toNumber(env_, counters.pipesPooled));
    object.Set("bytesParked", static_cast<double>(counters.bytesParked));
    const uint64_t activeMs = counters.activeMs;
    object.Set("calmMs", toNumber(env_, std::max(monotonicMs(), activeMs) - activeMs));
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
