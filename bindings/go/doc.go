// Package autonomygate answers, before a tool runs on a node, whether it may: whether the node is enrolled, its rollout
// healthy, and its enrollment the one that its signed bundle declares. It decides in the process, in a small WebAssembly
// module that imports nothing and gives the same answers in every language. A [Gate] and a [Guard] are safe for use by any
// number of goroutines. The module is compiled once a process; a gate keeps up to [Config].Instances instances of it, and
// each serves one call at a time. What the gate is told (configuration, bundle, enrollment) is one immutable value that is
// replaced whole; an instance that was told another one is told the new one when a call next takes it, before that call.
//
// [Gate] does no I/O. [Guard] looks up the enrollment at an [EnrollmentSource], decides, and has the decision written down
// by a [DecisionSink] before the tool runs; [NativeHost] is both, and so is [MemoryHost] for tests. [Middleware] is a guard
// before handlers of net/http.
package autonomygate
