// A schedule: what the two ends of a connection do, in order. It is made from a seed, and written as text that can be replayed.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

enum class Act : uint8_t {
  Small,   // the smallest receive buffer; before all other deeds
  Inline,  // SO_OOBINLINE; before all other deeds
  Send,    // `amount` bytes, after those that wait to be sent
  Urgent,  // a byte with MSG_OOB, after those that wait to be sent
  Shut,    // half-close, after the bytes that wait to be sent
  Reset,   // close with linger 0, at once
  Close,   // close, even if bytes are unread or wait to be sent
  Stop,    // read no more
  ReadOn,
  Settle,  // both: wait until everything has arrived that can arrive
  Pause,   // both: `amount` ms
};
constexpr const char* kActs[] = {"small", "inline", "send", "urgent", "shut", "reset", "close", "stop", "read", "settle", "pause"};

struct Deed {
  unsigned who = 0;  // 0: the client, 1: the server
  Act act = Act::Settle;
  unsigned amount = 0;
};
using Schedule = std::vector<Deed>;

inline bool isBoths(Act act) { return act == Act::Settle || act == Act::Pause; }
inline bool hasAmount(Act act) { return act == Act::Send || act == Act::Pause; }

// For example `c send 10, settle, s reset`.
inline std::string textOf(const Schedule& schedule) {
  std::string text;
  for (const Deed& deed : schedule) {
    if (!text.empty()) text += ", ";
    if (!isBoths(deed.act)) text += deed.who == 0 ? "c " : "s ";
    text += kActs[static_cast<size_t>(deed.act)];
    if (hasAmount(deed.act)) text += " " + std::to_string(deed.amount);
  }
  return text;
}

inline bool parseSchedule(const std::string& text, Schedule* schedule) {
  std::istringstream deeds(text);
  for (std::string one; std::getline(deeds, one, ',');) {
    std::istringstream words(one);
    std::string word;
    Deed deed;
    words >> word;
    if (word == "c" || word == "s") {
      deed.who = word == "c" ? 0 : 1;
      words >> word;
    }
    size_t act = 0;
    while (act < std::size(kActs) && word != kActs[act]) ++act;
    if (act == std::size(kActs)) return false;
    deed.act = static_cast<Act>(act);
    if (hasAmount(deed.act)) words >> deed.amount;
    if (words.fail()) return false;
    schedule->push_back(deed);
  }
  return true;
}

inline Schedule makeSchedule(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&random](unsigned count) { return static_cast<unsigned>(random() % count); };
  Schedule schedule;
  for (unsigned who = 0; who < 2; ++who) {
    if (below(4) == 0) schedule.push_back({who, Act::Small, 0});
    if (below(4) == 0) schedule.push_back({who, Act::Inline, 0});
  }
  const bool isSmall = std::any_of(schedule.begin(), schedule.end(), [](const Deed& deed) { return deed.act == Act::Small; });
  // In half of the schedules each deed has settled before the next one. They must end in the same way each time, as a direct connection ends.
  const bool isOrderly = below(2) == 0;
  static constexpr struct {
    Act act;
    unsigned weight;
  } kWeights[] = {{Act::Send, 40}, {Act::Settle, 14}, {Act::Pause, 8}, {Act::Urgent, 9}, {Act::Shut, 7},
                  {Act::Stop, 7},  {Act::ReadOn, 5},  {Act::Reset, 5}, {Act::Close, 5}};
  for (unsigned left = 1 + below(14); left > 0; --left) {
    unsigned at = below(100);
    size_t kind = 0;
    while (at >= kWeights[kind].weight) at -= kWeights[kind++].weight;
    Deed deed = {below(2), kWeights[kind].act, 0};
    if (deed.act == Act::Pause) deed.amount = 1 + below(below(8) == 0 ? 60 : 8);
    // Few bytes if a buffer is small, because many would take long.
    if (deed.act == Act::Send) deed.amount = 1 + below(1U << (isSmall ? 1 + below(15) : below(30) == 0 ? 21 : 1 + below(18)));
    schedule.push_back(deed);
    if (isOrderly && deed.act != Act::Settle) schedule.push_back({0, Act::Settle, 0});
  }
  return schedule;
}
