// libautonomy_gate for C++17: move-only handles over autonomy_gate.h, whose comments hold here too.
//
// What is refused throws autonomy::Error. A denied call throws autonomy::Denied. Handles may be used from several threads at once.
#ifndef AUTONOMY_GATE_HPP
#define AUTONOMY_GATE_HPP

#include <autonomy_gate.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace autonomy {

/// What was wrong, in one line: the cause and then the remedy.
class Error : public std::runtime_error {
 public:
  Error(ag_status status, const std::string& message) : std::runtime_error(message), status(status) {}
  const ag_status status;
};

namespace detail {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* handle) const noexcept {
    Free(handle);
  }
};

template <class T, auto Free>
using Handle = std::unique_ptr<T, Deleter<Free>>;

inline void check(ag_status status) {
  if (status != AG_OK) throw Error(status, ag_error());
}

/// A string for C. One with a NUL inside would be cut there and name something else.
inline const char* c(const std::string& text) {
  if (text.find('\0') != std::string::npos) throw Error(AG_MALFORMED, "a text holds a NUL: give text without one");
  return text.c_str();
}

inline const char* c(const std::optional<std::string>& text) { return text ? c(*text) : nullptr; }

inline std::optional<std::string> maybe(const char* text) {
  return text == nullptr ? std::nullopt : std::optional<std::string>(text);
}

inline std::string taken(char* text) {
  const Handle<char, ag_string_free> owned(text);
  return std::string(owned.get());
}

}  // namespace detail

/// A reason's text on the wire; empty for 0.
inline std::string_view text(ag_reason reason) {
  const char* text = ag_reason_text(reason);
  return text == nullptr ? std::string_view() : text;
}

/// What the operator does about a reason; empty for 0.
inline std::string_view remedy(ag_reason reason) {
  const char* remedy = ag_reason_remedy(reason);
  return remedy == nullptr ? std::string_view() : remedy;
}

/// What a gate is told once.
struct GateOptions {
  std::optional<std::string> node_id;
  ag_mode mode = AG_MODE_OFF;
  std::string bundle;
  std::vector<std::string> trusted_keys;
  std::uint64_t threshold = 1;
  std::vector<std::string> lease_keys;
  std::uint64_t lease_threshold = 1;
  std::uint64_t max_staleness_ms = 60'000;
  std::uint64_t max_skew_ms = 0;
};

/// A call that asks to run a tool. `policy` must be said.
struct Call {
  std::string tool;
  ag_reason policy = AG_REASON_NONE;
  std::optional<std::string> policy_ref;
  std::optional<std::string> policy_detail;
  std::optional<std::string> audit_id;
  std::optional<std::string> facts_logged;
  std::uint64_t now_ms = 0;
};

/// What an enrollment source says.
class Answer {
 public:
  static Answer json(std::string_view json) {
    return make([&](ag_answer* answer) { return ag_answer_json(answer, json.data(), json.size()); });
  }
  static Answer lease(std::string_view envelope) {
    return make([&](ag_answer* answer) {
      return ag_answer_lease(answer, reinterpret_cast<const std::uint8_t*>(envelope.data()), envelope.size());
    });
  }
  static Answer enrolled(const std::string& node_id, const std::string& enrollment_ref, const std::string& status,
                         const std::string& rollout_state, std::uint64_t serial, std::uint64_t observed_at_ms) {
    const ag_enrollment row{detail::c(node_id), detail::c(enrollment_ref), detail::c(status),
                            detail::c(rollout_state), serial};
    return make([&](ag_answer* answer) { return ag_answer_enrolled(answer, &row, observed_at_ms); });
  }
  static Answer not_enrolled(std::uint64_t observed_at_ms) {
    return make([&](ag_answer* answer) { return ag_answer_not_enrolled(answer, observed_at_ms); });
  }
  static Answer unavailable(const std::string& why) {
    return make([&](ag_answer* answer) { return ag_answer_unavailable(answer, detail::c(why)); });
  }
  const ag_answer* get() const noexcept { return handle_.get(); }

 private:
  Answer() : handle_(ag_answer_new()) {}
  template <class Put>
  static Answer make(Put put) {
    Answer answer;
    detail::check(put(answer.handle_.get()));
    return answer;
  }
  detail::Handle<ag_answer, ag_answer_free> handle_;
};

using Decision = detail::Handle<ag_decision, ag_decision_free>;
using Bundle = detail::Handle<ag_bundle, ag_bundle_free>;

/// One node's gate.
class Gate {
 public:
  explicit Gate(const GateOptions& options) {
    const auto trusted = pointers(options.trusted_keys), lease = pointers(options.lease_keys);
    ag_gate_options raw{};
    raw.node_id = detail::c(options.node_id);
    raw.mode = options.mode;
    raw.bundle = reinterpret_cast<const std::uint8_t*>(options.bundle.data());
    raw.bundle_len = options.bundle.size();
    raw.trusted_keys = trusted.data();
    raw.trusted_keys_len = trusted.size();
    raw.threshold = options.threshold;
    raw.lease_keys = lease.data();
    raw.lease_keys_len = lease.size();
    raw.lease_threshold = options.lease_threshold;
    raw.max_staleness_ms = options.max_staleness_ms;
    raw.max_skew_ms = options.max_skew_ms;
    ag_gate* gate = nullptr;
    detail::check(ag_gate_load(&raw, &gate));
    handle_.reset(gate);
  }

  /// Makes a tar the active bundle. One that is refused throws, and the bundle that was active stays so.
  void load_bundle(std::string_view tar) {
    detail::check(ag_gate_load_bundle(get(), reinterpret_cast<const std::uint8_t*>(tar.data()), tar.size()));
  }
  /// The active bundle, or nothing.
  Bundle bundle() const {
    ag_bundle* bundle = nullptr;
    detail::check(ag_gate_bundle(get(), &bundle));
    return Bundle(bundle);
  }
  void set_enrollment(const Answer& answer) { detail::check(ag_gate_set_enrollment(get(), answer.get())); }
  /// The reason of the first sub-check that fails; `AG_REASON_NONE` is a pass.
  ag_reason verdict(std::uint64_t now_ms) const {
    const std::int32_t verdict = ag_gate_verdict(get(), now_ms);
    if (verdict < 0) throw Error(AG_MALFORMED, "not a time: give milliseconds since the Unix epoch");
    return static_cast<ag_reason>(verdict);
  }
  /// Append its frames, wait until they are durable, and only then run the tool or answer the denial.
  Decision decide(const Call& call) {
    const ag_call raw = of(call);
    ag_decision* decision = nullptr;
    detail::check(ag_gate_decide(get(), &raw, &decision));
    return Decision(decision);
  }
  /// A decision for each; of one that is malformed, `error` says why.
  std::vector<Decision> decide_batch(const std::vector<Call>& calls) {
    std::vector<ag_call> raw;
    for (const Call& call : calls) raw.push_back(of(call));
    std::vector<ag_decision*> decided(calls.size());
    std::vector<Decision> decisions(calls.size());
    detail::check(ag_gate_decide_batch(get(), raw.data(), raw.size(), decided.data()));
    for (std::size_t at = 0; at < decided.size(); ++at) decisions[at].reset(decided[at]);
    return decisions;
  }
  /// All ten sub-checks, as JSON.
  std::string explain(std::uint64_t now_ms) const {
    char* json = nullptr;
    detail::check(ag_gate_explain(get(), now_ms, &json));
    return detail::taken(json);
  }
  ag_gate* get() const noexcept { return handle_.get(); }

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& texts) {
    std::vector<const char*> pointers;
    for (const std::string& text : texts) pointers.push_back(detail::c(text));
    return pointers;
  }
  static ag_call of(const Call& call) {
    ag_call raw{};
    raw.tool = detail::c(call.tool);
    raw.policy = call.policy;
    raw.policy_ref = detail::c(call.policy_ref);
    raw.policy_detail = detail::c(call.policy_detail);
    raw.audit_id = detail::c(call.audit_id);
    raw.facts_logged = detail::c(call.facts_logged);
    raw.now_ms = call.now_ms;
    return raw;
  }
  detail::Handle<ag_gate, ag_gate_free> handle_;
};

/// A host in memory, for tests and first steps: nothing it takes is durable.
class MemoryHost {
 public:
  MemoryHost() : handle_(ag_memory_host_new()) {}
  void enroll(const std::string& node_id, const std::string& enrollment_ref) {
    detail::check(ag_memory_host_enroll(get(), detail::c(node_id), detail::c(enrollment_ref), nullptr, nullptr));
  }
  void revoke(const std::string& node_id) { detail::check(ag_memory_host_revoke(get(), detail::c(node_id))); }
  /// Lets look-ups and appends fail, until it is nothing.
  void fail(const std::optional<std::string>& why) { detail::check(ag_memory_host_fail(get(), detail::c(why))); }
  std::string frames() const {
    char* json = nullptr;
    detail::check(ag_memory_host_frames(get(), &json));
    return detail::taken(json);
  }
  ag_source source() const { return ag_memory_host_source(get()); }
  ag_sink sink() const { return ag_memory_host_sink(get()); }

 private:
  ag_memory_host* get() const noexcept { return handle_.get(); }
  detail::Handle<ag_memory_host, ag_memory_host_free> handle_;
};

/// The native host of this machine (`autonomy host serve`).
class NativeHost {
 public:
  static NativeHost at_url(const std::string& url, const std::string& token_file) {
    ag_native_host_options options{};
    options.url = detail::c(url);
    options.token_file = detail::c(token_file);
    return NativeHost(options);
  }
  static NativeHost at_socket(const std::string& socket, const std::string& token_file) {
    ag_native_host_options options{};
    options.socket = detail::c(socket);
    options.token_file = detail::c(token_file);
    return NativeHost(options);
  }
  ag_source source() const { return ag_native_host_source(handle_.get()); }
  ag_sink sink() const { return ag_native_host_sink(handle_.get()); }

 private:
  explicit NativeHost(const ag_native_host_options& options) {
    ag_native_host* host = nullptr;
    detail::check(ag_native_host_new(&options, &host));
    handle_.reset(host);
  }
  detail::Handle<ag_native_host, ag_native_host_free> handle_;
};

/// A call that may not run.
class Denied : public Error {
 public:
  explicit Denied(const ag_denial& denial)
      : Error(AG_DENIED, "the call is denied: " + std::string(text(denial.reason))),
        reason(denial.reason),
        http_status(denial.status),
        audit_id(denial.audit_id),
        policy_ref(detail::maybe(denial.policy_ref)),
        json(denial.json),
        cause(detail::maybe(denial.cause)) {}
  const ag_reason reason;
  /// 403, or 503 where the decision could not be written down.
  const int http_status;
  const std::string audit_id;
  const std::optional<std::string> policy_ref;
  /// What the caller is answered.
  const std::string json;
  /// For the operator alone: why it could not be written down.
  const std::optional<std::string> cause;
};

/// The right to run one tool once. One that is not finished was abandoned.
class Permit {
 public:
  explicit Permit(ag_permit* permit) : handle_(permit), audit_id_(ag_permit_audit_id(permit)) {}
  const std::string& audit_id() const noexcept { return audit_id_; }
  void finish(ag_outcome outcome) noexcept { ag_permit_finish(handle_.release(), outcome); }

 private:
  static void abandon(ag_permit* permit) noexcept { ag_permit_finish(permit, AG_ABANDONED); }
  detail::Handle<ag_permit, abandon> handle_;
  std::string audit_id_;
};

/// Asks before each tool: looks up the enrollment, decides, and has the decision written down.
class Guard {
 public:
  /// What a guard may be told beside its gate, its source and its sink; 0 is the default of each.
  struct Options {
    ag_policy policy{};
    std::uint32_t max_age_ms = 0;
    std::uint32_t look_up_timeout_ms = 0;
    std::uint32_t append_timeout_ms = 0;
  };

  /// Takes source, sink and policy over.
  Guard(const Gate& gate, ag_source source, ag_sink sink, const Options& options) {
    const ag_guard_options raw{gate.get(),         source,
                               sink,               options.policy,
                               options.max_age_ms, options.look_up_timeout_ms,
                               options.append_timeout_ms};
    ag_guard* guard = nullptr;
    detail::check(ag_guard_new(&raw, &guard));
    handle_.reset(guard);
  }
  Guard(const Gate& gate, ag_source source, ag_sink sink) : Guard(gate, source, sink, Options()) {}

  /// A permit when the call may run and its decision is durable; throws `Denied` when it may not.
  Permit ask(const std::string& tool, const std::string& params = {}) {
    ag_tool_call call{};
    call.tool = detail::c(tool);
    call.params = detail::c(params);
    return ask(call);
  }
  Permit ask(const ag_tool_call& call) {
    ag_permit* permit = nullptr;
    ag_denial* denial = nullptr;
    const ag_status status = ag_guard_ask(handle_.get(), &call, &permit, &denial);
    if (status == AG_DENIED) {
      const detail::Handle<ag_denial, ag_denial_free> owned(denial);
      throw Denied(*owned);
    }
    detail::check(status);
    return Permit(permit);
  }
  /// Asks, runs, and writes down how it went: completed, or failed where it throws.
  template <class Tool>
  auto run(const std::string& tool, Tool&& body) -> std::invoke_result_t<Tool> {
    Permit permit = ask(tool);
    try {
      if constexpr (std::is_void_v<std::invoke_result_t<Tool>>) {
        std::invoke(std::forward<Tool>(body));
        permit.finish(AG_COMPLETED);
      } else {
        auto output = std::invoke(std::forward<Tool>(body));
        permit.finish(AG_COMPLETED);
        return output;
      }
    } catch (...) {
      permit.finish(AG_FAILED);
      throw;
    }
  }

 private:
  detail::Handle<ag_guard, ag_guard_free> handle_;
};

/// What the library is, as JSON.
inline std::string info() {
  char* json = nullptr;
  detail::check(ag_info(&json));
  return detail::taken(json);
}

}  // namespace autonomy

#endif
