// An HTTP server that asks before each request: `server <port> <url of the native host> <token file> <bundle.tar> <key.pem>`.
// The node's id is in AUTONOMY_NODE_ID, and `curl -X POST 127.0.0.1:<port>/move` asks. `cc -std=c11 server.c $(pkg-config --cflags --libs autonomy_gate libmicrohttpd) -o server`
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <autonomy_gate.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what) {
  fprintf(stderr, "error: %s: %s\n", what, ag_error());
  return 1;
}

// All of a file, and a NUL; the caller frees it.
static char *read_file(const char *path, size_t *len) {
  FILE *file = fopen(path, "rb");
  char *bytes = NULL;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0 && ftell(file) >= 0) {
    *len = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(*len + 1);
    if (bytes != NULL && fread(bytes, 1, *len, file) == *len) {
      bytes[*len] = '\0';
    } else {
      free(bytes);
      bytes = NULL;
    }
  }
  if (file != NULL) fclose(file);
  if (bytes == NULL) fprintf(stderr, "error: `%s` cannot be read: give a file\n", path);
  return bytes;
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *json) {
  struct MHD_Response *response = MHD_create_response_from_buffer(strlen(json), (void *)json, MHD_RESPMEM_MUST_COPY);
  if (response == NULL) return MHD_NO;
  MHD_add_response_header(response, "content-type", "application/json");
  const enum MHD_Result queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

// The tool: it runs with a permit, or not at all.
static enum MHD_Result move(struct MHD_Connection *connection, const ag_permit *permit) {
  char json[128];
  snprintf(json, sizeof json, "{\"decision\":\"allow\",\"output\":\"moved\",\"audit_id\":\"%s\"}", ag_permit_audit_id(permit));
  return answer(connection, MHD_HTTP_OK, json);
}

static enum MHD_Result handle(void *guard, struct MHD_Connection *connection, const char *path, const char *method,
                              const char *version, const char *body, size_t *body_len, void **request) {
  static const char seen;
  (void)version, (void)body;
  if (*request == NULL) {
    *request = (void *)&seen;
    return MHD_YES;
  }
  if (*body_len != 0) {
    *body_len = 0;
    return MHD_YES;
  }
  if (strcmp(path, "/move") != 0 || strcmp(method, "POST") != 0) {
    return answer(connection, MHD_HTTP_NOT_FOUND, "{\"error\":\"no such path: POST to `/move`\"}");
  }
  ag_permit *permit;
  ag_denial *denial;
  switch (ag_guard_ask(guard, &(ag_tool_call){.tool = "arm.move"}, &permit, &denial)) {
    case AG_OK: {
      const enum MHD_Result moved = move(connection, permit);
      ag_permit_finish(permit, moved == MHD_YES ? AG_COMPLETED : AG_FAILED);
      return moved;
    }
    case AG_DENIED: {
      if (denial->cause != NULL) fprintf(stderr, "%s: %s\n", denial->audit_id, denial->cause);
      const enum MHD_Result refused = answer(connection, (unsigned)denial->status, denial->json);
      ag_denial_free(denial);
      return refused;
    }
    default:
      // What it was is for the operator, not for the caller.
      fail("the call could not be decided");
      return answer(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "{\"error\":\"the call could not be decided\"}");
  }
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: server <port> <url of the native host> <token file> <bundle.tar> <key.pem>\n");
    return 2;
  }
  size_t bundle_len = 0, key_len = 0;
  char *bundle = read_file(argv[4], &bundle_len), *key = read_file(argv[5], &key_len);
  if (bundle == NULL || key == NULL) return 1;
  const ag_gate_options options = {
      .node_id = getenv("AUTONOMY_NODE_ID"),
      .mode = AG_MODE_ENFORCE,
      .bundle = (const uint8_t *)bundle,
      .bundle_len = bundle_len,
      .trusted_keys = (const char *const[]){key},
      .trusted_keys_len = 1,
  };
  ag_gate *gate;
  if (ag_gate_load(&options, &gate) != AG_OK) return fail("no gate");
  free(bundle);
  free(key);
  ag_native_host *host;
  if (ag_native_host_new(&(ag_native_host_options){.url = argv[2], .token_file = argv[3]}, &host) != AG_OK) {
    return fail("no native host");
  }
  const ag_guard_options guarded = {
      .gate = gate, .source = ag_native_host_source(host), .sink = ag_native_host_sink(host)};
  ag_guard *guard;
  if (ag_guard_new(&guarded, &guard) != AG_OK) return fail("no guard");
  ag_native_host_free(host);
  ag_gate_free(gate);

  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, NULL);
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  // A call waits for its look-up and for the disk: each connection has a thread for that.
  struct MHD_Daemon *daemon = MHD_start_daemon(
      MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, NULL, NULL, handle, guard, MHD_OPTION_SOCK_ADDR,
      (const struct sockaddr *)&address, MHD_OPTION_CONNECTION_TIMEOUT, 30U, MHD_OPTION_END);
  if (daemon == NULL) {
    fprintf(stderr, "error: port `%s` cannot be listened on: take a free one\n", argv[1]);
    return 1;
  }
  printf("listening on 127.0.0.1:%u\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
  fflush(stdout);
  int signal;
  sigwait(&ends, &signal);
  MHD_stop_daemon(daemon);
  ag_guard_free(guard);
  return 0;
}
