// A runtime of `cargo xtask test together`: docs/src/spec/conformance.md says what it is given and what it prints.
#include <autonomy_gate.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct node {
  const char *id;
  ag_guard *guard;
} node;

static node *nodes;
static long nodes_len;

// Calls that nobody makes yet.
static atomic_long left;

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "error: %s: %s\n", what, ag_error());
  exit(1);
}

static char *read_file(const char *path, size_t *len) {
  FILE *file = fopen(path, "rb");
  char *bytes = malloc(1 << 20);
  if (file == NULL || bytes == NULL) fail(path);
  *len = fread(bytes, 1, (1 << 20) - 1, file);
  bytes[*len] = '\0';
  fclose(file);
  return bytes;
}

static void say(struct timespec began, const node *node, const char *audit_id, const char *answer) {
  const long long began_us = (long long)began.tv_sec * 1000000 + began.tv_nsec / 1000;
  printf("%lld\t%s\t%s\t%s\n", began_us, node->id, audit_id, answer);
}

static void call(const node *node) {
  struct timespec began;
  clock_gettime(CLOCK_REALTIME, &began);
  ag_permit *permit;
  ag_denial *denial;
  switch (ag_guard_ask(node->guard, &(ag_tool_call){.tool = "tool.echo"}, &permit, &denial)) {
    case AG_OK: {
      char audit_id[65];
      snprintf(audit_id, sizeof audit_id, "%s", ag_permit_audit_id(permit));
      ag_permit_finish(permit, AG_COMPLETED);
      say(began, node, audit_id, "allow");
      return;
    }
    case AG_DENIED:
      say(began, node, denial->audit_id, ag_reason_text(denial->reason));
      ag_denial_free(denial);
      return;
    default:
      fail("the call could not be decided");
  }
}

static void *work(void *unused) {
  for (long number; (number = atomic_fetch_sub(&left, 1)) > 0;) call(&nodes[number % nodes_len]);
  return unused;
}

int main(int argc, char **argv) {
  if (argc < 7) return fprintf(stderr, "usage: driver <url> <token file> <bundle> <key> <tasks> <node id>...\n"), 2;
  ag_native_host *host;
  if (ag_native_host_new(&(ag_native_host_options){.url = argv[1], .token_file = argv[2]}, &host) != AG_OK) {
    fail("no native host");
  }
  ag_gate_options options = {.mode = AG_MODE_ENFORCE, .trusted_keys_len = 1};
  size_t key_len;
  const char *key = read_file(argv[4], &key_len);
  options.trusted_keys = &key;
  options.bundle = (const uint8_t *)read_file(argv[3], &options.bundle_len);
  const long tasks = atol(argv[5]);
  nodes_len = argc - 6;
  nodes = calloc((size_t)nodes_len, sizeof *nodes);
  pthread_t *threads = calloc((size_t)tasks, sizeof *threads);
  if (nodes == NULL || threads == NULL) fail("no memory");
  for (long at = 0; at < nodes_len; ++at) {
    nodes[at].id = options.node_id = argv[6 + at];
    ag_gate *gate;
    if (ag_gate_load(&options, &gate) != AG_OK) fail("no gate");
    const ag_guard_options guarded = {
        .gate = gate,
        .source = ag_native_host_source(host),
        .sink = ag_native_host_sink(host),
        .look_up_timeout_ms = 30000,
        .append_timeout_ms = 30000,
    };
    if (ag_guard_new(&guarded, &nodes[at].guard) != AG_OK) fail("no guard");
    ag_gate_free(gate);
  }
  setlinebuf(stdout);
  puts("ready");
  for (long calls; scanf("%ld", &calls) == 1;) {
    atomic_store(&left, calls);
    for (long at = 0; at < tasks; ++at) {
      if (pthread_create(&threads[at], NULL, work, NULL) != 0) fail("no thread");
    }
    for (long at = 0; at < tasks; ++at) pthread_join(threads[at], NULL);
  }
  return 0;
}
