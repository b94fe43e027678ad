package autonomygate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// An EnrollmentSource says whether a node is enrolled.
type EnrollmentSource interface {
	// LookUp gives what is known of the node now. It must return once the context is done. A source that fails, takes too
	// long or answers nonsense has not answered: the call is denied with ReasonEnrollmentUnavailable.
	LookUp(ctx context.Context, nodeID string) (Answer, error)
}

// A DecisionSink is where decisions are written down.
type DecisionSink interface {
	// Append appends the frames as one batch, and returns nil once they are durable. It must return once the context is
	// done. It gives ErrFactsNotLogged where the log does not have the facts that they name; whatever else it gives denies
	// the call with ReasonWALUnavailable.
	Append(ctx context.Context, frames Frames) error
}

// A PolicyAnswer is what the host's own policy says of a call.
type PolicyAnswer struct {
	// Reason is a policy reason: only ReasonAllowed allows, and an empty one is ReasonUndefined.
	Reason Reason
	// Ref is which policies answered.
	Ref string
	// Detail is what the operator should know of their answer.
	Detail string
}

// A ToolCall asks a guard to run a tool.
type ToolCall struct {
	// Tool is the tool's name.
	Tool string
	// Params are the tool's parameters, for the policy.
	Params any
	// Policy is what the policy said, where it was asked already; nil means that the guard's policy is asked.
	Policy *PolicyAnswer
	// AuditID joins the frames of the call; empty means a new one.
	AuditID string
}

// Outcome is how a tool went.
type Outcome string

const (
	Completed Outcome = "completed"
	Failed    Outcome = "failed"
	// Abandoned is a call that was given up before the tool said how it went.
	Abandoned Outcome = "abandoned"
)

// Denied is the error of a call that may not run. errors.Is finds its reason, and what was behind it.
type Denied struct {
	Reason Reason
	// AuditID joins the frames of the call.
	AuditID string
	// PolicyRef is which policies answered; empty where none did.
	PolicyRef string
	// Cause is why the decision could not be written down; nil where it could.
	Cause error
}

func (d *Denied) Error() string { return "the call is denied: " + string(d.Reason) }

func (d *Denied) Unwrap() []error {
	if d.Cause == nil {
		return []error{d.Reason}
	}
	return []error{d.Reason, d.Cause}
}

// Status is that of HTTP: 403, or 503 where the decision could not be written down.
func (d *Denied) Status() int {
	if d.Reason == ReasonWALUnavailable {
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// Remedy is what the operator does about it.
func (d *Denied) Remedy() string { return d.Reason.Remedy() }

// MarshalJSON gives what the caller gets: the reason, and nothing of what was expected and found.
func (d *Denied) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Decision  Effect  `json:"decision"`
		Reason    Reason  `json:"reason"`
		PolicyRef *string `json:"policy_ref"`
		AuditID   string  `json:"audit_id"`
	}{Deny, d.Reason, nonEmpty(d.PolicyRef), d.AuditID})
}

// A Guard asks before each tool: it looks up the enrollment, decides, and has the decision written down.
//
// No tool runs without a permit, and there is a permit only when the frames of its decision are durable. A guard owns what
// its gate is told about the enrollment: use one guard for a gate. Any number of goroutines may use it; its fields are set
// before the first call.
type Guard struct {
	Gate   *Gate
	Source EnrollmentSource
	Sink   DecisionSink
	// Policy is the host's own. Without one, every call goes to the gate; one that fails denies.
	Policy func(ctx context.Context, call ToolCall) (PolicyAnswer, error)
	// MaxAge is how long an answer is asked for no more. At 0, every call looks up, and sees a revoke at once.
	MaxAge time.Duration
	// LookUpTimeout is how long a look-up may take; 0 means 2 seconds.
	LookUpTimeout time.Duration
	// AppendTimeout is how long an append may take; 0 means 10 seconds.
	AppendTimeout time.Duration

	mutex sync.Mutex
	// The answer that was asked for last, and when.
	answered bool
	answer   Answer
	askedAt  time.Time
	// What the gate was told, where it may stand for a later answer that is the same.
	told *observation
	// The facts that the log has.
	factsLogged string
	finishing   pending
}

// Ask gives a permit when the call may run and its decision is durable. The error is a *Denied when it may not, and of kind
// ErrMalformed when the call is malformed; nothing is written down then.
func (g *Guard) Ask(ctx context.Context, call ToolCall) (*Permit, error) {
	if g.Gate == nil || g.Source == nil || g.Sink == nil {
		return nil, &failure{ErrMalformed, "the guard has no gate, source or sink: set all three"}
	}
	policy := g.policyOf(ctx, call)
	id := call.AuditID
	if id == "" {
		id = newAuditID(time.Now().UnixMilli())
	}
	denied := func(reason Reason, cause error) (*Permit, error) {
		return nil, &Denied{Reason: reason, AuditID: id, PolicyRef: policy.Ref, Cause: cause}
	}
	if err := g.lookUp(ctx); err != nil {
		return denied(ReasonWALUnavailable, err)
	}
	decide := func(factsLogged string) (Decision, error) {
		return g.Gate.Decide(Call{
			Tool: call.Tool, Policy: policy.Reason, PolicyRef: policy.Ref, PolicyDetail: policy.Detail,
			AuditID: id, FactsLogged: factsLogged,
		})
	}
	decision, err := decide(g.logged())
	if err != nil {
		return nil, err
	}
	err = g.append(ctx, decision)
	if errors.Is(err, ErrFactsNotLogged) {
		// Another log, or an older state of it: this once, with the facts.
		if decision, err = decide(""); err != nil {
			return nil, err
		}
		err = g.append(ctx, decision)
	}
	if err != nil {
		return denied(ReasonWALUnavailable, err)
	}
	if decision.Effect != Allow {
		return denied(decision.Reason, nil)
	}
	return &Permit{AuditID: id, guard: g, tool: call.Tool, started: time.Now()}, nil
}

// Run asks, runs the tool, and writes down how it went: Completed, or Failed where it gives an error or panics. The error is
// that of Ask, or the tool's.
func (g *Guard) Run(ctx context.Context, call ToolCall, tool func(ctx context.Context) error) error {
	permit, err := g.Ask(ctx, call)
	if err != nil {
		return err
	}
	// Where it panics, this is what is written.
	defer permit.Finish(Failed)
	if err := tool(ctx); err != nil {
		return err
	}
	permit.Finish(Completed)
	return nil
}

// Wait returns once what permits have finished with is written down, or was given up. Call it when no more calls come,
// before the process ends: of those that still come it waits for no more than it finds.
func (g *Guard) Wait() { g.finishing.wait() }

func (g *Guard) policyOf(ctx context.Context, call ToolCall) PolicyAnswer {
	answer := PolicyAnswer{Reason: ReasonAllowed}
	if call.Policy != nil {
		answer = *call.Policy
	} else if g.Policy != nil {
		var err error
		if answer, err = g.Policy(ctx, call); err != nil {
			return PolicyAnswer{Reason: ReasonEvaluationFailed, Detail: line(err)}
		}
	}
	if answer.Reason == "" {
		answer.Reason = ReasonUndefined
	}
	return answer
}

// lookUp has the gate know what the source says now. It fails only where whoever called has given up: that must not count
// as an answer, for other calls.
func (g *Guard) lookUp(ctx context.Context) error {
	node := g.Gate.NodeID()
	if node == "" {
		// There is nobody to ask for, and the verdict fails before it looks at the answer.
		return nil
	}
	askedAt := time.Now()
	g.mutex.Lock()
	known := g.answered && askedAt.Sub(g.askedAt) < g.MaxAge
	if known {
		g.tell(g.answer)
	}
	g.mutex.Unlock()
	if known {
		return nil
	}
	deadline := time.Now().Add(orElse(g.LookUpTimeout, 2*time.Second))
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	answer, err := g.Source.LookUp(within, node)
	if err == nil {
		// What is late counts as little as what fails.
		err = within.Err()
	}
	if err == nil && time.Now().After(deadline) {
		// On a busy machine, a context hears of its deadline after it has passed.
		err = context.DeadlineExceeded
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		answer = Unavailable(line(err))
	}
	g.mutex.Lock()
	defer g.mutex.Unlock()
	// A look-up that began later knows better, and the gate was told what it said.
	if !g.answered || !g.askedAt.After(askedAt) {
		g.answered, g.answer, g.askedAt = true, answer, askedAt
		g.tell(answer)
	}
	return nil
}

// tell tells the gate. A row that was read again is the same but for the time, and would be logged as new facts with each
// call: the answer that was told before stands for half of its time.
func (g *Guard) tell(answer Answer) {
	observed, ok := answer.observe()
	if ok && g.told != nil && observed.same(*g.told) {
		now := time.Now().UnixMilli()
		age := now - g.told.at
		newer := g.told.at <= observed.at && observed.at <= now
		if newer && age >= 0 && age <= g.Gate.MaxStaleness().Milliseconds()/2 {
			return
		}
	}
	g.told = nil
	err := g.Gate.SetEnrollment(answer)
	switch {
	case err == nil && ok:
		g.told = &observed
	case errors.Is(err, ErrTrapped):
		// Where this fails as well, no instance can be told, and every call is denied.
		_ = g.Gate.SetEnrollment(Unavailable(line(err)))
	}
	// What does not hold has been told as that, and denies.
}

func (g *Guard) append(ctx context.Context, decision Decision) error {
	if decision.Facts == "" {
		// There are no frames where no instance could decide.
		return ErrTrapped
	}
	ctx, cancel := context.WithTimeout(ctx, orElse(g.AppendTimeout, 10*time.Second))
	defer cancel()
	if err := g.Sink.Append(ctx, decision.Frames); err != nil {
		return err
	}
	g.mutex.Lock()
	g.factsLogged = decision.Facts
	g.mutex.Unlock()
	return nil
}

func (g *Guard) logged() string {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.factsLogged
}

func orElse(given, absent time.Duration) time.Duration {
	if given == 0 {
		return absent
	}
	return given
}

// A Permit is the right to run one tool once. The decision behind it is durable.
type Permit struct {
	// AuditID joins the frames of the call.
	AuditID string

	guard    *Guard
	tool     string
	started  time.Time
	finished sync.Once
}

// Finish has written down how the tool went; the first one counts. Nobody waits for it: what counted was the decision.
//
//	defer permit.Finish(autonomygate.Abandoned)
func (p *Permit) Finish(outcome Outcome) {
	p.finished.Do(func() {
		took := time.Since(p.started)
		p.guard.finishing.begin()
		go func() {
			defer p.guard.finishing.end()
			p.guard.finish(p, outcome, took)
		}()
	})
}

func (g *Guard) finish(permit *Permit, outcome Outcome, took time.Duration) {
	type attrs struct {
		Tool    string  `json:"tool"`
		Outcome Outcome `json:"outcome"`
		TookMs  int64   `json:"took_ms"`
	}
	// Strings and integers always have a JSON.
	frames, _ := json.Marshal([1]struct {
		Kind    string  `json:"kind"`
		AuditID string  `json:"audit_id"`
		NodeID  *string `json:"node_id"`
		Attrs   attrs   `json:"attrs"`
	}{{"autonomy.action", permit.AuditID, nonEmpty(g.Gate.NodeID()), attrs{permit.tool, outcome, took.Milliseconds()}}})
	// The request that it came with may be over.
	ctx, cancel := context.WithTimeout(context.Background(), orElse(g.AppendTimeout, 10*time.Second))
	defer cancel()
	// There is nobody to tell.
	_ = g.Sink.Append(ctx, Frames(frames))
}
