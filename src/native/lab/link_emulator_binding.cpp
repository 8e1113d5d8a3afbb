// The class LinkEmulator of src/lab/emulator.ts, in an addon of its own, so that the product contains nothing of the lab.
#include <cmath>
#include <cstring>

#include <napi.h>

#include "lab/link_emulator.h"

namespace {

using bondsocks::LinkCounters;
using bondsocks::LinkDirection;
using bondsocks::LinkEnd;
using bondsocks::LinkFailure;

// EPERM -> "EPERM" (strerrorname_np needs glibc 2.32, which Debian 12 and Ubuntu 24.04 have).
Napi::Error SystemError(Napi::Env env, int error, const std::string& syscall) {
  const char* name = strerrorname_np(error);
  const std::string code = name == nullptr ? "UNKNOWN" : name;
  Napi::Error thrown = Napi::Error::New(env, code + ": " + strerror(error) + ", " + syscall);
  thrown.Set("code", Napi::String::New(env, code));
  thrown.Set("errno", Napi::Number::New(env, error));
  thrown.Set("syscall", Napi::String::New(env, syscall));
  return thrown;
}

void ThrowType(Napi::Env env, const char* message) { Napi::TypeError::New(env, message).ThrowAsJavaScriptException(); }

bool ReadNumber(const Napi::Object& from, const char* key, double highest, double* to) {
  const Napi::Value value = from.Get(key);
  if (!value.IsNumber()) return false;
  *to = value.As<Napi::Number>().DoubleValue();
  return std::isfinite(*to) && *to >= 0 && *to <= highest;
}

bool ReadDirection(const Napi::Value& value, LinkDirection* to) {
  if (!value.IsObject()) return false;
  const auto from = value.As<Napi::Object>();
  return ReadNumber(from, "rate", 1e12, &to->rate) && ReadNumber(from, "delayUs", 6e7, &to->delay_us) &&
         ReadNumber(from, "queueBytes", 1e12, &to->queue_bytes) && ReadNumber(from, "loss", 1, &to->loss);
}

bool ReadEnd(const Napi::Value& value, LinkEnd* to) {
  if (!value.IsObject()) return false;
  const auto from = value.As<Napi::Object>();
  const Napi::Value netns = from.Get("netns");
  const Napi::Value device = from.Get("device");
  if (!netns.IsString() || !device.IsString()) return false;
  to->netns = netns.As<Napi::String>();
  to->device = device.As<Napi::String>();
  double mtu = 0;
  if (!from.Get("mtu").IsUndefined() && !ReadNumber(from, "mtu", 65535, &mtu)) return false;
  to->mtu = static_cast<int>(mtu);
  // IFNAMSIZ with its final zero.
  return !to->device.empty() && to->device.size() < 16;
}

class LinkEmulator : public Napi::ObjectWrap<LinkEmulator> {
 public:
  explicit LinkEmulator(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LinkEmulator>(info) {
    std::array<LinkEnd, 2> ends;
    std::array<LinkDirection, 2> directions;
    if (!ReadEnd(info[0], ends.data()) || !ReadEnd(info[1], &ends[1]) || !ReadDirection(info[2], directions.data()) ||
        !ReadDirection(info[3], &directions[1])) {
      ThrowType(info.Env(), "LinkEmulator: two ends and two directions are expected");
      return;
    }
    LinkFailure failure;
    link_ = bondsocks::LinkEmulator::Create(ends, directions, &failure);
    if (link_ == nullptr) SystemError(info.Env(), failure.error, failure.syscall).ThrowAsJavaScriptException();
  }

  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "LinkEmulator",
                       {InstanceMethod<&LinkEmulator::Set>("set"), InstanceMethod<&LinkEmulator::SetCarrier>("setCarrier"),
                        InstanceMethod<&LinkEmulator::Stats>("stats"), InstanceMethod<&LinkEmulator::Close>("close")});
  }

 private:
  bool IsOpen(Napi::Env env) {
    if (link_ != nullptr) return true;
    ThrowType(env, "LinkEmulator: closed");
    return false;
  }

  // The index of the word, 0 or 1.
  static bool ReadWord(const Napi::Value& value, const char* first, const char* second, size_t* to) {
    if (!value.IsString()) return false;
    const std::string word = value.As<Napi::String>();
    *to = word == second ? 1 : 0;
    return word == first || word == second;
  }

  void Set(const Napi::CallbackInfo& info) {
    size_t direction = 0;
    LinkDirection parameters;
    if (!IsOpen(info.Env())) return;
    if (!ReadWord(info[0], "forward", "backward", &direction) || !ReadDirection(info[1], &parameters)) {
      return ThrowType(info.Env(), "LinkEmulator.set: a direction and its parameters are expected");
    }
    link_->Set(direction, parameters);
  }

  void SetCarrier(const Napi::CallbackInfo& info) {
    size_t end = 0;
    if (!IsOpen(info.Env())) return;
    if (!ReadWord(info[0], "first", "second", &end) || !info[1].IsBoolean()) {
      return ThrowType(info.Env(), "LinkEmulator.setCarrier: an end and a boolean are expected");
    }
    const int error = link_->SetCarrier(end, info[1].As<Napi::Boolean>());
    if (error != 0) SystemError(info.Env(), error, "TUNSETCARRIER").ThrowAsJavaScriptException();
  }

  Napi::Value Stats(const Napi::CallbackInfo& info) {
    if (!IsOpen(info.Env())) return info.Env().Undefined();
    const auto counters = [&](size_t direction) {
      const LinkCounters from = link_->Counters(direction);
      Napi::Object to = Napi::Object::New(info.Env());
      to.Set("packets", static_cast<double>(from.packets));
      to.Set("bytes", static_cast<double>(from.bytes));
      to.Set("dropped", static_cast<double>(from.dropped));
      return to;
    };
    Napi::Object stats = Napi::Object::New(info.Env());
    stats.Set("forward", counters(0));
    stats.Set("backward", counters(1));
    return stats;
  }

  void Close(const Napi::CallbackInfo&) { link_.reset(); }

  std::unique_ptr<bondsocks::LinkEmulator> link_;
};

}  // namespace

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("LinkEmulator", LinkEmulator::Define(env));
  return exports;
}

NODE_API_MODULE(lab, Init)
