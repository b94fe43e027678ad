// What the tests in C share: a check that names its line, a bundle that verifies, a host that is told how to answer.
#ifndef FIXTURE_H
#define FIXTURE_H

#include <autonomy_gate.h>
#include <pthread.h>
#include <stdatomic.h>

#define CHECK(holds) check((holds), #holds, __FILE__, __LINE__)
#define CHECK_TEXT(found, expected) check_text((found), (expected), __FILE__, __LINE__)

void check(bool holds, const char *what, const char *file, int line);
void check_text(const char *found, const char *expected, const char *file, int line);

// Says that a fault was played, and withstood.
void played(const char *fault);

// The bundle of $FIXTURE: its tar, the key it is signed by, the enrollment it declares.
typedef struct bundle {
  unsigned char *tar;
  size_t len;
  char *key;
  char *enrollment_ref;
} bundle;

bundle bundle_load(void);
void bundle_free(bundle *bundle);

// A gate of `robot-7` with that bundle.
ag_gate *gate_load(const bundle *bundle, ag_mode mode);

// How a host answers.
typedef enum how {
  RIGHT,       // as the native host would: everybody is enrolled, everything is durable
  SLOW,        // not within the time-out
  NONSENSE,    // 200 with what is no answer and no receipt
  OTHERS_ROW,  // 200 with another node's row
  HALF,        // 200 with half of a body, then it hangs up
  HUGE_BODY,   // 200 with a body of 4 GiB, which its head announces
  HUGE_CHUNKS, // 200 with as much, in chunks
  CHUNKED,     // right, in chunks
  HANGS_UP,    // nothing
  REDIRECT,    // 302 to itself
  UNAUTHORIZED,
  INTERNAL,
  UNAVAILABLE,  // 503, as with a full disk
  FACTS_LOST,   // 409 to the next append, then right
} how;

// A host on a loopback port, or on a Unix socket, that answers as it is told.
typedef struct host {
  int kept;  // holds the port while nothing listens: -1 on a Unix socket
  int listener;
  pthread_t thread;
  char url[64];
  const char *enrollment_ref;
  _Atomic how look_ups;
  _Atomic how appends;
  atomic_int gets;
  atomic_int posts;
  atomic_int with_facts;  // posts that began with the facts
  atomic_ullong sent;     // bytes of bodies of 4 GiB
  atomic_int stopping;
  atomic_int open;  // connections
} host;

void host_start(host *host, const char *enrollment_ref, const char *socket);
void host_stop(host *host);

// Refuses connections, and keeps its place; takes them again.
void host_down(host *host);
void host_back(host *host);

#endif
