#include "fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void check(bool holds, const char *what, const char *file, int line) {
  if (holds) return;
  fprintf(stderr, "%s:%d: does not hold: %s (%s)\n", file, line, what, ag_error());
  _exit(1);
}

void check_text(const char *found, const char *expected, const char *file, int line) {
  if (found != NULL && strcmp(found, expected) == 0) return;
  fprintf(stderr, "%s:%d: found\n  %s\nexpected\n  %s\n", file, line, found == NULL ? "NULL" : found, expected);
  _exit(1);
}

void played(const char *fault) {
  printf("conformance {\"language\":\"c\",\"engine\":\"native %s\",\"fault\":\"%s\"}\n", ag_version(), fault);
}

static char *file(const char *name, size_t *len) {
  const char *directory = getenv("FIXTURE");
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory == NULL ? "." : directory, name);
  FILE *stream = fopen(path, "rb");
  CHECK(stream != NULL);
  CHECK(fseek(stream, 0, SEEK_END) == 0);
  *len = (size_t)ftell(stream);
  rewind(stream);
  char *bytes = malloc(*len + 1);
  CHECK(fread(bytes, 1, *len, stream) == *len);
  bytes[*len] = '\0';
  fclose(stream);
  return bytes;
}

bundle bundle_load(void) {
  bundle bundle;
  size_t len;
  bundle.tar = (unsigned char *)file("bundle.tar", &bundle.len);
  bundle.key = file("key.pem", &len);
  bundle.enrollment_ref = file("enrollment_ref", &len);
  return bundle;
}

void bundle_free(bundle *bundle) {
  free(bundle->tar);
  free(bundle->key);
  free(bundle->enrollment_ref);
}

ag_gate *gate_load(const bundle *bundle, ag_mode mode) {
  const char *keys[] = {bundle->key};
  ag_gate_options options = {0};
  options.node_id = "robot-7";
  options.mode = mode;
  options.bundle = bundle->tar;
  options.bundle_len = bundle->len;
  options.trusted_keys = keys;
  options.trusted_keys_len = 1;
  ag_gate *gate;
  CHECK(ag_gate_load(&options, &gate) == AG_OK);
  return gate;
}

typedef struct connection {
  host *host;
  int socket;
} connection;

static bool say_bytes(int socket, const char *text, size_t len) {
  while (len > 0) {
    ssize_t sent = send(socket, text, len, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text += sent;
    len -= (size_t)sent;
  }
  return true;
}

static void say(int socket, const char *text) { say_bytes(socket, text, strlen(text)); }

enum { PIECE = 1 << 16, PIECES = 1 << 16 };

// A body of 4 GiB, or as much of it as is taken; `before` and `after` frame each piece.
static void flood(host *host, int socket, const char *before, const char *after) {
  static const char piece[PIECE];
  for (int at = 0; at < PIECES; ++at) {
    say(socket, before);
    if (!say_bytes(socket, piece, PIECE)) return;
    say(socket, after);
    atomic_fetch_add(&host->sent, PIECE);
  }
}

static void answer(int socket, const char *status, const char *body) {
  char text[2048];
  snprintf(text, sizeof text, "HTTP/1.1 %s\r\nlocation: /v1/health\r\ncontent-length: %zu\r\n\r\n%s", status, strlen(body),
           body);
  say(socket, text);
}

static void row(char *body, size_t len, const char *node_id, const char *enrollment_ref) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  // A serial that a double would round.
  snprintf(body, len,
           "{\"answer\":\"enrolled\",\"enrollment\":{\"node_id\":\"%s\",\"enrollment_ref\":\"%s\",\"status\":\"active\","
           "\"rollout_state\":\"<none>\",\"serial\":9007199254740993},\"observed_at_ms\":%lld}",
           node_id, enrollment_ref, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

// Answers one request; says whether the connection goes on.
static bool respond(host *host, int socket, const char *request) {
  const bool get = strncmp(request, "GET ", 4) == 0;
  atomic_fetch_add(get ? &host->gets : &host->posts, 1);
  if (!get && strstr(request, "{\"frames\":[{\"kind\":\"autonomy.facts\"") != NULL) atomic_fetch_add(&host->with_facts, 1);
  const bool action = strstr(request, "{\"frames\":[{\"kind\":\"autonomy.action\"") != NULL;
  how how = action ? RIGHT : atomic_load(get ? &host->look_ups : &host->appends);
  char body[1024], chunked[1280], head[64];
  row(body, sizeof body, how == OTHERS_ROW ? "robot-8" : "robot-7", host->enrollment_ref);
  if (!get) snprintf(body, sizeof body, "{\"first_seq\":7,\"last_seq\":8}");
  switch (how) {
    case RIGHT:
    case OTHERS_ROW:
      answer(socket, "200 OK", body);
      return true;
    case SLOW:
      for (int at = 0; at < 3000 && !atomic_load(&host->stopping); ++at) usleep(10000);
      return false;
    case NONSENSE:
      answer(socket, "200 OK", "{\"answer\":\"sure\"}");
      return true;
    case HALF:
      say(socket, "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{\"answer\":");
      return false;
    case HUGE_BODY:
      snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-length: %llu\r\n\r\n", (unsigned long long)PIECE * PIECES);
      say(socket, head);
      flood(host, socket, "", "");
      return false;
    case HUGE_CHUNKS:
      say(socket, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
      snprintf(head, sizeof head, "%x\r\n", PIECE);
      flood(host, socket, head, "\r\n");
      return false;
    case CHUNKED:
      snprintf(chunked, sizeof chunked,
               "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n%c\r\n%zx\r\n%s\r\n0\r\n\r\n", body[0],
               strlen(body) - 1, body + 1);
      say(socket, chunked);
      return true;
    case HANGS_UP:
      return false;
    case REDIRECT:
      answer(socket, "302 Found", body);
      return true;
    case UNAUTHORIZED:
      answer(socket, "401 Unauthorized", "{\"error\":\"the token is wrong: give the host's\"}");
      return true;
    case INTERNAL:
      answer(socket, "500 Internal Server Error", "");
      return true;
    case UNAVAILABLE:
      answer(socket, "503 Service Unavailable", "{\"error\":\"no space left on device: free the disk\"}");
      return true;
    case FACTS_LOST:
      atomic_store(&host->appends, RIGHT);
      answer(socket, "409 Conflict", "{\"error\":\"facts are not in the log: send them first\"}");
      return true;
  }
  return false;
}

static void *serve(void *argument) {
  connection connection = *(struct connection *)argument;
  free(argument);
  char request[65536];
  size_t held = 0;
  for (bool going = true; going;) {
    ssize_t read = recv(connection.socket, request + held, sizeof request - 1 - held, 0);
    if (read < 0 && (errno == EAGAIN || errno == EINTR) && !atomic_load(&connection.host->stopping)) continue;
    if (read <= 0) break;
    held += (size_t)read;
    request[held] = '\0';
    const char *end = strstr(request, "\r\n\r\n");
    if (end == NULL) continue;
    const char *length = strstr(request, "content-length: ");
    size_t whole = (size_t)(end + 4 - request) + (length == NULL ? 0 : strtoul(length + 16, NULL, 10));
    if (held < whole) continue;
    going = respond(connection.host, connection.socket, request);
    held = 0;
  }
  close(connection.socket);
  atomic_fetch_sub(&connection.host->open, 1);
  return NULL;
}

static void *accept_all(void *argument) {
  host *host = argument;
  for (;;) {
    int socket = accept(host->listener, NULL, NULL);
    if (socket < 0) return NULL;
    struct timeval idle = {.tv_usec = 20000};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    connection *connection = malloc(sizeof *connection);
    connection->host = host;
    connection->socket = socket;
    atomic_fetch_add(&host->open, 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, connection) == 0);
    pthread_detach(thread);
  }
}

void host_back(host *host) {
  atomic_store(&host->stopping, 0);
  CHECK(listen(host->listener, 128) == 0);
  CHECK(pthread_create(&host->thread, NULL, accept_all, host) == 0);
}

void host_down(host *host) {
  atomic_store(&host->stopping, 1);
  shutdown(host->listener, SHUT_RDWR);
  pthread_join(host->thread, NULL);
  while (atomic_load(&host->open) > 0) usleep(1000);
}

// Of those that share a port so, one may listen; and connections of before do not keep it from that.
static int bound(const struct sockaddr_in *address) {
  const int bound = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(setsockopt(bound, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) == 0);
  CHECK(bind(bound, (const struct sockaddr *)address, sizeof *address) == 0);
  return bound;
}

void host_start(host *host, const char *enrollment_ref, const char *path) {
  memset(host, 0, sizeof *host);
  host->enrollment_ref = enrollment_ref;
  if (path == NULL) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    host->kept = bound(&address);
    CHECK(getsockname(host->kept, (struct sockaddr *)&address, &(socklen_t){sizeof address}) == 0);
    host->listener = bound(&address);
    snprintf(host->url, sizeof host->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
  } else {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    host->kept = -1;
    host->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(host->listener, (struct sockaddr *)&address, sizeof address) == 0);
  }
  host_back(host);
}

void host_stop(host *host) {
  host_down(host);
  close(host->listener);
  if (host->kept >= 0) close(host->kept);
}
