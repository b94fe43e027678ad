/*
 * The gate decides whether an AI agent or robot may run a tool on a node now. For C11 and C++17.
 *
 * Threads. Every handle may be used from several threads at once: it locks where it must. Free it when no thread uses it.
 * Make handles after a fork, not before.
 *
 * Ownership. What a function puts into `*out`, or gives as a pointer that is not const, is yours: free it with the one
 * function that its comment names, once. Every free takes NULL. What a struct of this library points to lives as long as the
 * struct. What you pass in stays yours and is copied; the callbacks of a guard are the exception, and say so. Where a call
 * does not give `AG_OK`, `*out` is NULL.
 *
 * Strings are UTF-8 and end in a NUL. What may be NULL is said to be so; a NULL elsewhere gives `AG_MALFORMED`, and so does a
 * length with nothing behind it. Structs that you make begin as zeros: `ag_call call = {0};`.
 *
 * Callbacks. Yours come back: none throws, and none jumps out. An exception that leaves one ends the process.
 *
 * Errors. Whatever is not `AG_OK` is no permission to run anything; `ag_error` says why.
 *
 * Panics. One inside is a defect, and is caught. To `ag_guard_ask`, `ag_gate_decide` and `ag_gate_decide_batch` it is a failure
 * of what panicked, as their comments say; `ag_gate_verdict` gives `AG_ATTESTATION_ENROLLMENT_UNAVAILABLE`, and
 * `ag_native_host_is_healthy` false. Any other call that gives a status gives `AG_PANICKED`, and so do those three where the call
 * has no audit id yet. The panic marks the handle as dead, whichever it is: what it held is dropped, and the next call begins
 * anew. A gate is told again all that it was told, a guard looks up and logs the facts again, a native host connects again, and a
 * memory host knows no node. Memory that runs out ends the process.
 */

#ifndef AUTONOMY_GATE_H
#define AUTONOMY_GATE_H


/* Written by cbindgen from bindings/c/src: `cargo xtask c-header`; do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this interface: another major is another interface, and has another soname.
 */
#define AG_ABI_MAJOR 1

/**
 * A higher minor has more.
 */
#define AG_ABI_MINOR 0

/**
 * `verdict` of a decision that did not ask the gate.
 */
#define AG_NOT_ASKED -1

/**
 * What a call came to. 0 is good; whatever else it is, no tool may run.
 */
enum ag_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is done. Of `ag_guard_ask`: the call may run.
   */
  AG_OK = 0,
  /**
   * Of `ag_guard_ask` alone: the call may not run.
   */
  AG_DENIED = 1,
  /**
   * The input is not what the call takes.
   */
  AG_MALFORMED = -1,
  /**
   * The input was read, and does not hold: a bundle, a lease, a signature, a file that others can read.
   */
  AG_REFUSED = -2,
  /**
   * This is not the library that the program was compiled for.
   */
  AG_UNSUPPORTED = -3,
  /**
   * A panic was caught, which is a defect of the library. The next call is right: there is nothing to reset.
   */
  AG_PANICKED = -4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ag_status ag_status;
#else
typedef int32_t ag_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a call was answered as it was: stable numbers, 0 where there is no reason.
 */
enum ag_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * None: the call is allowed, or the gate passes.
   */
  AG_REASON_NONE = 0,
  /**
   * `attestation: bundle_unverified`: No bundle is loaded, or its tar, manifest, digests or signatures do not hold.
   */
  AG_ATTESTATION_BUNDLE_UNVERIFIED = 1,
  /**
   * `attestation: enrollment_ref_undeclared`: The bundle's schema is below 1.2, or its manifest has no `provenance.enrollment_ref`.
   */
  AG_ATTESTATION_ENROLLMENT_REF_UNDECLARED = 2,
  /**
   * `attestation: node_id_unset`: The runtime was started without a node id.
   */
  AG_ATTESTATION_NODE_ID_UNSET = 3,
  /**
   * `attestation: enrollment_unavailable`: The enrollment source failed, timed out, or answered nonsense.
   */
  AG_ATTESTATION_ENROLLMENT_UNAVAILABLE = 4,
  /**
   * `attestation: enrollment_untrusted`: An enrollment lease whose signature, node id or serial does not hold.
   */
  AG_ATTESTATION_ENROLLMENT_UNTRUSTED = 5,
  /**
   * `attestation: enrollment_stale`: The enrollment answer is older than the allowed staleness, its lease has expired, or it is from the future.
   */
  AG_ATTESTATION_ENROLLMENT_STALE = 6,
  /**
   * `attestation: not_enrolled`: The enrollment source answered: no such node.
   */
  AG_ATTESTATION_NOT_ENROLLED = 7,
  /**
   * `attestation: enrollment_revoked`: The node's enrollment status is anything but `active`.
   */
  AG_ATTESTATION_ENROLLMENT_REVOKED = 8,
  /**
   * `attestation: enrollment_ref_mismatch`: The ref the node is enrolled with is not, byte for byte, the one its bundle declares.
   */
  AG_ATTESTATION_ENROLLMENT_REF_MISMATCH = 9,
  /**
   * `attestation: rollout_incoherent`: The node's rollout state is not one of `<none>`, `pending`, `acknowledged`, `active`.
   */
  AG_ATTESTATION_ROLLOUT_INCOHERENT = 10,
  /**
   * `policy: allowed`: `data.autonomy.allow` is true for this call.
   */
  AG_POLICY_ALLOWED = 101,
  /**
   * `policy: denied`: `data.autonomy.allow` is false for this call.
   */
  AG_POLICY_DENIED = 102,
  /**
   * `policy: undefined`: `data.autonomy.allow` has no value for this call, or one that is not a boolean.
   */
  AG_POLICY_UNDEFINED = 103,
  /**
   * `policy: evaluation_failed`: The policy engine could not evaluate the call.
   */
  AG_POLICY_EVALUATION_FAILED = 104,
  /**
   * `policy: no_bundle`: The runtime was started without a bundle, so there is no policy to ask.
   */
  AG_POLICY_NO_BUNDLE = 105,
  /**
   * `audit: wal_unavailable`: The decision could not be written down durably, so the tool did not run.
   */
  AG_AUDIT_WAL_UNAVAILABLE = 201,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ag_reason ag_reason;
#else
typedef int32_t ag_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How far the gate is turned on.
 */
enum ag_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is not asked.
   */
  AG_MODE_OFF = 0,
  /**
   * It is asked and written down, and answers do not change.
   */
  AG_MODE_ADVISORY = 1,
  /**
   * What it finds is enforced.
   */
  AG_MODE_ENFORCE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ag_mode ag_mode;
#else
typedef int32_t ag_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a tool went.
 */
enum ag_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It was given up before it said how it went; so is any number that is none of these.
   */
  AG_ABANDONED = 0,
  /**
   * It did what it should.
   */
  AG_COMPLETED = 1,
  /**
   * It did not.
   */
  AG_FAILED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ag_outcome ag_outcome;
#else
typedef int32_t ag_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What became of an append. Whatever number is none of these is a failure.
 */
enum ag_appended
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It may be in the log or not: the call is denied with `AG_AUDIT_WAL_UNAVAILABLE`.
   */
  AG_APPEND_FAILED = 0,
  /**
   * It is on disk, whole.
   */
  AG_APPEND_DURABLE = 1,
  /**
   * The log does not have the facts that the frames name, and took none of them: they are sent again, with the facts.
   */
  AG_APPEND_FACTS_NOT_LOGGED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ag_appended ag_appended;
#else
typedef int32_t ag_appended;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an enrollment source says of a node. One that nothing was put into says that the source gave no answer.
 */
typedef struct ag_answer ag_answer;

/**
 * One node's gate: told who it is, which bundle runs and what its enrollment source answered, it decides. It does no I/O.
 * May be used from several threads at once.
 */
typedef struct ag_gate ag_gate;

/**
 * Asks before each tool: looks up the enrollment, decides, and has the decision written down. May be used from several threads
 * at once: look-ups and appends run side by side.
 */
typedef struct ag_guard ag_guard;

/**
 * A host in memory, for tests and first steps: nothing it takes is durable. May be used from several threads at once.
 */
typedef struct ag_memory_host ag_memory_host;

/**
 * Look-ups and durable appends at the native host of this machine. Keeps its connections; follows no redirect; never sends
 * an append twice. May be used from several threads at once.
 */
typedef struct ag_native_host ag_native_host;

/**
 * What a callback has to say beside its number. It is the guard's: it is not kept and not freed.
 */
typedef struct ag_note ag_note;

/**
 * The right to run one tool once. The decision behind it is durable.
 */
typedef struct ag_permit ag_permit;

/**
 * What a gate is told once. Members that are 0 or NULL have their default. Nothing of it is kept: the gate copies.
 */
typedef struct ag_gate_options {
  /**
   * Which node this is. NULL: every call that the gate is asked about is denied.
   */
  const char *node_id;
  /**
   * An `ag_mode`; off unless given.
   */
  int32_t mode;
  /**
   * The tar of a bundle. One that does not verify is refused, and no gate is loaded.
   */
  const uint8_t *bundle;
  /**
   * How many bytes it has.
   */
  size_t bundle_len;
  /**
   * Who may sign bundles: SPKI PEM. None refuses every bundle.
   */
  const char *const *trusted_keys;
  /**
   * How many there are.
   */
  size_t trusted_keys_len;
  /**
   * How many distinct ones of them must have signed; 0 means 1.
   */
  uint64_t threshold;
  /**
   * Who may sign leases: SPKI PEM. None refuses every lease.
   */
  const char *const *lease_keys;
  /**
   * How many there are.
   */
  size_t lease_keys_len;
  /**
   * How many distinct ones of them must have signed; 0 means 1.
   */
  uint64_t lease_threshold;
  /**
   * How long an answer counts after it was observed; 0 means 60,000.
   */
  uint64_t max_staleness_ms;
  /**
   * How far the source's clock may be ahead.
   */
  uint64_t max_skew_ms;
} ag_gate_options;

/**
 * A file of a bundle.
 */
typedef struct ag_file {
  /**
   * Its path.
   */
  const char *path;
  /**
   * The SHA-256 of its bytes.
   */
  const char *digest;
  /**
   * Its bytes.
   */
  const uint8_t *bytes;
  /**
   * How many they are.
   */
  size_t size;
  /**
   * Where they begin in the tar.
   */
  size_t offset;
} ag_file;

/**
 * A bundle that is active, as it was when it was asked for. Yours, and all that it points to: `ag_bundle_free`.
 */
typedef struct ag_bundle {
  /**
   * Its identity.
   */
  const char *digest;
  /**
   * Its name.
   */
  const char *name;
  /**
   * Its version.
   */
  const char *version;
  /**
   * How far it has come: `dev`, `canary` or `stable`.
   */
  const char *channel;
  /**
   * The version of its policies.
   */
  const char *policy_version;
  /**
   * The schema of its manifest.
   */
  const char *schema_version;
  /**
   * `policy_ref` of the calls that its policies answer; NULL where name and version are too long for one.
   */
  const char *policy_ref;
  /**
   * The enrollment it declares; NULL where there is none.
   */
  const char *enrollment_ref;
  /**
   * Its files in their order.
   */
  const struct ag_file *files;
  /**
   * How many there are.
   */
  size_t files_len;
  /**
   * The ids of the trusted keys that have signed.
   */
  const char *const *signers;
  /**
   * How many there are.
   */
  size_t signers_len;
} ag_bundle;

/**
 * A call that asks to run a tool.
 */
typedef struct ag_call {
  /**
   * The tool's name.
   */
  const char *tool;
  /**
   * What the host's policy said: one of `AG_POLICY_…`. It must be said; only `AG_POLICY_ALLOWED` allows.
   */
  int32_t policy;
  /**
   * Which policies answered; may be NULL.
   */
  const char *policy_ref;
  /**
   * What the operator should know of their answer; may be NULL.
   */
  const char *policy_detail;
  /**
   * Joins the frames of the call; NULL means a new one.
   */
  const char *audit_id;
  /**
   * The id of the facts that the log has: `facts` of the last decision whose frames are durable. May be NULL.
   */
  const char *facts_logged;
  /**
   * The time, in milliseconds since the Unix epoch; 0 means now.
   */
  uint64_t now_ms;
} ag_call;

/**
 * What comes of a call. Yours, and all that it points to: `ag_decision_free`.
 */
typedef struct ag_decision {
  /**
   * Whether the tool may run, once `frames` are durable.
   */
  bool allowed;
  /**
   * Why it may not; 0 when it may.
   */
  ag_reason reason;
  /**
   * What the gate found: 0, an `ag_reason`, or `AG_NOT_ASKED`.
   */
  int32_t verdict;
  /**
   * The id of the facts it was decided on: the next call's `facts_logged`, once `frames` are durable. NULL where there are
   * no frames.
   */
  const char *facts;
  /**
   * Joins the frames of the call.
   */
  const char *audit_id;
  /**
   * The text of a JSON array, NUL at its end: append it as it is, durably, before the tool runs and before you answer.
   */
  const char *frames;
  /**
   * How many bytes it has, without the NUL.
   */
  size_t frames_len;
  /**
   * Of a batch alone: why this call is malformed. It is then not allowed, and has no frames. Else NULL.
   */
  const char *error;
} ag_decision;

/**
 * A row of an enrollment store.
 */
typedef struct ag_enrollment {
  /**
   * Whose it is.
   */
  const char *node_id;
  /**
   * The enrollment.
   */
  const char *enrollment_ref;
  /**
   * Only `active` is good.
   */
  const char *status;
  /**
   * `<none>`, `pending`, `acknowledged` and `active` are good.
   */
  const char *rollout_state;
  /**
   * Grows with each change.
   */
  uint64_t serial;
} ag_enrollment;

/**
 * Who says whether a node is enrolled. A guard may call it from several threads at once.
 */
typedef struct ag_source {
  /**
   * Given to each callback.
   */
  void *context;
  /**
   * Puts into `answer` what is known of the node now, and comes back within `timeout_ms`: the guard cannot interrupt it. An
   * answer that comes later, or none, counts as unavailable. `answer` is the guard's: it is not kept and not freed.
   */
  void (*look_up)(void *context, const char *node_id, uint32_t timeout_ms, struct ag_answer *answer);
  /**
   * Called once, when nobody will call it again. May be NULL.
   */
  void (*release)(void *context);
} ag_source;

/**
 * Where decisions are written down. A guard may call it from several threads at once.
 */
typedef struct ag_sink {
  /**
   * Given to each callback.
   */
  void *context;
  /**
   * Appends `frames`, the text of a JSON array, as one batch; comes back within `timeout_ms`, and says
   * `AG_APPEND_DURABLE` when it is on disk. Never tries again. `frames` and `note` are the guard's.
   */
  int32_t (*append)(void *context,
                    const char *frames,
                    size_t frames_len,
                    uint32_t timeout_ms,
                    struct ag_note *note);
  /**
   * Called once, when nobody will call it again. May be NULL.
   */
  void (*release)(void *context);
} ag_sink;

/**
 * The host's own policy. A guard may call it from several threads at once.
 */
typedef struct ag_policy {
  /**
   * Given to each callback.
   */
  void *context;
  /**
   * Gives one of `AG_POLICY_…`; any other number is `AG_POLICY_UNDEFINED`, which denies. `params` are those of the call, and
   * may be empty. NULL: there is no policy, and every call goes to the gate.
   */
  int32_t (*ask)(void *context, const char *tool, const char *params, struct ag_note *note);
  /**
   * Called once, when nobody will call it again. May be NULL.
   */
  void (*release)(void *context);
} ag_policy;

/**
 * Of what a guard is made. Members that are 0 have their default.
 */
typedef struct ag_guard_options {
  /**
   * The gate. It stays yours, and may be freed before the guard. A guard owns what its gate is told about the enrollment:
   * use one guard for a gate.
   */
  const struct ag_gate *gate;
  /**
   * Who is asked. The guard takes it over: it is released with the guard, or at once where there is no guard.
   */
  struct ag_source source;
  /**
   * Who writes. Taken over likewise.
   */
  struct ag_sink sink;
  /**
   * The host's own policy; one without `ask` is none. Taken over likewise.
   */
  struct ag_policy policy;
  /**
   * How long an answer is asked for no more. 0: every call looks up, and sees a revoke at once.
   */
  uint32_t max_age_ms;
  /**
   * How long a look-up may take; 0 means 2,000.
   */
  uint32_t look_up_timeout_ms;
  /**
   * How long an append may take; 0 means 10,000.
   */
  uint32_t append_timeout_ms;
} ag_guard_options;

/**
 * A call that asks to run a tool.
 */
typedef struct ag_tool_call {
  /**
   * The tool's name.
   */
  const char *tool;
  /**
   * Its parameters, for the policy alone; may be NULL.
   */
  const char *params;
  /**
   * One of `AG_POLICY_…` where the policy was asked already. 0: the guard's policy is asked.
   */
  int32_t policy;
  /**
   * Which policies answered; may be NULL.
   */
  const char *policy_ref;
  /**
   * What the operator should know of their answer; may be NULL.
   */
  const char *policy_detail;
  /**
   * Joins the frames of the call; NULL means a new one.
   */
  const char *audit_id;
} ag_tool_call;

/**
 * A call that may not run. Yours, and all that it points to: `ag_denial_free`.
 */
typedef struct ag_denial {
  /**
   * Why.
   */
  ag_reason reason;
  /**
   * For HTTP: 403, or 503 where the decision could not be written down.
   */
  int32_t status;
  /**
   * Joins the frames of the call.
   */
  const char *audit_id;
  /**
   * Which policies answered; may be NULL.
   */
  const char *policy_ref;
  /**
   * What the operator does about it. Static.
   */
  const char *remedy;
  /**
   * What the caller is answered.
   */
  const char *json;
  /**
   * For the operator alone: why it could not be written down. Else NULL.
   */
  const char *cause;
} ag_denial;

/**
 * Where the native host is (`autonomy host serve`), and how to be let in. Nothing of it is kept.
 */
typedef struct ag_native_host_options {
  /**
   * `http://127.0.0.1:7778`: a loopback address, without TLS.
   */
  const char *url;
  /**
   * A Unix socket in place of `url`.
   */
  const char *socket;
  /**
   * A file that holds the token and that nobody but its owner can read.
   */
  const char *token_file;
  /**
   * The token itself in place of `token_file`.
   */
  const char *token;
} ag_native_host_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Why the last call on this thread that was not `AG_OK` was not: one line, the cause and then the remedy. Empty before.
 * Yours until the next call on this thread; free nothing.
 */
const char *ag_error(void);

/**
 * The version of the library, `major.minor.patch`. Static.
 */
const char *ag_version(void);

/**
 * What the library is, as JSON: its version, the reasons it knows, its limits. `*json` is yours: `ag_string_free`.
 */
ag_status ag_info(char **json);

/**
 * A reason's text: what the wire, the log and the metrics say. NULL for a number that is no reason's. Static.
 */
const char *ag_reason_text(int32_t reason);

/**
 * What the operator does about a reason, in a line. NULL for a number that is no reason's. Static.
 */
const char *ag_reason_remedy(int32_t reason);

/**
 * The number of the reason with this text, an `ag_reason`; 0 where there is none.
 */
int32_t ag_reason_number(const char *text);

/**
 * Whether an Ed25519 signature holds by the strict rules: the key's 32 bytes, the signature's 64, then the message.
 * `AG_REFUSED` where it does not. No part of a decision: so that published vectors can be run on what runs the gate.
 */
ag_status ag_verify_signature(const uint8_t *bytes,
                              size_t len);

/**
 * Frees what is said to be freed so. NULL is nothing.
 */
void ag_string_free(char *string);

/**
 * `ag_gate_load` calls it with the version that the program was compiled for.
 */
ag_status ag_gate_load_abi(uint32_t abi_major, const struct ag_gate_options *options, struct ag_gate **gate);

/**
 * Frees a gate. A guard that was made with it keeps what it needs. NULL is nothing.
 */
void ag_gate_free(struct ag_gate *gate);

/**
 * Makes a tar the active bundle. One that is refused leaves the bundle that was active.
 */
ag_status ag_gate_load_bundle(const struct ag_gate *gate, const uint8_t *tar, size_t len);

/**
 * The active bundle; `*bundle` is NULL where there is none.
 */
ag_status ag_gate_bundle(const struct ag_gate *gate, struct ag_bundle **bundle);

/**
 * Frees a bundle. NULL is nothing.
 */
void ag_bundle_free(struct ag_bundle *bundle);

/**
 * Tells what the source answered about this node. What is malformed or does not hold is an error, and the enrollment is
 * then unavailable or untrusted: it denies.
 */
ag_status ag_gate_set_enrollment(const struct ag_gate *gate,
                                 const struct ag_answer *answer);

/**
 * What the gate finds at a time, in milliseconds since the Unix epoch: 0, or the `ag_reason` of the first sub-check that
 * fails. Below 0 for what is no time. Looks at no mode, and writes nothing down: a call is decided by `ag_gate_decide`.
 */
int32_t ag_gate_verdict(const struct ag_gate *gate,
                        uint64_t now_ms);

/**
 * Decides a call. `*decision` is yours: append its frames, wait until they are durable, and only then run the tool or
 * answer the denial.
 *
 * A call on which the library panics is denied: a new instance decides it, told that the enrollment is unavailable; where
 * that one panics as well or would let the call through, the reason is `AG_AUDIT_WAL_UNAVAILABLE` and there are no frames.
 */
ag_status ag_gate_decide(const struct ag_gate *gate,
                         const struct ag_call *call,
                         struct ag_decision **decision);

/**
 * Decides each call as `ag_gate_decide` would, and puts a decision for each into `decisions`, which has room for `len`. A
 * call that is malformed gets one with `error`. Each is to be freed.
 */
ag_status ag_gate_decide_batch(const struct ag_gate *gate,
                               const struct ag_call *calls,
                               size_t len,
                               struct ag_decision **decisions);

/**
 * Frees a decision. NULL is nothing.
 */
void ag_decision_free(struct ag_decision *decision);

/**
 * All ten sub-checks at a time, with what was expected and found, as JSON. `*json` is yours: `ag_string_free`.
 */
ag_status ag_gate_explain(const struct ag_gate *gate,
                          uint64_t now_ms,
                          char **json);

/**
 * A new answer, which says that the source gave none. Yours: `ag_answer_free`. A source's callback is given one, and frees
 * none.
 */
struct ag_answer *ag_answer_new(void);

/**
 * Frees an answer. NULL is nothing.
 */
void ag_answer_free(struct ag_answer *answer);

/**
 * The answer is this JSON, as the native host gave it: integers in it are exact. It is copied.
 */
ag_status ag_answer_json(struct ag_answer *answer, const char *json, size_t len);

/**
 * The answer is this lease, the envelope's own bytes. They are copied.
 */
ag_status ag_answer_lease(struct ag_answer *answer, const uint8_t *envelope, size_t len);

/**
 * The answer is this row, observed at a time in milliseconds since the Unix epoch. It is copied.
 */
ag_status ag_answer_enrolled(struct ag_answer *answer,
                             const struct ag_enrollment *row,
                             uint64_t observed_at_ms);

/**
 * The answer is: no such node.
 */
ag_status ag_answer_not_enrolled(struct ag_answer *answer, uint64_t observed_at_ms);

/**
 * There is no answer, and this is why. It is copied.
 */
ag_status ag_answer_unavailable(struct ag_answer *answer, const char *why);

/**
 * What the operator should know: why an append failed, or what the policy found. It is copied.
 */
ag_status ag_note_text(struct ag_note *note, const char *text);

/**
 * Which policies answered. It is copied.
 */
ag_status ag_note_policy_ref(struct ag_note *note, const char *policy_ref);

/**
 * A new guard. Yours: `ag_guard_free`.
 */
ag_status ag_guard_new(const struct ag_guard_options *options, struct ag_guard **guard);

/**
 * Frees a guard. Permits that were given may be finished after it. NULL is nothing.
 */
void ag_guard_free(struct ag_guard *guard);

/**
 * Asks whether a call may run. `AG_OK`: it may, once, and `*permit` is yours until `ag_permit_finish`. `AG_DENIED`: it may
 * not, and `*denial` is yours: `ag_denial_free`. Anything else: it may not, and nothing was written down. `denial` may be
 * NULL.
 *
 * A panic counts as a failure of what panicked: of the gate as `ag_gate_decide` says; of the look-up,
 * `AG_ATTESTATION_ENROLLMENT_UNAVAILABLE`; of the policy, `AG_POLICY_EVALUATION_FAILED`; of an append or of anything else,
 * `AG_AUDIT_WAL_UNAVAILABLE` in every mode, and the denial's `cause` has what it said.
 */
ag_status ag_guard_ask(const struct ag_guard *guard,
                       const struct ag_tool_call *call,
                       struct ag_permit **permit,
                       struct ag_denial **denial);

/**
 * The audit id of a permit's call. The permit's: it ends with it.
 */
const char *ag_permit_audit_id(const struct ag_permit *permit);

/**
 * Writes down how the tool went, an `ag_outcome`, and frees the permit. It comes back when that is durable or has failed:
 * answer your caller before. Whether it was written changes nothing, and is not said. NULL is nothing.
 */
void ag_permit_finish(struct ag_permit *permit,
                      int32_t outcome);

/**
 * Frees a denial. NULL is nothing.
 */
void ag_denial_free(struct ag_denial *denial);

/**
 * A new native host; nothing is connected yet. Yours: `ag_native_host_free`.
 */
ag_status ag_native_host_new(const struct ag_native_host_options *options, struct ag_native_host **host);

/**
 * Frees a host. Its sources and sinks live on. NULL is nothing.
 */
void ag_native_host_free(struct ag_native_host *host);

/**
 * Whether the host takes frames.
 */
bool ag_native_host_is_healthy(const struct ag_native_host *host, uint32_t timeout_ms);

/**
 * The host as a source, for a guard to take over. Of NULL: one that no guard takes.
 */
struct ag_source ag_native_host_source(const struct ag_native_host *host);

/**
 * The host as a sink, for a guard to take over. Of NULL: one that no guard takes.
 */
struct ag_sink ag_native_host_sink(const struct ag_native_host *host);

/**
 * A new host in memory: it knows no node. Yours: `ag_memory_host_free`.
 */
struct ag_memory_host *ag_memory_host_new(void);

/**
 * Frees a host. Its sources and sinks live on. NULL is nothing.
 */
void ag_memory_host_free(struct ag_memory_host *host);

/**
 * Enrolls a node, or changes its row. `status` is `active` and `rollout_state` is `<none>` where they are NULL.
 */
ag_status ag_memory_host_enroll(const struct ag_memory_host *host,
                                const char *node_id,
                                const char *enrollment_ref,
                                const char *status,
                                const char *rollout_state);

/**
 * Revokes a node: its next call is denied.
 */
ag_status ag_memory_host_revoke(const struct ag_memory_host *host, const char *node_id);

/**
 * Lets look-ups and appends fail with `why`, until it is NULL.
 */
ag_status ag_memory_host_fail(const struct ag_memory_host *host, const char *why);

/**
 * What was appended, the text of a JSON array. `*json` is yours: `ag_string_free`.
 */
ag_status ag_memory_host_frames(const struct ag_memory_host *host, char **json);

/**
 * The host as a source, for a guard to take over. Of NULL: one that no guard takes.
 */
struct ag_source ag_memory_host_source(const struct ag_memory_host *host);

/**
 * The host as a sink, for a guard to take over. Of NULL: one that no guard takes.
 */
struct ag_sink ag_memory_host_sink(const struct ag_memory_host *host);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/**
 * A new gate: yours, `ag_gate_free`. `AG_UNSUPPORTED` where the library is not the one that this header belongs to.
 */
static inline ag_status ag_gate_load(const ag_gate_options *options, ag_gate **gate) {
  return ag_gate_load_abi(AG_ABI_MAJOR, options, gate);
}

#endif
