package autonomygate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is how far a gate is turned on.
type Mode string

const (
	// Off asks the policy alone.
	Off Mode = "off"
	// Advisory answers as Off does, and writes down what Enforce would deny.
	Advisory Mode = "advisory"
	// Enforce denies.
	Enforce Mode = "enforce"
)

// Config is what a gate is told once.
type Config struct {
	// NodeID is which node this is. Without one, every call that the gate is asked about is denied.
	NodeID string
	// Mode must be said: an empty one is refused, and so is every word but the three.
	Mode Mode
	// Bundle is the tar of a bundle; nil is none. One that does not verify is refused, and no gate is loaded.
	Bundle []byte
	// TrustedKeys may sign bundles: SPKI PEM. None refuses every bundle.
	TrustedKeys []string
	// Threshold is how many distinct ones of them must have signed; 0 means 1.
	Threshold int
	// LeaseKeys may sign leases: SPKI PEM. None refuses every lease.
	LeaseKeys []string
	// LeaseThreshold is how many distinct ones of them must have signed; 0 means 1.
	LeaseThreshold int
	// MaxStaleness is how long an answer counts after it was observed; 0 means a minute. Milliseconds count.
	MaxStaleness time.Duration
	// MaxSkew is how far the source's clock may be ahead. Milliseconds count.
	MaxSkew time.Duration
	// Instances is how many calls are decided at the same time; 0 means GOMAXPROCS. Each takes 200 KiB and its copy of the
	// bundle, once it is needed.
	Instances int
	// Module is another gate.wasm; nil is the one that comes with this package.
	Module []byte
}

// Effect is what the caller gets.
type Effect string

const (
	// Allow lets the tool run, once the frames are durable.
	Allow Effect = "allow"
	// Deny does not.
	Deny Effect = "deny"
)

// A Call asks to run a tool.
type Call struct {
	// Tool is the tool's name.
	Tool string
	// Policy is what the host's own policy said, and must be said: only ReasonAllowed allows. A host without a policy says
	// ReasonAllowed.
	Policy Reason
	// PolicyRef is which policies answered.
	PolicyRef string
	// PolicyDetail is what the operator should know of their answer.
	PolicyDetail string
	// AuditID joins the frames of the call; empty means a new one.
	AuditID string
	// Now is the time; zero means the present.
	Now time.Time
	// FactsLogged is the id of the facts that the log has: Facts of the last decision whose frames are durable.
	FactsLogged string
}

// A Decision is what comes of a call. Its zero value allows nothing.
type Decision struct {
	// Effect is whether the tool may run, once Frames are durable.
	Effect Effect
	// Reason is why it may not; empty when it may.
	Reason Reason
	// Verdict is what the gate found: Pass or a reason; empty when it was not asked.
	Verdict Reason
	// Facts is the id of the facts it was decided on; empty where no instance could decide.
	Facts string
	// Frames must be durable before the tool runs and before the caller is answered.
	Frames Frames `json:"-"`
	// AuditID joins the frames of the call.
	AuditID string `json:"-"`
}

// A BatchResult is the decision on one call of a batch, or why it is malformed.
type BatchResult struct {
	Decision
	Err error
}

// A Bundle is one that is active.
type Bundle struct {
	Digest        string `json:"digest"`
	Name          string `json:"name"`
	Version       string `json:"version"`
	Channel       string `json:"channel"`
	PolicyVersion string `json:"policy_version"`
	SchemaVersion string `json:"schema_version"`
	// PolicyRef is that of the calls that its policies answer; empty where name and version are too long for one.
	PolicyRef string `json:"policy_ref"`
	// EnrollmentRef is the one that counts; empty where there is none.
	EnrollmentRef string `json:"enrollment_ref"`
	// Files are in their order.
	Files []File `json:"files"`
	// Signers are the ids of the trusted keys that have signed.
	Signers []string `json:"signers"`
}

// A File of a bundle.
type File struct {
	Path   string `json:"path"`
	Digest string `json:"digest"`
	// Offset and Size say where its bytes lie in the tar.
	Offset int `json:"offset"`
	Size   int `json:"size"`
	// Bytes are the gate's own: do not write to them.
	Bytes []byte `json:"-"`
}

// Info is what a module is.
type Info struct {
	Version string `json:"version"`
	ABI     struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
	} `json:"abi"`
	SchemaVersion string `json:"schema_version"`
	// Reasons is the digest of all reasons.
	Reasons string         `json:"reasons"`
	Limits  map[string]int `json:"limits"`
}

// An Explanation is every sub-check, with what it expected and found.
type Explanation struct {
	Verdict   Reason          `json:"verdict"`
	FactsID   string          `json:"facts_id"`
	Facts     json.RawMessage `json:"facts"`
	SubChecks []SubCheck      `json:"sub_checks"`
}

// A SubCheck is one of ten.
type SubCheck struct {
	Reason Reason `json:"reason"`
	// Outcome is pass, fail or not_judged.
	Outcome  string `json:"outcome"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

// batchCalls is what the module takes in one call.
const batchCalls = 1024

// A Gate is that of one node: told who it is, which bundle runs and what its enrollment source answered, it decides.
//
// It does no I/O and needs no closing. Any number of goroutines may use it.
type Gate struct {
	config   Config
	pool     pool
	info     Info
	bundle   atomic.Pointer[Bundle]
	told     atomic.Pointer[told]
	telling  sync.Mutex
	maxStale time.Duration
}

// told is all that a gate was told. It is replaced whole and never changed, and so is what it points to.
type told struct {
	bundle *[]byte
	// lease is the last one that was taken: it raises the serial below which others are refused.
	lease      *Answer
	enrollment *Answer
}

// Load makes a gate.
func Load(config Config) (*Gate, error) {
	instances := config.Instances
	if instances == 0 {
		instances = runtime.GOMAXPROCS(0)
	}
	if instances < 0 || config.MaxStaleness < 0 || config.MaxSkew < 0 || config.Threshold < 0 || config.LeaseThreshold < 0 {
		return nil, &failure{ErrMalformed, "the gate's configuration has a negative number: leave the member out for its default"}
	}
	wasm := config.Module
	if wasm == nil {
		wasm = embedded
	}
	module, err := compile(wasm)
	if err != nil {
		return nil, err
	}
	g := &Gate{config: config, maxStale: config.MaxStaleness}
	if g.maxStale == 0 {
		g.maxStale = time.Minute
	}
	g.told.Store(&told{})
	g.pool.open(module, g.configuration(), instances)
	i, err := g.take()
	if err != nil {
		return nil, err
	}
	g.info, err = i.info()
	if g.give(i, err); err != nil {
		return nil, err
	}
	if config.Bundle != nil {
		if _, err := g.LoadBundle(config.Bundle); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// LoadBundle makes a tar the active bundle. Where it is refused, the bundle that was active stays so.
func (g *Gate) LoadBundle(tar []byte) (*Bundle, error) {
	// The caller's bytes may change, and other instances must be told the same.
	tar = bytes.Clone(tar)
	g.telling.Lock()
	defer g.telling.Unlock()
	now := *g.told.Load()
	i, err := g.take()
	if err != nil {
		return nil, err
	}
	bundle, err := i.loadBundle(tar)
	active := g.bundle.Load()
	if err == nil || active == nil && errors.Is(err, ErrRefused) {
		// Also of one that is refused: the facts say why there is none.
		now.bundle = &tar
		i.told.bundle = now.bundle
		g.told.Store(&now)
	}
	if g.give(i, err); err != nil {
		return nil, err
	}
	g.bundle.Store(bundle)
	return bundle, nil
}

// SetEnrollment tells what the source answered about this node. What is malformed or does not hold gives an error, and the
// enrollment is then unavailable or untrusted: it denies.
func (g *Gate) SetEnrollment(answer Answer) error {
	g.telling.Lock()
	defer g.telling.Unlock()
	now := *g.told.Load()
	// What it was before counts no more, whatever comes of the new answer.
	now.enrollment = &answer
	i, err := g.take()
	if err != nil {
		g.told.Store(&now)
		return err
	}
	if err = i.setEnrollment(answer); err == nil && answer.lease {
		now.lease = now.enrollment
	}
	i.told = now
	// Before it is given back: no instance knows more than the gate.
	g.told.Store(&now)
	g.give(i, err)
	return err
}

// NodeID is which node this is; empty where it has none.
func (g *Gate) NodeID() string { return g.config.NodeID }

// Mode is how far the gate is turned on.
func (g *Gate) Mode() Mode { return g.config.Mode }

// MaxStaleness is how long an answer counts after it was observed.
func (g *Gate) MaxStaleness() time.Duration { return g.maxStale }

// Bundle is the active bundle, or nil.
func (g *Gate) Bundle() *Bundle { return g.bundle.Load() }

// Info is what the module is.
func (g *Gate) Info() Info { return g.info }

// Verdict is what the gate finds at a time: Pass, or the reason of the first sub-check that fails. It looks at no mode, and
// writes nothing down: a call is decided by Decide.
func (g *Gate) Verdict(now time.Time) (Reason, error) {
	i, err := g.take()
	if err != nil {
		return ReasonEnrollmentUnavailable, err
	}
	number, err := i.verdict(now.UnixMilli())
	if g.give(i, err); err != nil {
		return ReasonEnrollmentUnavailable, err
	}
	if number == 0 {
		return Pass, nil
	}
	if number < 0 || int(number) >= len(byNumber) || byNumber[number] == "" {
		return ReasonEnrollmentUnavailable, &failure{ErrMalformed, fmt.Sprintf("`%s` is not a time: give one from 1970 on", now)}
	}
	return byNumber[number], nil
}

// Decide decides a call. Append its frames, wait until they are durable, and only then run the tool or answer the denial.
//
// A call that is malformed gives an error. One on which the module traps is denied: another instance is told that the
// enrollment is unavailable, and decides it, so that it is written down; where that one traps as well, there are no frames,
// and the reason is ReasonWALUnavailable.
func (g *Gate) Decide(call Call) (Decision, error) {
	return g.decide(&call)
}

func (g *Gate) decide(call *Call) (Decision, error) {
	now := call.Now
	if now.IsZero() {
		now = time.Now()
	}
	nowMs, id := now.UnixMilli(), call.AuditID
	if id == "" {
		id = newAuditID(nowMs)
	}
	i, err := g.take()
	if err == nil {
		var decision Decision
		decision, err = i.decide(call, id, nowMs)
		if g.give(i, err); err == nil {
			return decision, nil
		}
	}
	if !errors.Is(err, ErrTrapped) {
		return Decision{}, err
	}
	return g.decideTrapped(call, id, nowMs, err), nil
}

// DecideBatch decides many calls as Decide would.
func (g *Gate) DecideBatch(calls []Call) []BatchResult {
	results := make([]BatchResult, 0, len(calls))
	for some := range slices.Chunk(calls, batchCalls) {
		results = g.decideSome(results, some)
	}
	return results
}

// Explain gives every sub-check at a time, with what it expected and found. It writes nothing down.
func (g *Gate) Explain(now time.Time) (*Explanation, error) {
	i, err := g.take()
	if err != nil {
		return nil, err
	}
	explanation, err := i.explain(now.UnixMilli())
	g.give(i, err)
	return explanation, err
}

// VerifySignature verifies an Ed25519 signature by the strict rules, on the engine that runs the gate. It is no part of a
// decision.
func (g *Gate) VerifySignature(publicKey, message, signature []byte) error {
	if len(publicKey) != 32 || len(signature) != 64 {
		return &failure{ErrMalformed, fmt.Sprintf("a key of %d and a signature of %d bytes: give 32 and 64", len(publicKey), len(signature))}
	}
	i, err := g.take()
	if err != nil {
		return err
	}
	err = i.run(fnVerifySignature, slices.Concat(publicKey, signature, message))
	g.give(i, err)
	return err
}

// take is an instance that was told everything. It is given back by give.
func (g *Gate) take() (*instance, error) {
	i, err := g.pool.take()
	if err != nil {
		return nil, err
	}
	if now := g.told.Load(); i.told != *now {
		if err := i.tell(*now); err != nil {
			g.give(i, err)
			return nil, err
		}
	}
	return i, nil
}

// give gives an instance back, or drops it where it has trapped.
func (g *Gate) give(i *instance, err error) {
	if err != nil && errors.Is(err, ErrTrapped) {
		g.pool.drop(i)
		return
	}
	g.pool.give(i)
}

func (g *Gate) decideTrapped(call *Call, id string, nowMs int64, trap error) Decision {
	unrecordable := Decision{Effect: Deny, Reason: ReasonWALUnavailable, AuditID: id}
	i, err := g.take()
	if err != nil {
		return unrecordable
	}
	var decision Decision
	if err = i.setEnrollment(Unavailable(trap.Error())); err == nil {
		decision, err = i.decide(call, id, nowMs)
	}
	// It is told what the gate knows when it is taken again.
	i.told.lease, i.told.enrollment = nil, nil
	g.give(i, err)
	// In advisory it would be allowed, but a call that traps is not.
	if err != nil || decision.Effect != Deny {
		return unrecordable
	}
	return decision
}

func (g *Gate) decideSome(results []BatchResult, calls []Call) []BatchResult {
	whole := make([]Call, len(calls))
	var document []byte
	for at, call := range calls {
		if call.Now.IsZero() {
			call.Now = time.Now()
		}
		nowMs := call.Now.UnixMilli()
		if call.AuditID == "" {
			call.AuditID = newAuditID(nowMs)
		}
		whole[at] = call
		document = append(appendCall(document, &call, call.AuditID, nowMs), '\n')
	}
	i, err := g.take()
	var lines []string
	if err == nil {
		lines, err = i.decideBatch(bytes.TrimSuffix(document, []byte("\n")), len(calls))
		g.give(i, err)
	}
	for at := range whole {
		var result BatchResult
		if err != nil {
			// One of them is to blame, or they are too long together: alone, each is answered for itself.
			result.Decision, result.Err = g.decide(&whole[at])
		} else {
			result = readLine(lines[at], whole[at].AuditID)
		}
		results = append(results, result)
	}
	return results
}

func readLine(text, auditID string) BatchResult {
	if strings.HasPrefix(text, `{"error":`) {
		return BatchResult{Err: saidError(-1, []byte(text))}
	}
	decision, err := readDecision(text, auditID)
	return BatchResult{decision, err}
}

// configuration is what gate_configure takes.
func (g *Gate) configuration() []byte {
	c := g.config
	// Strings and integers always have a JSON.
	document, _ := json.Marshal(struct {
		Mode            Mode     `json:"mode"`
		NodeID          *string  `json:"node_id"`
		BundleKeys      []string `json:"bundle_keys"`
		BundleThreshold int      `json:"bundle_threshold"`
		LeaseKeys       []string `json:"lease_keys"`
		LeaseThreshold  int      `json:"lease_threshold"`
		MaxStalenessMs  int64    `json:"max_staleness_ms"`
		MaxSkewMs       int64    `json:"max_skew_ms"`
	}{
		c.Mode, nonEmpty(c.NodeID),
		append([]string{}, c.TrustedKeys...), max(c.Threshold, 1),
		append([]string{}, c.LeaseKeys...), max(c.LeaseThreshold, 1),
		g.maxStale.Milliseconds(), c.MaxSkew.Milliseconds(),
	})
	return document
}

func nonEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
