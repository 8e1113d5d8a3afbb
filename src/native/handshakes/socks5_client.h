// The client side of SOCKS5, step by step: how far each answer is to be read, and what it means. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class Socks5Client {
 public:
  // The answer that is awaited.
  enum class Step : uint8_t { Method, Status, Reply };
  enum class Outcome : uint8_t {
    More,  // its first bytes only say how long it is
    Next,  // and the next one is awaited
    Opened,
    Failed,   // `reply` says why
    Refused,  // our credentials, or that we have none
    NotAClient,
    NotSocks,
  };

  explicit Socks5Client(bool withPassword = false, Step step = Step::Method) : withPassword_(withPassword), step_(step) {}

  Step step() const { return step_; }
  int reply() const { return reply_; }
  // How long the answer is, as far as its first bytes tell: what follows belongs to the relay. 0: it is not SOCKS5.
  size_t expected(const std::string& answer) const;
  // Takes an answer of that length.
  Outcome take(const std::string& answer);

 private:
  bool withPassword_;
  Step step_;
  int reply_ = -1;
};
