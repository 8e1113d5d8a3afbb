// The addon's entry: each *_binding.cpp adds its own part to the exports that contract.ts declares.
#include <napi.h>

#include "binding/bindings.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitEngine(env, exports);
  InitSystem(env, exports);
  return exports;
}

NODE_API_MODULE(bondsocks, Init)
