// A library that panics on the tool `gate.trap`, on `gate.trap-once` in one instance alone, and when it is told of the enrollment
// `gate.trap-told`; and what comes after. Linked against one that was built to.
#include <stdio.h>
#include <string.h>

#include "fixture.h"

static const char UNDECIDED[] = "the gate panicked on this call";

static const char UNTOLD[] =
    "a panic while the answer was read: a trap was asked for: gate.trap-told; report it as a defect of this library";

static const char WHY[] = "\"why\":\"a panic while it decided: a trap was asked for; report it as a defect of this library\"";

static void allowed(ag_guard *guard) {
  ag_tool_call call = {.tool = "tool.echo"};
  ag_permit *permit;
  CHECK(ag_guard_ask(guard, &call, &permit, NULL) == AG_OK);
  ag_permit_finish(permit, AG_COMPLETED);
}

static ag_denial *denied(ag_guard *guard, const char *tool) {
  ag_tool_call call = {.tool = tool};
  ag_permit *permit;
  ag_denial *denial;
  CHECK(ag_guard_ask(guard, &call, &permit, &denial) == AG_DENIED && permit == NULL);
  return denial;
}

static char *frames_of(const ag_memory_host *memory) {
  char *frames;
  CHECK(ag_memory_host_frames(memory, &frames) == AG_OK);
  return frames;
}

static int count(const char *text, const char *part) {
  int found = 0;
  for (; (text = strstr(text, part)) != NULL; ++text) ++found;
  return found;
}

static void denied_and_not_written_down(ag_guard *guard, const ag_memory_host *memory, const char *tool, const char *cause) {
  char *before = frames_of(memory);
  ag_denial *denial = denied(guard, tool);
  CHECK(denial->reason == AG_AUDIT_WAL_UNAVAILABLE && denial->status == 503);
  CHECK_TEXT(denial->cause, cause);
  ag_denial_free(denial);
  char *after = frames_of(memory);
  CHECK_TEXT(after, before);
  ag_string_free(before);
  ag_string_free(after);
}

// The new instance decides: what it was told is in the frames.
static void denied_and_written_down(ag_guard *guard, const ag_memory_host *memory, const char *tool) {
  ag_denial *denial = denied(guard, tool);
  CHECK(denial->reason == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE && denial->status == 403 && denial->cause == NULL);
  char *frames = frames_of(memory), id[64];
  snprintf(id, sizeof id, "\"audit_id\":\"%s\"", denial->audit_id);
  // Its facts, what the policy said, and what the gate found.
  CHECK(count(frames, id) == 3);
  const char *facts = strstr(frames, id);
  CHECK(strstr(facts, WHY) != NULL && count(facts, id) == 3);
  CHECK(strstr(facts, "\"reason\":\"attestation: enrollment_unavailable\"") != NULL);
  ag_string_free(frames);
  ag_denial_free(denial);
}

static void a_panic_denies_and_is_forgotten(const bundle *bundle, ag_mode mode) {
  ag_gate *gate = gate_load(bundle, mode), *other = gate_load(bundle, mode);
  ag_memory_host *memory = ag_memory_host_new();
  CHECK(ag_memory_host_enroll(memory, "robot-7", bundle->enrollment_ref, NULL, NULL) == AG_OK);
  ag_guard_options options = {.gate = gate, .source = ag_memory_host_source(memory), .sink = ag_memory_host_sink(memory)};
  ag_guard *guard;
  CHECK(ag_guard_new(&options, &guard) == AG_OK);
  allowed(guard);
  for (int round = 0; round < 3; ++round) {
    // It panics in the new instance as well: nobody can put it into frames.
    denied_and_not_written_down(guard, memory, "gate.trap", UNDECIDED);
    allowed(guard);
    if (mode == AG_MODE_ENFORCE) {
      denied_and_written_down(guard, memory, "gate.trap-once");
    } else {
      // The new instance would let it through.
      denied_and_not_written_down(guard, memory, "gate.trap-once", UNDECIDED);
    }
    // No instance can be told what the source says.
    CHECK(ag_memory_host_enroll(memory, "robot-7", "gate.trap-told", NULL, NULL) == AG_OK);
    denied_and_not_written_down(guard, memory, "tool.echo", UNTOLD);
    CHECK(ag_gate_verdict(gate, 1800000000000) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
    char *explained;
    CHECK(ag_gate_explain(gate, 1800000000000, &explained) == AG_PANICKED && explained == NULL);
    CHECK(ag_memory_host_enroll(memory, "robot-7", bundle->enrollment_ref, NULL, NULL) == AG_OK);
    for (int at = 0; at < 1000; ++at) allowed(guard);
  }
  char *frames = frames_of(memory);
  CHECK(count(frames, "\"outcome\":\"completed\"") == 3004);
  CHECK(count(frames, "\"outcome\":\"allow\"") == 3004 + (mode == AG_MODE_ENFORCE ? 3 : 0));
  CHECK(count(frames, "\"outcome\":\"deny\"") == (mode == AG_MODE_ENFORCE ? 3 : 0));
  ag_string_free(frames);

  ag_call calls[] = {{.tool = "tool.echo", .policy = AG_POLICY_ALLOWED},
                     {.tool = "gate.trap", .policy = AG_POLICY_ALLOWED},
                     {.tool = "gate.trap-once", .policy = AG_POLICY_ALLOWED},
                     {.tool = "tool.echo", .policy = AG_POLICY_ALLOWED}};
  ag_decision *decisions[4];
  CHECK(ag_gate_decide_batch(gate, calls, 4, decisions) == AG_OK);
  CHECK(decisions[0]->allowed && !decisions[1]->allowed && !decisions[2]->allowed && decisions[3]->allowed);
  CHECK(decisions[1]->facts == NULL);
  CHECK_TEXT(decisions[1]->frames, "[]");
  const bool decided = mode == AG_MODE_ENFORCE;
  CHECK(decisions[2]->reason == (decided ? AG_ATTESTATION_ENROLLMENT_UNAVAILABLE : AG_AUDIT_WAL_UNAVAILABLE));
  CHECK((decisions[2]->facts != NULL) == decided && (strstr(decisions[2]->frames, WHY) != NULL) == decided);
  CHECK(decided || strcmp(decisions[2]->frames, "[]") == 0);
  for (int at = 0; at < 4; ++at) ag_decision_free(decisions[at]);
  // Another gate knows nothing of it.
  CHECK(ag_gate_verdict(other, 1800000000000) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  ag_guard_free(guard);
  ag_memory_host_free(memory);
  ag_gate_free(gate);
  ag_gate_free(other);
}

int main(void) {
  bundle bundle = bundle_load();
  for (int mode = AG_MODE_OFF; mode <= AG_MODE_ENFORCE; ++mode) a_panic_denies_and_is_forgotten(&bundle, (ag_mode)mode);
  bundle_free(&bundle);
  played("trap");
  return 0;
}
