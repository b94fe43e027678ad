// What autonomy_gate.hpp adds: who frees, what throws, what becomes of a permit that nobody finished.
#include <autonomy_gate.hpp>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#define CHECK(holds) \
  if (!(holds)) throw std::runtime_error("line " + std::to_string(__LINE__) + " does not hold: " #holds)

namespace {

std::string fixture(const std::string& name) {
  const char* directory = std::getenv("FIXTURE");
  std::ifstream file(std::string(directory == nullptr ? "." : directory) + "/" + name, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

template <class Throws>
ag_status refused(Throws call) {
  try {
    call();
  } catch (const autonomy::Error& error) {
    return error.status;
  }
  return AG_OK;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

void run() {
  autonomy::GateOptions options;
  options.node_id = "robot-7";
  options.mode = AG_MODE_ENFORCE;
  options.bundle = fixture("bundle.tar");
  options.trusted_keys = {fixture("key.pem")};
  autonomy::Gate loaded(options);
  autonomy::Gate gate = std::move(loaded);
  autonomy::MemoryHost host;
  host.enroll("robot-7", fixture("enrollment_ref"));
  autonomy::Guard guard(gate, host.source(), host.sink());

  CHECK(guard.run("tool.echo", [] { return 7; }) == 7);
  bool broke = false;
  try {
    guard.run("tool.echo", []() -> void { throw std::runtime_error("broke"); });
  } catch (const std::runtime_error&) {
    broke = true;
  }
  CHECK(broke);
  {
    autonomy::Permit permit = guard.ask("tool.echo");
    const autonomy::Permit moved = std::move(permit);
    CHECK(moved.audit_id().size() == 36);
  }
  {
    autonomy::Permit permit = guard.ask("tool.echo");
    permit.finish(AG_COMPLETED);
    CHECK(permit.audit_id().size() == 36);
  }
  const std::string frames = host.frames();
  for (const auto& [outcome, times] : {std::pair{"completed", 2U}, std::pair{"failed", 1U}, std::pair{"abandoned", 1U}}) {
    CHECK(count(frames, "\"outcome\":\"" + std::string(outcome) + "\"") == times);
  }

  host.revoke("robot-7");
  try {
    guard.run("tool.echo", [] { std::abort(); });
  } catch (const autonomy::Denied& denied) {
    CHECK(denied.reason == AG_ATTESTATION_ENROLLMENT_REVOKED && denied.http_status == 403);
    CHECK(std::string(denied.what()) == "the call is denied: attestation: enrollment_revoked");
    CHECK(!denied.cause && !denied.policy_ref);
  }

  // A name that is cut short would be another tool's.
  CHECK(refused([&] { guard.ask(std::string("tool.echo\0.rm", 13)); }) == AG_MALFORMED);
  CHECK(refused([&] { gate.load_bundle(std::string(512, '\0')); }) == AG_REFUSED);
  CHECK(gate.bundle()->signers_len == 1);
  CHECK(refused([&] { gate.set_enrollment(autonomy::Answer::json("[]")); }) == AG_MALFORMED);
  CHECK(gate.verdict(1) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  CHECK(refused([&] { gate.decide(autonomy::Call{}); }) == AG_MALFORMED);
  autonomy::Call call;
  call.tool = "tool.echo";
  call.policy = AG_POLICY_ALLOWED;
  const auto decisions = gate.decide_batch({call, autonomy::Call{}});
  CHECK(decisions.size() == 2 && decisions[0]->error == nullptr && decisions[1]->error != nullptr);
  CHECK(gate.explain(1).find("\"sub_checks\":[") != std::string::npos);
  CHECK(autonomy::info().find("\"limits\"") != std::string::npos);
}

}  // namespace

int main() try {
  run();
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
