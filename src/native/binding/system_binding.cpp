// What the kernel can do, for TypeScript.
#include <errno.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "binding/bindings.h"
#include "core/route.h"
#include "core/socket.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace {
Napi::Value NetnsCookie(const Napi::CallbackInfo& info) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool known = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0;
  closeFd(fd);
  struct stat status;
  // Before Linux 5.14 the inode has to do, although it can be used again after the namespace is gone.
  if (!known && stat("/proc/self/ns/net", &status) == 0) cookie = status.st_ino;
  return Napi::String::New(info.Env(), std::to_string(cookie));
}

Napi::Value MptcpUnavailable(const Napi::CallbackInfo& info) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 262);
  const int error = errno;
  closeFd(fd);
  return fd >= 0 ? info.Env().Undefined() : Napi::String::New(info.Env(), errnoName(error));
}

Napi::Value RefusedOptions(const Napi::CallbackInfo& info) {
  const std::vector<RefusedOption> refused = refusedOptions();
  Napi::Array array = Napi::Array::New(info.Env(), refused.size());
  uint32_t at = 0;
  for (const RefusedOption& one : refused) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("option", one.name);
    object.Set("code", errnoName(one.error));
    object.Set("count", static_cast<double>(one.count));
    array.Set(at++, object);
  }
  return array;
}

// Node has no flock(2).
Napi::Value TryLock(const Napi::CallbackInfo& info) {
  const bool isShared = info[1].ToBoolean().Value();
  int result;
  do {
    result = flock(info[0].As<Napi::Number>().Int32Value(), (isShared ? LOCK_SH : LOCK_EX) | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  return Napi::Boolean::New(info.Env(), result == 0);
}

Napi::Value RouteTo(const Napi::CallbackInfo& info) {
  static Routes routes;  // used by Node's thread only
  Address address = noAddress();
  const uint16_t port = info[1].IsNumber() ? static_cast<uint16_t>(info[1].As<Napi::Number>().Uint32Value()) : 0;
  Route route = Route::Unknown;
  errno = EINVAL;
  if (parseAddress(info[0].As<Napi::String>().Utf8Value(), port, &address)) route = routes.to(address);
  if (route == Route::Unknown) {
    Napi::Error error = Napi::Error::New(info.Env(), std::string(errnoName(errno)) + ": the kernel does not tell its routes");
    error.Set("code", errnoName(errno));
    error.ThrowAsJavaScriptException();
    return info.Env().Undefined();
  }
  static constexpr const char* kNames[] = {"", "unicast", "local", "broadcast", "anycast", "multicast", "none"};
  return Napi::String::New(info.Env(), kNames[static_cast<size_t>(route)]);
}
}  // namespace

void InitSystem(Napi::Env env, Napi::Object exports) {
  exports.Set("netnsCookie", Napi::Function::New(env, NetnsCookie, "netnsCookie"));
  exports.Set("tryLock", Napi::Function::New(env, TryLock, "tryLock"));
  exports.Set("routeTo", Napi::Function::New(env, RouteTo, "routeTo"));
  exports.Set("mptcpUnavailable", Napi::Function::New(env, MptcpUnavailable, "mptcpUnavailable"));
  exports.Set("refusedOptions", Napi::Function::New(env, RefusedOptions, "refusedOptions"));
}
