// The client side of SOCKS5, step by step: how many bytes of each answer to read, and what it means. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class Socks5Client {
 public:
  // The answer that is awaited.
  enum class Step : uint8_t { Method, Status, Reply };
  enum class Outcome : uint8_t {
    More,  // incomplete: its first bytes only told its length
    Next,  // go on to the next answer
    Opened,
    Failed,   // `reply` says why
    Refused,  // it does not accept our credentials, or wants some and we have none
    NotAClient,
    NotSocks,
  };

  explicit Socks5Client(bool withPassword = false, Step step = Step::Method) : withPassword_(withPassword), step_(step) {}

  Step step() const { return step_; }
  int reply() const { return reply_; }
  // The answer's length as far as its first bytes tell it. Do not read more: what follows belongs to the relay. 0: not SOCKS5.
  size_t expected(const std::string& answer) const;
  // `answer` has that length.
  Outcome take(const std::string& answer);

 private:
  bool withPassword_;
  Step step_;
  int reply_ = -1;
};
