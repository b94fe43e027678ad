// A library that panics on the tool `gate.trap`, and what comes after. Linked against one that was built to.
#include <stdio.h>
#include <string.h>

#include "fixture.h"

static void denied(ag_guard *guard) {
  ag_tool_call call = {.tool = "gate.trap"};
  ag_permit *permit;
  ag_denial *denial;
  CHECK(ag_guard_ask(guard, &call, &permit, &denial) == AG_DENIED && permit == NULL);
  // It panics in the new instance as well: nobody can put it into frames.
  CHECK(denial->reason == AG_AUDIT_WAL_UNAVAILABLE && denial->status == 503);
  CHECK_TEXT(denial->cause, "the gate panicked, twice");
  ag_denial_free(denial);
}

int main(void) {
  bundle bundle = bundle_load();
  ag_gate *gate = gate_load(&bundle, AG_MODE_ENFORCE), *other = gate_load(&bundle, AG_MODE_ENFORCE);
  ag_memory_host *memory = ag_memory_host_new();
  CHECK(ag_memory_host_enroll(memory, "robot-7", bundle.enrollment_ref, NULL, NULL) == AG_OK);
  ag_guard_options options = {.gate = gate, .source = ag_memory_host_source(memory), .sink = ag_memory_host_sink(memory)};
  ag_guard *guard;
  CHECK(ag_guard_new(&options, &guard) == AG_OK);
  for (int round = 0; round < 3; ++round) {
    denied(guard);
    for (int at = 0; at < 1000; ++at) {
      ag_tool_call call = {.tool = "tool.echo"};
      ag_permit *permit;
      CHECK(ag_guard_ask(guard, &call, &permit, NULL) == AG_OK);
      ag_permit_finish(permit, AG_COMPLETED);
    }
  }
  ag_call calls[] = {{.tool = "tool.echo", .policy = AG_POLICY_ALLOWED},
                     {.tool = "gate.trap", .policy = AG_POLICY_ALLOWED},
                     {.tool = "tool.echo", .policy = AG_POLICY_ALLOWED}};
  ag_decision *decisions[3];
  CHECK(ag_gate_decide_batch(gate, calls, 3, decisions) == AG_OK);
  CHECK(decisions[0]->allowed && !decisions[1]->allowed && decisions[2]->allowed);
  CHECK(decisions[1]->facts == NULL);
  CHECK_TEXT(decisions[1]->frames, "[]");
  for (int at = 0; at < 3; ++at) ag_decision_free(decisions[at]);
  // Another gate knows nothing of it.
  CHECK(ag_gate_verdict(other, 1800000000000) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  ag_guard_free(guard);
  ag_memory_host_free(memory);
  ag_gate_free(gate);
  ag_gate_free(other);
  bundle_free(&bundle);
  puts("conformance {\"language\":\"c\",\"fault\":\"trap\"}");
  return 0;
}
