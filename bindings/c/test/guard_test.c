// From a call to a permit, and what each failure becomes: the faults of docs/src/spec/conformance.md.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

// For a host that is not slow on purpose: valgrind runs one thread at a time.
enum { PATIENCE_MS = 60000 };

// For one that is.
enum { TIMEOUT_MS = 1000 };

static const char TOKEN[] = "0123456789abcdef0123456789abcdef";

static int tools_run;

static ag_guard *guard_within(const ag_gate *gate, ag_source source, ag_sink sink, uint32_t look_up_ms, uint32_t append_ms) {
  ag_guard_options options = {.gate = gate, .source = source, .sink = sink};
  options.look_up_timeout_ms = look_up_ms;
  options.append_timeout_ms = append_ms;
  ag_guard *guard;
  CHECK(ag_guard_new(&options, &guard) == AG_OK);
  return guard;
}

static ag_guard *guard_new(const ag_gate *gate, ag_source source, ag_sink sink) {
  return guard_within(gate, source, sink, PATIENCE_MS, PATIENCE_MS);
}

static ag_native_host *native_host(const char *url) {
  ag_native_host_options options = {.url = url, .token = TOKEN};
  ag_native_host *native;
  CHECK(ag_native_host_new(&options, &native) == AG_OK);
  return native;
}

static ag_guard *guard_at(const ag_gate *gate, const char *url, uint32_t look_up_ms, uint32_t append_ms) {
  ag_native_host *native = native_host(url);
  ag_source source = ag_native_host_source(native);
  ag_guard *guard = guard_within(gate, source, ag_native_host_sink(native), look_up_ms, append_ms);
  ag_native_host_free(native);
  return guard;
}

static void allowed(ag_guard *guard) {
  ag_tool_call call = {.tool = "tool.echo"};
  ag_permit *permit;
  ag_denial *denial;
  CHECK(ag_guard_ask(guard, &call, &permit, &denial) == AG_OK && denial == NULL);
  CHECK(strlen(ag_permit_audit_id(permit)) == 36);
  ++tools_run;
  ag_permit_finish(permit, AG_COMPLETED);
}

// Asks, and gives the denial.
static ag_denial *refused(ag_guard *guard, ag_reason reason) {
  ag_tool_call call = {.tool = "tool.echo"};
  ag_permit *permit;
  ag_denial *denial;
  const int before = tools_run;
  CHECK(ag_guard_ask(guard, &call, &permit, &denial) == AG_DENIED && permit == NULL);
  CHECK_TEXT(ag_reason_text(denial->reason), ag_reason_text(reason));
  CHECK(denial->status == (reason == AG_AUDIT_WAL_UNAVAILABLE ? 503 : 403) && tools_run == before);
  CHECK_TEXT(denial->remedy, ag_reason_remedy(reason));
  char json[512], policy_ref[64] = "null";
  if (denial->policy_ref != NULL) snprintf(policy_ref, sizeof policy_ref, "\"%s\"", denial->policy_ref);
  snprintf(json, sizeof json, "{\"decision\":\"deny\",\"reason\":\"%s\",\"policy_ref\":%s,\"audit_id\":\"%s\"}",
           ag_reason_text(reason), policy_ref, denial->audit_id);
  CHECK_TEXT(denial->json, json);
  return denial;
}

static void denied(ag_guard *guard, ag_reason reason) { ag_denial_free(refused(guard, reason)); }

static long elapsed_ms(const struct timespec *since) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void slowly_denied(ag_guard *guard, ag_reason reason) {
  struct timespec started;
  clock_gettime(CLOCK_MONOTONIC, &started);
  denied(guard, reason);
  const long took_ms = elapsed_ms(&started);
  CHECK(took_ms >= TIMEOUT_MS - 20 && took_ms < 15000);
}

static void host_is_down(const bundle *bundle) {
  host host;
  host_start(&host, bundle->enrollment_ref, NULL);
  for (int mode = AG_MODE_OFF; mode <= AG_MODE_ENFORCE; ++mode) {
    ag_gate *gate = gate_load(bundle, (ag_mode)mode);
    ag_guard *guard = guard_at(gate, host.url, PATIENCE_MS, PATIENCE_MS);
    for (int round = 0; round < 2; ++round) {
      allowed(guard);
      host_down(&host);
      denied(guard, AG_AUDIT_WAL_UNAVAILABLE);
      host_back(&host);
    }
    allowed(guard);
    ag_guard_free(guard);
    ag_gate_free(gate);
  }
  host_stop(&host);
  played("host_down");
}

static void look_ups_fail(const bundle *bundle) {
  host host;
  host_start(&host, bundle->enrollment_ref, NULL);
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  ag_guard *guard = guard_at(gate, host.url, PATIENCE_MS, PATIENCE_MS);
  const ag_reason unavailable = AG_ATTESTATION_ENROLLMENT_UNAVAILABLE;
  allowed(guard);
  const how down[] = {UNAVAILABLE, INTERNAL, REDIRECT, UNAUTHORIZED, HANGS_UP};
  for (size_t at = 0; at < sizeof down / sizeof *down; ++at) {
    atomic_store(&host.look_ups, down[at]);
    const int posts = atomic_load(&host.posts);
    denied(guard, unavailable);
    // Written down.
    CHECK(atomic_load(&host.posts) == posts + 1);
    atomic_store(&host.look_ups, RIGHT);
    allowed(guard);
  }
  played("source_down");
  const how lies[] = {NONSENSE, OTHERS_ROW, HALF, HUGE_BODY, HUGE_CHUNKS};
  for (size_t at = 0; at < sizeof lies / sizeof *lies; ++at) {
    atomic_store(&host.look_ups, lies[at]);
    denied(guard, unavailable);
    atomic_store(&host.look_ups, CHUNKED);
    allowed(guard);
  }
  // What the sockets took, of 8 GiB.
  CHECK(atomic_load(&host.sent) < UINT64_C(64) << 20);
  played("host_lying");
  ag_guard_free(guard);
  guard = guard_at(gate, host.url, TIMEOUT_MS, PATIENCE_MS);
  atomic_store(&host.look_ups, SLOW);
  slowly_denied(guard, unavailable);
  atomic_store(&host.look_ups, RIGHT);
  allowed(guard);
  ag_guard_free(guard);
  guard = guard_at(gate, host.url, PATIENCE_MS, TIMEOUT_MS);
  allowed(guard);
  atomic_store(&host.appends, SLOW);
  slowly_denied(guard, AG_AUDIT_WAL_UNAVAILABLE);
  atomic_store(&host.appends, RIGHT);
  allowed(guard);
  played("host_slow");
  ag_guard_free(guard);
  ag_gate_free(gate);
  host_stop(&host);
}

static void appends_fail(const bundle *bundle) {
  host host;
  host_start(&host, bundle->enrollment_ref, NULL);
  ag_gate *gate = gate_load(bundle, AG_MODE_ADVISORY);
  ag_guard *guard = guard_at(gate, host.url, PATIENCE_MS, PATIENCE_MS);
  const struct {
    how how;
    const char *fault;
    const char *cause;
  } lies[] = {
      {NONSENSE, "append_lying", "the native host answered `200` with what is no receipt"},
      {INTERNAL, "append_lying", "the native host answered `500`"},
      {REDIRECT, "append_lying", "the native host answered `302`"},
      {HALF, "append_lying", "the native host did not answer: the answer broke off"},
      {HUGE_BODY, "append_lying", "the native host did not answer: the answer is longer than 65536 bytes"},
      {HUGE_CHUNKS, "append_lying", "the native host did not answer: the answer is longer than 65536 bytes"},
      {HANGS_UP, "append_lying", "the native host did not answer: the answer broke off"},
      {UNAVAILABLE, "disk_full", "the native host answered `503`: no space left on device: free the disk"},
      {UNAUTHORIZED, "token_wrong", "the native host answered `401`: the token is wrong: give the host's"},
  };
  for (size_t at = 0; at < sizeof lies / sizeof *lies; ++at) {
    atomic_store(&host.appends, lies[at].how);
    const int posts = atomic_load(&host.posts);
    ag_denial *denial = refused(guard, AG_AUDIT_WAL_UNAVAILABLE);
    CHECK_TEXT(denial->cause, lies[at].cause);
    ag_denial_free(denial);
    // Never tried again.
    CHECK(atomic_load(&host.posts) == posts + 1);
    atomic_store(&host.appends, RIGHT);
    allowed(guard);
    played(lies[at].fault);
  }
  const int posts = atomic_load(&host.posts), with_facts = atomic_load(&host.with_facts);
  atomic_store(&host.appends, FACTS_LOST);
  allowed(guard);
  // The batch, the batch with the facts, and the action.
  CHECK(atomic_load(&host.posts) == posts + 3 && atomic_load(&host.with_facts) == with_facts + 1);
  allowed(guard);
  CHECK(atomic_load(&host.posts) == posts + 5 && atomic_load(&host.with_facts) == with_facts + 1);
  played("facts_lost");
  ag_guard_free(guard);
  ag_gate_free(gate);
  host_stop(&host);
}

// A connection that was kept and then closed is no reason to deny, and to write to it must not end the process.
static void a_host_that_starts_again_is_found(const bundle *bundle) {
  char path[] = "/tmp/autonomy-gate-XXXXXX", socket[64], file[64];
  CHECK(mkdtemp(path) != NULL);
  snprintf(socket, sizeof socket, "%s/host.sock", path);
  snprintf(file, sizeof file, "%s/token", path);
  FILE *stream = fopen(file, "w");
  fprintf(stream, "%s\n", TOKEN);
  fclose(stream);
  ag_native_host_options options = {.socket = socket, .token_file = file};
  ag_native_host *native;
  chmod(file, 0640);
  CHECK(ag_native_host_new(&options, &native) == AG_REFUSED && native == NULL);
  char want[160];
  snprintf(want, sizeof want, "others can read `%s` (mode `640`): run `chmod 600` on it", file);
  CHECK_TEXT(ag_error(), want);
  chmod(file, 0600);
  CHECK(ag_native_host_new(&options, &native) == AG_OK);
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  ag_guard *guard = guard_new(gate, ag_native_host_source(native), ag_native_host_sink(native));
  for (int round = 0; round < 3; ++round) {
    host host;
    host_start(&host, bundle->enrollment_ref, socket);
    CHECK(ag_native_host_is_healthy(native, PATIENCE_MS));
    allowed(guard);
    // The kept connection is closed by the host, and by nobody else.
    atomic_store(&host.look_ups, HALF);
    denied(guard, AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
    host_stop(&host);
    CHECK(!ag_native_host_is_healthy(native, PATIENCE_MS));
  }
  ag_guard_free(guard);
  ag_gate_free(gate);
  ag_native_host_free(native);
  unlink(socket);
  unlink(file);
  rmdir(path);
}

static void options_that_would_leak_the_token_are_refused(void) {
  const ag_native_host_options wrong[] = {
      {.url = "http://10.0.0.1:7778", .token = TOKEN}, {.url = "https://127.0.0.1:7778", .token = TOKEN},
      {.url = "http://127.0.0.1:7778"},                {.token = TOKEN},
      {.url = "http://127.0.0.1:7778", .token = ""},   {.url = "http://127.0.0.1:7778", .token = "two\nlines"},
      {.url = "http://127.0.0.1:1", .socket = "s", .token = TOKEN},
  };
  for (size_t at = 0; at < sizeof wrong / sizeof *wrong; ++at) {
    ag_native_host *native;
    CHECK(ag_native_host_new(&wrong[at], &native) == AG_MALFORMED && native == NULL);
  }
}

// A host's own source, sink and policy.
typedef struct own {
  atomic_int released;
  atomic_int asked;
  int appended;
  int policy;
} own;

static void own_look_up(void *context, const char *node_id, uint32_t timeout_ms, ag_answer *answer) {
  own *own = context;
  CHECK_TEXT(node_id, "robot-7");
  CHECK(timeout_ms == PATIENCE_MS);
  atomic_fetch_add(&own->asked, 1);
  ag_answer_not_enrolled(answer, (uint64_t)time(NULL) * 1000);
}

static void own_silence(void *context, const char *node_id, uint32_t timeout_ms, ag_answer *answer) {
  (void)context, (void)node_id, (void)timeout_ms, (void)answer;
}

static int32_t own_append(void *context, const char *frames, size_t len, uint32_t timeout_ms, ag_note *note) {
  CHECK(strlen(frames) == len && timeout_ms == PATIENCE_MS);
  ag_note_text(note, "the tape is full");
  return ((own *)context)->appended;
}

static int32_t own_policy(void *context, const char *tool, const char *params, ag_note *note) {
  CHECK_TEXT(tool, "tool.echo");
  CHECK_TEXT(params, "");
  ag_note_policy_ref(note, "fleet@1");
  return ((own *)context)->policy;
}

static void own_release(void *context) { atomic_fetch_add(&((own *)context)->released, 1); }

static void a_host_may_bring_its_own(const bundle *bundle) {
  own own = {.appended = AG_APPEND_DURABLE, .policy = AG_POLICY_ALLOWED};
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  ag_source source = {&own, own_look_up, own_release};
  ag_sink sink = {&own, own_append, own_release};
  ag_guard *guard = guard_new(gate, source, sink);
  denied(guard, AG_ATTESTATION_NOT_ENROLLED);
  const int failures[] = {AG_APPEND_FAILED, AG_APPEND_FACTS_NOT_LOGGED, -1, 200};
  for (int at = 0; at < 4; ++at) {
    own.appended = failures[at];
    ag_denial *denial = refused(guard, AG_AUDIT_WAL_UNAVAILABLE);
    CHECK_TEXT(denial->cause, "the tape is full");
    ag_denial_free(denial);
  }
  ag_guard_free(guard);
  CHECK(own.released == 2);

  own.appended = AG_APPEND_DURABLE;
  ag_guard_options options = {.gate = gate, .source = {&own, own_silence, own_release}, .sink = sink};
  options.policy = (ag_policy){&own, own_policy, own_release};
  options.append_timeout_ms = PATIENCE_MS;
  CHECK(ag_guard_new(&options, &guard) == AG_OK);
  denied(guard, AG_ATTESTATION_ENROLLMENT_UNAVAILABLE);
  const struct {
    int answer;
    ag_reason reason;
  } policies[] = {{AG_POLICY_DENIED, AG_POLICY_DENIED}, {0, AG_POLICY_UNDEFINED}, {1, AG_POLICY_UNDEFINED}};
  for (size_t at = 0; at < sizeof policies / sizeof *policies; ++at) {
    own.policy = policies[at].answer;
    ag_tool_call call = {.tool = "tool.echo"};
    ag_permit *permit;
    ag_denial *denial;
    CHECK(ag_guard_ask(guard, &call, &permit, &denial) == AG_DENIED && denial->reason == policies[at].reason);
    CHECK_TEXT(denial->policy_ref, "fleet@1");
    ag_denial_free(denial);
  }
  ag_tool_call malformed = {.tool = "no tool", .policy = AG_POLICY_ALLOWED};
  ag_permit *permit;
  ag_denial *denial;
  CHECK(ag_guard_ask(guard, &malformed, &permit, &denial) == AG_MALFORMED && permit == NULL && denial == NULL);
  CHECK(ag_guard_ask(guard, NULL, &permit, NULL) == AG_MALFORMED);
  CHECK(ag_guard_ask(NULL, &malformed, &permit, NULL) == AG_MALFORMED);
  CHECK(ag_guard_ask(guard, &malformed, NULL, NULL) == AG_MALFORMED);
  ag_guard_free(guard);
  CHECK(own.released == 5);
  // What is taken over is released, whatever is wrong.
  options.source.look_up = NULL;
  CHECK(ag_guard_new(&options, &guard) == AG_MALFORMED && guard == NULL && own.released == 8);
  CHECK(ag_guard_new(&options, NULL) == AG_MALFORMED && own.released == 11);
  ag_gate_free(gate);
}

static void a_revoke_denies_the_next_call(const bundle *bundle) {
  ag_memory_host *memory = ag_memory_host_new();
  CHECK(ag_memory_host_enroll(memory, "robot-7", bundle->enrollment_ref, NULL, NULL) == AG_OK);
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  ag_guard *guard = guard_new(gate, ag_memory_host_source(memory), ag_memory_host_sink(memory));
  ag_gate_free(gate);
  for (int at = 0; at < 5; ++at) allowed(guard);
  CHECK(ag_memory_host_revoke(memory, "robot-7") == AG_OK);
  denied(guard, AG_ATTESTATION_ENROLLMENT_REVOKED);
  ag_memory_host_fail(memory, "on fire");
  ag_denial *denial = refused(guard, AG_AUDIT_WAL_UNAVAILABLE);
  CHECK_TEXT(denial->cause, "on fire");
  ag_denial_free(denial);
  ag_memory_host_fail(memory, NULL);
  char *frames;
  CHECK(ag_memory_host_frames(memory, &frames) == AG_OK);
  int facts = 0;
  for (const char *at = frames; (at = strstr(at, "\"kind\":\"autonomy.facts\"")) != NULL; ++at) ++facts;
  CHECK(facts == 2 && strstr(frames, "\"outcome\":\"completed\",\"took_ms\":") != NULL);
  ag_string_free(frames);
  ag_guard_free(guard);
  ag_memory_host_free(memory);
}

enum { THREADS = 64, CALLS = 100, LINE = 64 };

// Of each call, `<audit id> <tool>`.
typedef struct logged {
  pthread_mutex_t lock;
  char calls[THREADS * CALLS][LINE];
  int calls_len;
} logged;

// From behind `before` to the next quotation mark.
static int quoted(const char *frame, const char *before, const char **text) {
  *text = strstr(frame, before);
  CHECK(*text != NULL);
  *text += strlen(before);
  return (int)strcspn(*text, "\"");
}

static int32_t take(void *context, const char *frames, size_t len, uint32_t timeout_ms, ag_note *note) {
  (void)len, (void)timeout_ms, (void)note;
  logged *logged = context;
  const char *decision = strstr(frames, "\"kind\":\"autonomy.decision\"");
  if (decision == NULL) return AG_APPEND_DURABLE;
  const char *id, *tool;
  const int id_len = quoted(decision, "\"audit_id\":\"", &id), tool_len = quoted(decision, "\"tool\":\"", &tool);
  pthread_mutex_lock(&logged->lock);
  CHECK(logged->calls_len < THREADS * CALLS);
  snprintf(logged->calls[logged->calls_len++], LINE, "%.*s %.*s", id_len, id, tool_len, tool);
  pthread_mutex_unlock(&logged->lock);
  return AG_APPEND_DURABLE;
}

typedef struct worker {
  ag_guard *guard;
  pthread_t thread;
  char tool[16];
  char calls[CALLS][LINE];
} worker;

static void *work(void *argument) {
  worker *worker = argument;
  for (int at = 0; at < CALLS; ++at) {
    ag_tool_call call = {.tool = worker->tool};
    ag_permit *permit;
    CHECK(ag_guard_ask(worker->guard, &call, &permit, NULL) == AG_OK);
    snprintf(worker->calls[at], LINE, "%s %s", ag_permit_audit_id(permit), worker->tool);
    ag_permit_finish(permit, AG_COMPLETED);
  }
  return NULL;
}

static int by_text(const void *left, const void *right) { return strcmp(left, right); }

static void many_threads_share_a_guard(const bundle *bundle) {
  static logged logged = {.lock = PTHREAD_MUTEX_INITIALIZER};
  static worker workers[THREADS];
  ag_memory_host *memory = ag_memory_host_new();
  CHECK(ag_memory_host_enroll(memory, "robot-7", bundle->enrollment_ref, NULL, NULL) == AG_OK);
  ag_gate *gate = gate_load(bundle, AG_MODE_ENFORCE);
  ag_sink sink = {&logged, take, NULL};
  ag_guard *guard = guard_new(gate, ag_memory_host_source(memory), sink);
  for (int at = 0; at < THREADS; ++at) {
    workers[at].guard = guard;
    snprintf(workers[at].tool, sizeof workers[at].tool, "tool.%d", at);
    CHECK(pthread_create(&workers[at].thread, NULL, work, &workers[at]) == 0);
  }
  static char given[THREADS * CALLS][LINE];
  for (int at = 0; at < THREADS; ++at) {
    pthread_join(workers[at].thread, NULL);
    memcpy(given[at * CALLS], workers[at].calls, sizeof workers[at].calls);
  }
  CHECK(logged.calls_len == THREADS * CALLS);
  qsort(given, THREADS * CALLS, LINE, by_text);
  qsort(logged.calls, THREADS * CALLS, LINE, by_text);
  for (int at = 0; at < THREADS * CALLS; ++at) CHECK_TEXT(logged.calls[at], given[at]);
  ag_guard_free(guard);
  ag_gate_free(gate);
  ag_memory_host_free(memory);
  played("threads");
}

int main(void) {
  bundle bundle = bundle_load();
  host_is_down(&bundle);
  look_ups_fail(&bundle);
  appends_fail(&bundle);
  a_host_that_starts_again_is_found(&bundle);
  options_that_would_leak_the_token_are_refused();
  a_host_may_bring_its_own(&bundle);
  a_revoke_denies_the_next_call(&bundle);
  many_threads_share_a_guard(&bundle);
  bundle_free(&bundle);
  return 0;
}
