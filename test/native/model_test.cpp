// Plays random schedules of what a client and a server do, through the engine over each kind of path, and on a direct connection. The same bytes
// must arrive in order, with the same kind of end. `Play` judges each connection by what TCP promises. A schedule in which each step settles
// before the next one must also end exactly as on the direct connection.
//
//   MODEL_SECONDS=600     how long to play; default: 8
//   MODEL_SEED=1          the first schedule's seed; each run prints it
//   MODEL_REPLAY='prepared6: c send 10, s urgent, settle, s reset'     only this schedule, 50 times
#include "play.h"

#include <map>

#include "engine_fixture.h"

namespace {
enum class Kind : uint8_t { Direct, Redirect, Poor, Sequential, Pipelined, Prepared };
struct Path {
  const char* name;
  Kind kind;
  int family;
};
constexpr Path kPaths[] = {
    {"direct4", Kind::Direct, AF_INET},
    {"direct6", Kind::Direct, AF_INET6},
    {"redirect4", Kind::Redirect, AF_INET},
    {"redirect6", Kind::Redirect, AF_INET6},
    {"poor4", Kind::Poor, AF_INET},
    {"poor6", Kind::Poor, AF_INET6},
    {"sequential4", Kind::Sequential, AF_INET},
    {"sequential6", Kind::Sequential, AF_INET6},
    {"pipelined4", Kind::Pipelined, AF_INET},
    {"pipelined6", Kind::Pipelined, AF_INET6},
    {"prepared4", Kind::Prepared, AF_INET},
    {"prepared6", Kind::Prepared, AF_INET6},
};
constexpr size_t kDirects = 2;

Address any(int family) {
  Address address;
  CHECK(parseAddress(family == AF_INET ? "127.0.0.1" : "::1", 0, &address));
  return address;
}

// Leaves so few descriptors to an engine that is made meanwhile that its connections have to share a few pipes.
class FewDescriptors {
 public:
  FewDescriptors() {
    CHECK(getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const rlimit few = {descriptors() + 64 + 2 * options().workers + 20, before_.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

// Every connection's receive buffers are held small (buffers.cpp).
EngineOptions littleMemory() {
  EngineOptions some = options();
  some.bufferMemory = 1024 * 1024;
  return some;
}

// A gateway, one with few descriptors and little memory, a HAG with little memory, and how each client's connection is dialled.
class World {
 public:
  World() : hag(littleMemory(), serve), gateway(options(), decideIts()) {
    {
      const FewDescriptors few;
      poor = std::make_unique<Owner>(littleMemory(), decideIts());
    }
    for (const int family : {AF_INET, AF_INET6}) {
      entries_[family] = listen(&hag, ListenerKind::Socks, family, true);
      fronts_[family] = listen(&gateway, ListenerKind::Redirect, family, false);
      poorFronts_[family] = listen(poor.get(), ListenerKind::Redirect, family, false);
    }
    preparing_ = std::thread([this] { prepare(); });
  }
  ~World() {
    over_ = true;
    preparing_.join();
    CHECK(eventually([&] { return gateway.counters().connections == 0; }));
    gateway.close();
    CHECK(eventually([&] { return poor->counters().connections == 0; }));
    poor->close();
    CHECK(eventually([&] { return hag.counters().connections == 0; }));
    hag.close();
  }

  // Returns what was wrong; empty: nothing.
  std::string play(const Schedule& schedule, const Path& path, std::string* outcome, bool* isCertain) {
    const int listener = socket(path.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int client = socket(path.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const Address none = any(path.family);
    CHECK(listener >= 0 && client >= 0);
    CHECK(bind(listener, &none.sa, sizeOf(none)) == 0 && ::listen(listener, 8) == 0 && bind(client, &none.sa, sizeOf(none)) == 0);
    const Address server = localAddress(listener);
    Address to = server;
    if (path.kind != Kind::Direct) {
      to = (path.kind == Kind::Poor ? poorFronts_ : fronts_)[path.family];
      const std::lock_guard<std::mutex> lock(mutex_);
      specs_[{path.family, portOf(localAddress(client))}] = specTo(server, path);
    }
    const Play played(schedule, client, listener, [&to](int fd) { return connect(fd, &to.sa, sizeOf(to)) == 0; });
    closeFd(listener);
    *outcome = played.outcome();
    *isCertain = played.isCertain();
    return played.complaint();
  }
  std::atomic<unsigned> prepared{0};

 private:
  static Address listen(Owner* owner, ListenerKind kind, int family, bool authentication) {
    Address bound;
    Protocol protocol;
    Failure failure;
    CHECK(owner->engine().listen({kind, any(family), authentication}, &bound, &protocol, &failure));
    return bound;
  }

  DialSpec specTo(const Address& server, const Path& path) {
    if (path.kind == Kind::Redirect || path.kind == Kind::Poor) return direct(server);
    DialSpec spec = through(entries_[path.family], server, path.kind != Kind::Sequential, true);
    spec.host = formatAddress(server);
    spec.prepared = path.kind == Kind::Prepared;
    spec.handshakeTimeoutMs = spec.connectTimeoutMs = 20000;
    return spec;
  }

  Owner::Decide decideIts() {
    return [this](Engine& engine, const Event& event) { decide(engine, event); };
  }

  void decide(Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Opened>(&event); it != nullptr && it->prepared) ++prepared;
    if (const auto* const it = std::get_if<Failed>(&event)) engine.reset(it->id);
    const auto* const it = std::get_if<Accepted>(&event);
    if (it == nullptr) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    engine.dial(it->id, specs_[{it->client.sa.sa_family, portOf(it->client)}]);
  }

  void prepare() {
    std::vector<DialSpec> specs;
    for (const int family : {AF_INET, AF_INET6}) {
      DialSpec spec = specTo(any(family), {"", Kind::Prepared, family});
      spec.connectRequest = spec.pipelined = spec.prepared = false;
      specs.push_back(spec);
    }
    for (uint64_t asked = 0; !over_; usleep(30000)) {
      const std::vector<uint64_t> counts = gateway.engine().keepPrepared(specs, 16, 60000).counts;
      for (size_t at = 0; at < specs.size(); ++at) {
        for (uint64_t i = counts[at]; i < 8; ++i) gateway.engine().probe(++asked, specs[at], Purpose::Prepare);
      }
    }
  }

  std::mutex mutex_;
  std::map<std::pair<int, uint16_t>, DialSpec> specs_;
  std::map<int, Address> entries_, fronts_, poorFronts_;
  std::atomic<bool> over_{false};
  std::thread preparing_;

 public:
  Owner hag, gateway;
  std::unique_ptr<Owner> poor;
};

bool isOrderly(const Schedule& schedule) {
  for (size_t i = 0; i < schedule.size(); ++i) {
    const Act act = schedule[i].act;
    if (act == Act::Small || act == Act::Inline || act == Act::Settle) continue;
    if (i + 1 == schedule.size() || schedule[i + 1].act != Act::Settle) return false;
  }
  return true;
}

std::string compare(World* world, const Schedule& schedule, const Path& path) {
  std::string outcome, straight;
  bool isCertain = true, isStraightCertain = true;
  std::string complaint = world->play(schedule, path, &outcome, &isCertain);
  if (!complaint.empty()) return complaint + " (" + outcome + ")";
  if (path.kind == Kind::Direct || !isOrderly(schedule)) return {};
  const Path& plain = kPaths[path.family == AF_INET ? 0 : 1];
  complaint = world->play(schedule, plain, &straight, &isStraightCertain);
  if (!complaint.empty()) return "direct: " + complaint + " (" + straight + ")";
  if (!isCertain || !isStraightCertain || outcome == straight) return {};
  return outcome + " instead of " + straight;
}

// A rare failure shows sooner if the same schedule is played several times at once.
std::string compareOften(World* world, const Schedule& schedule, const Path& path, unsigned times) {
  std::mutex mutex;
  std::string found;
  inParallel(times, [&](unsigned) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!found.empty()) return;
    }
    const std::string complaint = compare(world, schedule, path);
    const std::lock_guard<std::mutex> lock(mutex);
    if (found.empty()) found = complaint;
  });
  return found;
}

// Leaves out deeds, and makes amounts smaller, as long as the schedule still fails.
Schedule shrink(World* world, Schedule schedule, const Path& path) {
  const auto until = Clock::now() + std::chrono::seconds(60);
  const auto stillFails = [&](const Schedule& tried) { return Clock::now() < until && !compareOften(world, tried, path, 16).empty(); };
  if (!stillFails(schedule)) return schedule;
  for (size_t length = schedule.size() / 2; length > 0; length /= 2) {
    for (size_t at = 0; at + length <= schedule.size();) {
      Schedule tried = schedule;
      tried.erase(tried.begin() + static_cast<std::ptrdiff_t>(at), tried.begin() + static_cast<std::ptrdiff_t>(at + length));
      if (stillFails(tried)) {
        schedule = tried;
      } else {
        at += length;
      }
    }
  }
  for (size_t i = 0; i < schedule.size(); ++i) {
    for (const unsigned amount : {1U, 100U, schedule[i].amount / 16, schedule[i].amount / 2}) {
      if (amount == 0 || amount >= schedule[i].amount) continue;
      Schedule tried = schedule;
      tried[i].amount = amount;
      if (!stillFails(tried)) continue;
      schedule = tried;
      break;
    }
  }
  return schedule;
}

[[noreturn]] void report(World* world, const Schedule& schedule, const Path& path, const std::string& complaint) {
  std::fprintf(stderr, "%s: %s\n  %s\n", path.name, complaint.c_str(), textOf(schedule).c_str());
  const Schedule small = shrink(world, schedule, path);
  std::fprintf(stderr, "MODEL_REPLAY='%s: %s'\n", path.name, textOf(small).c_str());
  std::exit(1);
}

void replay(const std::string& text) {
  const size_t colon = text.find(':');
  Schedule schedule;
  CHECK(colon != std::string::npos && parseSchedule(text.substr(colon + 1), &schedule));
  World world;
  for (const Path& path : kPaths) {
    if (text.compare(0, colon, path.name) != 0) continue;
    const std::string complaint = compareOften(&world, schedule, path, 50);
    std::printf("%s: %s\n", path.name, complaint.empty() ? "50 times as it should" : complaint.c_str());
    if (!complaint.empty()) std::exit(1);
  }
}

unsigned setting(const char* name, unsigned usual) {
  const char* const text = std::getenv(name);
  return text == nullptr ? usual : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

void playMany() {
  const unsigned seed = setting("MODEL_SEED", std::random_device()() % 1000000000);
  const auto until = Clock::now() + std::chrono::seconds(setting("MODEL_SECONDS", 8));
  std::printf("MODEL_SEED=%u\n", seed);
  std::fflush(stdout);
  World world;
  std::atomic<unsigned> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  Schedule schedule;
  std::string complaint;
  size_t worst = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 32; ++i) {
    threads.emplace_back([&] {
      while (!failed && Clock::now() < until) {
        const unsigned number = next++;
        const size_t path = number % 16 == 0 ? number / 16 % kDirects : kDirects + number % (std::size(kPaths) - kDirects);
        const Schedule one = makeSchedule(seed + number);
        const std::string found = compare(&world, one, kPaths[path]);
        if (found.empty()) continue;
        const std::lock_guard<std::mutex> lock(mutex);
        if (failed.exchange(true)) continue;
        schedule = one;
        complaint = found;
        worst = path;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (failed) report(&world, schedule, kPaths[worst], complaint);
  std::printf("%u schedules, %u over prepared connections\n", next.load(), world.prepared.load());
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  if (const char* const text = std::getenv("MODEL_REPLAY")) {
    replay(text);
  } else {
    playMany();
  }
  CHECK(descriptors() == before);
  return passed();
}
