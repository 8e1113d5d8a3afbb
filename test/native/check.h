// For all native tests: a check that prints where it failed, and the count of checks at the end.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>

inline std::atomic<unsigned> checks{0};

#define CHECK(condition)                                                             \
  do {                                                                               \
    ++checks;                                                                        \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (false)

inline int passed() {
  std::printf("%u checks passed\n", checks.load());
  return 0;
}
