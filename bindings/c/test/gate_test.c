// What a gate does beside deciding: refusals, misuse, who owns what.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static const uint64_t NOW_MS = 1800000000000;

static void tell(ag_gate *gate, const bundle *bundle, const char *status) {
  ag_answer *answer = ag_answer_new();
  ag_enrollment row = {"robot-7", bundle->enrollment_ref, status, "<none>", 1};
  CHECK(ag_answer_enrolled(answer, &row, NOW_MS) == AG_OK);
  CHECK(ag_gate_set_enrollment(gate, answer) == AG_OK);
  ag_answer_free(answer);
}

static void a_call_is_allowed_and_denied_once_the_node_is_revoked(const bundle *bundle) {
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  tell(gate, bundle, "active");
  CHECK(ag_gate_verdict(gate, NOW_MS) == 0);
  ag_call call = {.tool = "tool.echo", .policy = AG_POLICY_ALLOWED, .now_ms = NOW_MS};
  ag_decision *allowed, *denied;
  CHECK(ag_gate_decide(gate, &call, &allowed) == AG_OK);
  CHECK(allowed->allowed && allowed->reason == AG_REASON_NONE && allowed->verdict == 0 && allowed->error == NULL);
  CHECK(strlen(allowed->frames) == allowed->frames_len && strlen(allowed->audit_id) == 36);
  CHECK(strncmp(allowed->frames, "[{\"kind\":\"autonomy.facts\"", 25) == 0);
  tell(gate, bundle, "revoked");
  call.facts_logged = allowed->facts;
  CHECK(ag_gate_decide(gate, &call, &denied) == AG_OK);
  CHECK(!denied->allowed && denied->reason == AG_ATTESTATION_ENROLLMENT_REVOKED);
  CHECK(denied->verdict == AG_ATTESTATION_ENROLLMENT_REVOKED && strcmp(denied->facts, allowed->facts) != 0);
  char *json;
  CHECK(ag_gate_explain(gate, NOW_MS, &json) == AG_OK);
  CHECK(strncmp(json, "{\"verdict\":\"attestation: enrollment_revoked\"", 44) == 0);
  ag_string_free(json);
  // They outlive the gate.
  ag_gate_free(gate);
  CHECK_TEXT(ag_reason_text(denied->reason), "attestation: enrollment_revoked");
  ag_decision_free(allowed);
  ag_decision_free(denied);
}

static void a_batch_decides_what_as_many_calls_would(const bundle *bundle) {
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  tell(gate, bundle, "active");
  ag_call calls[] = {
      {.tool = "tool.echo", .policy = AG_POLICY_ALLOWED, .now_ms = NOW_MS, .audit_id = "a-1"},
      {.tool = "no tool", .policy = AG_POLICY_ALLOWED, .now_ms = NOW_MS},
      {.tool = "tool.echo", .policy = AG_POLICY_DENIED, .now_ms = NOW_MS, .audit_id = "a-3"},
      {.tool = NULL, .policy = AG_POLICY_ALLOWED, .now_ms = NOW_MS},
  };
  ag_decision *decisions[4];
  CHECK(ag_gate_decide_batch(gate, calls, 4, decisions) == AG_OK);
  CHECK(decisions[0]->allowed && decisions[2]->reason == AG_POLICY_DENIED && decisions[2]->verdict == AG_NOT_ASKED);
  CHECK(!decisions[1]->allowed && strncmp(decisions[1]->error, "the call is malformed: `tool`: ", 31) == 0);
  CHECK_TEXT(decisions[3]->error, "`tool` is NULL: it must be given");
  CHECK_TEXT(decisions[2]->audit_id, "a-3");
  for (int at = 0; at < 3; at += 2) {
    ag_decision *alone;
    CHECK(ag_gate_decide(gate, &calls[at], &alone) == AG_OK);
    CHECK_TEXT(alone->frames, decisions[at]->frames);
    ag_decision_free(alone);
  }
  for (int at = 0; at < 4; ++at) ag_decision_free(decisions[at]);
  ag_gate_free(gate);
}

static void a_refused_bundle_leaves_the_one_that_is_active(const bundle *bundle) {
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  unsigned char zeros[512] = {0};
  CHECK(ag_gate_load_bundle(gate, zeros, sizeof zeros) == AG_REFUSED && ag_error()[0] != '\0');
  ag_bundle *active;
  CHECK(ag_gate_bundle(gate, &active) == AG_OK && active != NULL);
  ag_gate_free(gate);
  CHECK_TEXT(active->enrollment_ref, bundle->enrollment_ref);
  CHECK(active->files_len > 0 && active->signers_len == 1);
  for (size_t at = 0; at < active->files_len; ++at) {
    const ag_file *file = &active->files[at];
    CHECK(memcmp(file->bytes, bundle->tar + file->offset, file->size) == 0);
  }
  ag_bundle_free(active);
}

static void misuse_is_an_error(const bundle *bundle) {
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  tell(gate, bundle, "active");
  ag_decision *decision = NULL;
  ag_call call = {.tool = "tool.echo", .now_ms = NOW_MS};
  CHECK(ag_gate_decide(gate, &call, &decision) == AG_MALFORMED && decision == NULL);
  CHECK_TEXT(ag_error(), "the call is malformed: `policy`: is missing: say what the host's policy answered");
  call.policy = AG_AUDIT_WAL_UNAVAILABLE;
  CHECK(ag_gate_decide(gate, &call, &decision) == AG_MALFORMED && decision == NULL);
  call.policy = 77777;
  CHECK(ag_gate_decide(gate, &call, &decision) == AG_MALFORMED && decision == NULL);
  call.policy = AG_POLICY_ALLOWED;
  call.tool = "caf\xe9";
  CHECK(ag_gate_decide(gate, &call, &decision) == AG_MALFORMED);
  CHECK_TEXT(ag_error(), "`tool` is no UTF-8: give text");
  call.tool = "tool.echo";
  call.facts_logged = "sha256:no";
  CHECK(ag_gate_decide(gate, &call, &decision) == AG_MALFORMED);
  CHECK(ag_gate_decide(NULL, &call, &decision) == AG_MALFORMED);
  CHECK_TEXT(ag_error(), "`gate` is NULL: it must be given");
  CHECK(ag_gate_decide(gate, NULL, &decision) == AG_MALFORMED);
  CHECK(ag_gate_decide(gate, &call, NULL) == AG_MALFORMED);
  CHECK(ag_gate_decide_batch(gate, NULL, 3, &decision) == AG_MALFORMED);
  CHECK(ag_gate_load_bundle(gate, NULL, 12) == AG_MALFORMED);
  CHECK(ag_gate_load_bundle(gate, bundle->tar, (size_t)-1) == AG_MALFORMED);
  CHECK(ag_gate_verdict(NULL, NOW_MS) < 0);
  CHECK_TEXT(ag_error(), "`gate` is NULL: it must be given");
  CHECK(ag_gate_verdict(gate, UINT64_MAX) == AG_MALFORMED);
  CHECK_TEXT(ag_error(), "`18446744073709551615` is not a time: give milliseconds since the Unix epoch, up to 2^53 - 1");
  CHECK(ag_verify_signature(bundle->tar, 95) == AG_MALFORMED);
  CHECK(ag_reason_text(0) == NULL && ag_reason_text(-1) == NULL && ag_reason_remedy(1000) == NULL);
  CHECK(ag_reason_number("policy: denied") == AG_POLICY_DENIED && ag_reason_number(NULL) == 0);

  // What is malformed leaves no earlier answer standing.
  ag_answer *answer = ag_answer_new();
  CHECK(ag_answer_json(answer, "[]", 2) == AG_OK && ag_gate_set_enrollment(gate, answer) == AG_MALFORMED);
  CHECK(ag_gate_verdict(gate, NOW_MS) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  CHECK(ag_answer_lease(answer, (const uint8_t *)"{}", 2) == AG_OK && ag_gate_set_enrollment(gate, answer) == AG_REFUSED);
  CHECK(ag_gate_verdict(gate, NOW_MS) == AG_ATTESTATION_ENROLLMENT_UNTRUSTED);
  ag_enrollment row = {"robot-7", NULL, "active", "<none>", 1};
  CHECK(ag_answer_enrolled(answer, &row, NOW_MS) == AG_MALFORMED && ag_gate_set_enrollment(gate, answer) == AG_OK);
  CHECK(ag_gate_verdict(gate, NOW_MS) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  ag_answer_not_enrolled(answer, NOW_MS);
  CHECK(ag_gate_set_enrollment(gate, answer) == AG_OK && ag_gate_verdict(gate, NOW_MS) == AG_ATTESTATION_NOT_ENROLLED);
  CHECK(ag_gate_set_enrollment(gate, NULL) == AG_MALFORMED);
  CHECK_TEXT(ag_error(), "`answer` is NULL: it must be given");
  CHECK(ag_gate_verdict(gate, NOW_MS) == AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  ag_answer_free(answer);
  ag_gate_free(gate);

  ag_gate_options options = {.mode = 3};
  CHECK(ag_gate_load(&options, &gate) == AG_MALFORMED && gate == NULL);
  CHECK_TEXT(ag_error(), "mode `3` is none: use AG_MODE_OFF, AG_MODE_ADVISORY or AG_MODE_ENFORCE");
  const char *keys[] = {NULL};
  options = (ag_gate_options){.trusted_keys = keys, .trusted_keys_len = 1};
  CHECK(ag_gate_load(&options, &gate) == AG_MALFORMED);
  options = (ag_gate_options){.node_id = "a b"};
  CHECK(ag_gate_load(&options, &gate) == AG_MALFORMED);
  options = (ag_gate_options){.bundle = bundle->tar, .bundle_len = bundle->len};
  CHECK(ag_gate_load(&options, &gate) == AG_REFUSED && gate == NULL);
  ag_gate_free(NULL);
  ag_decision_free(NULL);
  ag_bundle_free(NULL);
  ag_answer_free(NULL);
  ag_string_free(NULL);
}

static void a_program_of_another_version_is_refused(const bundle *bundle) {
  ag_gate_options options = {0};
  ag_gate *gate;
  CHECK(ag_gate_load_abi(2, &options, &gate) == AG_UNSUPPORTED && gate == NULL);
  CHECK_TEXT(ag_error(),
             "the program was compiled for major version `2` of libautonomy_gate's interface, the library has `1.0`: "
             "compile it with the header of this library");
  ag_memory_host *memory = ag_memory_host_new();
  CHECK(ag_memory_host_enroll(memory, "robot-7", bundle->enrollment_ref, NULL, NULL) == AG_OK);
  const ag_tool_call call = {.tool = "tool.echo"};
  ag_guard *guard;
  ag_permit *permit;
  ag_guard_options guarded = {.gate = gate, .source = ag_memory_host_source(memory), .sink = ag_memory_host_sink(memory)};
  CHECK(ag_guard_new(&guarded, &guard) == AG_MALFORMED && guard == NULL);
  CHECK(ag_guard_ask(guard, &call, &permit, NULL) == AG_MALFORMED && permit == NULL);
  // One of this version is right.
  gate = gate_load(bundle, AG_MODE_ENFORCE);
  guarded = (ag_guard_options){.gate = gate, .source = ag_memory_host_source(memory), .sink = ag_memory_host_sink(memory)};
  CHECK(ag_guard_new(&guarded, &guard) == AG_OK);
  CHECK(ag_guard_ask(guard, &call, &permit, NULL) == AG_OK);
  ag_permit_finish(permit, AG_COMPLETED);
  ag_guard_free(guard);
  ag_memory_host_free(memory);
  ag_gate_free(gate);
  played("other_abi");
}

int main(void) {
  bundle bundle = bundle_load();
  a_call_is_allowed_and_denied_once_the_node_is_revoked(&bundle);
  a_batch_decides_what_as_many_calls_would(&bundle);
  a_refused_bundle_leaves_the_one_that_is_active(&bundle);
  misuse_is_an_error(&bundle);
  a_program_of_another_version_is_refused(&bundle);
  bundle_free(&bundle);
  return 0;
}
