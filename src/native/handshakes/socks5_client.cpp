#include "handshakes/socks5_client.h"

#include "handshakes/socks5.h"

size_t Socks5Client::expected(const std::string& answer) const {
  if (step_ != Step::Reply) return 2;
  return socks5::replyLength(reinterpret_cast<const uint8_t*>(answer.data()), answer.size());
}

Socks5Client::Outcome Socks5Client::take(const std::string& answer) {
  const auto first = static_cast<uint8_t>(answer[0]);
  const auto second = static_cast<uint8_t>(answer[1]);
  switch (step_) {
    case Step::Method:
      if (first != 5) return Outcome::NotSocks;
      if (second == socks5::kNotAClient) return Outcome::NotAClient;
      if (second == socks5::kNoneAcceptable) return Outcome::Refused;
      if (second != (withPassword_ ? socks5::kUserPassword : socks5::kNoAuthentication)) return Outcome::NotSocks;
      step_ = withPassword_ ? Step::Status : Step::Reply;
      return Outcome::Next;
    case Step::Status:
      if (first != 1) return Outcome::NotSocks;
      if (second != 0) return Outcome::Refused;
      step_ = Step::Reply;
      return Outcome::Next;
    case Step::Reply:
      break;
  }
  if (expected(answer) != answer.size()) return Outcome::More;
  reply_ = second;
  return second == socks5::kSucceeded ? Outcome::Opened : Outcome::Failed;
}
