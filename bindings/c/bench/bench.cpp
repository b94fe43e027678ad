// Measures the installed library beside Lua, the policy language that servers in C embed: docs/src/spec/conformance.md.
// `bench <bundle.tar> <key.pem> <url> <token file>`; `bench load <bundle.tar> <key.pem>` is one load in a process of its own.
#include <autonomy_gate.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <lua.hpp>

#include "../test/corpus.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t now_ms = 1'800'000'000'000;

std::int64_t since(Clock::time_point started) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - started).count();
}

void print(const std::string& engine, const std::string& what, std::vector<double> samples, std::size_t calls) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double part) {
    return static_cast<std::int64_t>(samples[static_cast<std::size_t>(part * static_cast<double>(samples.size() - 1))]);
  };
  const nlohmann::ordered_json line = {{"language", "c"},      {"engine", engine},     {"what", what},  {"p50_ns", at(0.5)},
                                       {"p95_ns", at(0.95)}, {"p99_ns", at(0.99)}, {"calls", calls}};
  std::cout << "bench " << line.dump() << std::endl;
}

/// A sample is the mean of `batch` calls: one is shorter than the clock is exact.
template <class Body>
void measure(const std::string& engine, const std::string& what, std::size_t samples, std::size_t batch, Body body) {
  std::vector<double> found;
  for (std::size_t at = 0; at < samples / 10 * batch; ++at) body();
  for (std::size_t sample = 0; sample < samples; ++sample) {
    const auto started = Clock::now();
    for (std::size_t at = 0; at < batch; ++at) body();
    found.push_back(static_cast<double>(since(started)) / static_cast<double>(batch));
  }
  print(engine, what, found, samples * batch);
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("`" + path + "` cannot be read: give a file");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

autonomy::GateOptions options(const std::string& bundle, const std::string& key) {
  autonomy::GateOptions options;
  options.node_id = "robot-7";
  options.mode = AG_MODE_ENFORCE;
  options.bundle = bundle;
  options.trusted_keys = {key};
  return options;
}

void expect(bool holds) {
  if (!holds) throw std::runtime_error("what is measured does not answer as it should");
}

const char* const LUA_POLICY = R"(
  local good = { ["<none>"] = true, pending = true, acknowledged = true, active = true }
  function allow(node, ref, row)
    return row ~= nil and row.node_id == node and row.status == "active" and row.enrollment_ref == ref
      and good[row.rollout_state] == true
  end
)";

void lua(const std::string& ref) {
  const std::unique_ptr<lua_State, decltype(&lua_close)> state(luaL_newstate(), lua_close);
  lua_State* L = state.get();
  luaL_openlibs(L);
  expect(luaL_dostring(L, LUA_POLICY) == LUA_OK);
  measure("lua " LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE, "verdict", 2000, 100, [&] {
    lua_getglobal(L, "allow");
    lua_pushstring(L, "robot-7");
    lua_pushstring(L, ref.c_str());
    lua_createtable(L, 0, 4);
    for (const auto& [name, value] : {std::pair{"node_id", "robot-7"}, std::pair{"status", "active"},
                                      std::pair{"enrollment_ref", ref.c_str()}, std::pair{"rollout_state", "<none>"}}) {
      lua_pushstring(L, value);
      lua_setfield(L, -2, name);
    }
    expect(lua_pcall(L, 3, 1, 0) == LUA_OK && lua_toboolean(L, -1) == 1);
    lua_pop(L, 1);
  });
}

int load(const std::string& bundle, const std::string& key) {
  const std::string tar = read(bundle), pem = read(key);
  const auto started = Clock::now();
  const autonomy::Gate gate(options(tar, pem));
  std::cout << since(started) << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 3 && arguments[0] == "load") return load(arguments[1], arguments[2]);
  if (arguments.size() != 4) throw std::runtime_error("usage: bench <bundle.tar> <key.pem> <url> <token file>");
  const std::string engine = std::string("native ") + ag_version();

  std::vector<double> loads;
  for (int at = 0; at < 50; ++at) {
    const std::string command = std::string(argv[0]) + " load " + arguments[0] + " " + arguments[1];
    const std::unique_ptr<FILE, decltype(&pclose)> process(popen(command.c_str(), "r"), pclose);
    double ns = 0;
    expect(process != nullptr && std::fscanf(process.get(), "%lf", &ns) == 1);
    loads.push_back(ns);
  }
  print(engine, "load", loads, loads.size());

  autonomy::Gate gate(options(read(arguments[0]), read(arguments[1])));
  const std::string ref = gate.bundle()->enrollment_ref;
  gate.set_enrollment(autonomy::Answer::enrolled("robot-7", ref, "active", "<none>", 1, now_ms));
  expect(gate.verdict(now_ms) == AG_REASON_NONE);
  measure(engine, "verdict", 2000, 1000, [&] { expect(gate.verdict(now_ms) == AG_REASON_NONE); });
  lua(ref);

  ag_call call{};
  call.tool = "tool.echo";
  call.policy = AG_POLICY_ALLOWED;
  call.now_ms = now_ms;
  ag_decision* first = nullptr;
  expect(ag_gate_decide(gate.get(), &call, &first) == AG_OK);
  const autonomy::Decision logged(first);
  call.facts_logged = logged->facts;
  std::vector<std::string> tools;
  for (int at = 0; at < 64; ++at) tools.push_back("tool." + std::to_string(at));
  std::size_t asked = 0;
  measure(engine, "decide", 2000, 100, [&] {
    call.tool = tools[asked++ % tools.size()].c_str();
    ag_decision* decision = nullptr;
    expect(ag_gate_decide(gate.get(), &call, &decision) == AG_OK && decision->allowed);
    ag_decision_free(decision);
  });

  // Each is asked for once, those of the calls that warm up too.
  std::vector<std::string> policy_refs;
  for (int at = 0; at < 2200 * 10; ++at) policy_refs.push_back("fleet@" + std::to_string(at));
  std::size_t referred = 0;
  measure(engine, "decide_first", 2000, 10, [&] {
    call.policy_ref = policy_refs.at(referred++).c_str();
    ag_decision* decision = nullptr;
    expect(ag_gate_decide(gate.get(), &call, &decision) == AG_OK && decision->allowed);
    ag_decision_free(decision);
  });

  const auto host = autonomy::NativeHost::at_url(arguments[2], arguments[3]);
  autonomy::Guard guard(gate, host.source(), host.sink());
  // Kept until the end: what is written down of a permit is no part of asking for it.
  std::vector<autonomy::Permit> permits;
  measure(engine, "decide_durable", 1000, 1, [&] { permits.push_back(guard.ask("tool.echo")); });
  return 0;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
