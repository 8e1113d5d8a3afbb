// What the *_binding.cpp files add to the exports; the declarations for TypeScript are in contract.ts.
#pragma once
#include <napi.h>

void InitEngine(Napi::Env env, Napi::Object exports);  // engine_binding.cpp
void InitSystem(Napi::Env env, Napi::Object exports);  // system_binding.cpp
