// The addon's entry. Each *_binding.cpp adds its part of the exports that contract.ts declares.
#include <napi.h>

#include "binding/bindings.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitEngine(env, exports);
  InitSystem(env, exports);
  return exports;
}

NODE_API_MODULE(bondsocks, Init)
