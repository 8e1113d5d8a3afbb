// The addon's entry: each *_binding.cpp adds its own part to the exports that index.ts declares.
#include <napi.h>

#include "bindings.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitEngine(env, exports);
  InitLinkEmulator(env, exports);
  InitSystem(env, exports);
  return exports;
}

NODE_API_MODULE(bondsocks, Init)
