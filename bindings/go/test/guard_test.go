package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

func guarded(t testing.TB) (*autonomygate.Guard, *autonomygate.MemoryHost) {
	t.Helper()
	config, ref := fixture(t)
	host := &autonomygate.MemoryHost{}
	host.Enroll(autonomygate.Enrollment{NodeID: nodeID, EnrollmentRef: ref})
	return &autonomygate.Guard{
		Gate: load(t, config), Source: host, Sink: host, LookUpTimeout: patience, AppendTimeout: patience,
	}, host
}

func allows(t testing.TB, guard *autonomygate.Guard, tool string) {
	t.Helper()
	ran := false
	err := guard.Run(context.Background(), autonomygate.ToolCall{Tool: tool}, func(context.Context) error { ran = true; return nil })
	if err != nil || !ran {
		t.Fatalf("`%s` was not run: %v", tool, err)
	}
}

func denies(t testing.TB, guard *autonomygate.Guard, tool string, reason autonomygate.Reason) *autonomygate.Denied {
	t.Helper()
	err := guard.Run(context.Background(), autonomygate.ToolCall{Tool: tool}, func(context.Context) error {
		t.Errorf("`%s` was run", tool)
		return nil
	})
	var denied *autonomygate.Denied
	if !errors.As(err, &denied) || !errors.Is(err, reason) {
		t.Fatalf("found %v, expected %s", err, reason)
	}
	status := http.StatusForbidden
	if reason == autonomygate.ReasonWALUnavailable {
		status = http.StatusServiceUnavailable
	}
	if denied.Status() != status || denied.Remedy() != reason.Remedy() || denied.AuditID == "" {
		t.Fatalf("%+v", denied)
	}
	return denied
}

func kinds(host *autonomygate.MemoryHost) (kinds []string) {
	for _, frame := range host.Frames() {
		kinds = append(kinds, strings.TrimPrefix(frame.Kind, "autonomy."))
	}
	return kinds
}

func TestAToolRunsOnceItsDecisionIsWrittenDown(t *testing.T) {
	guard, host := guarded(t)
	allows(t, guard, "tool.echo")
	guard.Wait()
	failed := errors.New("no")
	if err := guard.Run(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"}, func(context.Context) error { return failed }); err != failed {
		t.Error(err)
	}
	guard.Wait()
	permit, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo", AuditID: "mine"})
	if err != nil || permit.AuditID != "mine" {
		t.Fatal(permit, err)
	}
	permit.Finish(autonomygate.Abandoned)
	permit.Finish(autonomygate.Completed)
	guard.Wait()
	if found := fmt.Sprint(kinds(host)); found != "[facts decision action decision action decision action]" {
		t.Error(found)
	}
	for at, want := range map[int]string{2: "completed", 4: "failed", 6: "abandoned"} {
		if attrs := string(host.Frames()[at].Attrs); !strings.HasPrefix(attrs, `{"tool":"tool.echo","outcome":"`+want+`","took_ms":`) {
			t.Error(attrs)
		}
	}
	host.Revoke(nodeID)
	denied := denies(t, guard, "tool.echo", autonomygate.ReasonEnrollmentRevoked)
	document, err := json.Marshal(denied)
	want := `{"decision":"deny","reason":"attestation: enrollment_revoked","policy_ref":null,"audit_id":"` + denied.AuditID + `"}`
	if err != nil || string(document) != want {
		t.Error(string(document), err)
	}
}

func TestAPanicOfAToolIsWrittenDown(t *testing.T) {
	guard, host := guarded(t)
	func() {
		defer func() {
			if recover() != "no" {
				t.Error("the panic is gone")
			}
		}()
		_ = guard.Run(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"}, func(context.Context) error { panic("no") })
	}()
	guard.Wait()
	if frames := host.Frames(); !strings.Contains(string(frames[len(frames)-1].Attrs), `"outcome":"failed"`) {
		t.Error(frames)
	}
}

func TestThePolicyIsAskedFirst(t *testing.T) {
	guard, host := guarded(t)
	var answer autonomygate.PolicyAnswer
	var failure error
	guard.Policy = func(_ context.Context, call autonomygate.ToolCall) (autonomygate.PolicyAnswer, error) {
		if call.Params != 7 {
			t.Error(call.Params)
		}
		return answer, failure
	}
	ask := func() error {
		_, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo", Params: 7})
		return err
	}
	if err := ask(); !errors.Is(err, autonomygate.ReasonUndefined) {
		t.Error(err)
	}
	answer = autonomygate.PolicyAnswer{Reason: autonomygate.ReasonDenied, Ref: "p@1", Detail: "closed"}
	var denied *autonomygate.Denied
	if err := ask(); !errors.Is(err, autonomygate.ReasonDenied) || !errors.As(err, &denied) || denied.PolicyRef != "p@1" {
		t.Error(err)
	}
	frames := host.Frames()
	if last := string(frames[len(frames)-1].Attrs); !strings.Contains(last, `"policy_ref":"p@1"`) || !strings.Contains(last, `"detail":"closed"`) {
		t.Error(last)
	}
	failure = errors.New("away")
	if err := ask(); !errors.Is(err, autonomygate.ReasonEvaluationFailed) {
		t.Error(err)
	}
	failure, answer.Reason = nil, "policy: maybe"
	if err := ask(); !errors.Is(err, autonomygate.ErrMalformed) {
		t.Error(err)
	}
	answer.Reason = autonomygate.ReasonAllowed
	if err := ask(); err != nil {
		t.Error(err)
	}
	asked := autonomygate.ToolCall{Tool: "tool.echo", Policy: &autonomygate.PolicyAnswer{Reason: autonomygate.ReasonNoBundle}}
	if _, err := guard.Ask(context.Background(), asked); !errors.Is(err, autonomygate.ReasonNoBundle) {
		t.Error(err)
	}
	if _, err := (&autonomygate.Guard{Gate: guard.Gate, Sink: host}).Ask(context.Background(), asked); !errors.Is(err, autonomygate.ErrMalformed) {
		t.Error(err)
	}
}

// counting counts look-ups, and holds each until it may answer.
type counting struct {
	*autonomygate.MemoryHost
	mutex   sync.Mutex
	lookUps int
}

func (c *counting) LookUp(ctx context.Context, node string) (autonomygate.Answer, error) {
	c.mutex.Lock()
	c.lookUps++
	c.mutex.Unlock()
	return c.MemoryHost.LookUp(ctx, node)
}

func TestAnAnswerMayStandForAWhile(t *testing.T) {
	guard, host := guarded(t)
	source := &counting{MemoryHost: host}
	guard.Source, guard.MaxAge = source, time.Hour
	for range 5 {
		allows(t, guard, "tool.echo")
	}
	if source.lookUps != 1 {
		t.Error(source.lookUps)
	}
}

// held answers when it is told what.
type held chan chan autonomygate.Answer

func (h held) LookUp(ctx context.Context, _ string) (autonomygate.Answer, error) {
	answer := make(chan autonomygate.Answer)
	h <- answer
	select {
	case answer := <-answer:
		return answer, nil
	case <-ctx.Done():
		return autonomygate.Answer{}, ctx.Err()
	}
}

// A look-up that began earlier and ends later does not take back what a later one has seen.
func TestARevokeIsNotTakenBackByAnOlderLookUp(t *testing.T) {
	guard, _ := guarded(t)
	_, ref := fixture(t)
	source := make(held)
	guard.Source = source
	results := make(chan error, 2)
	ask := func() {
		_, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"})
		results <- err
	}
	go ask()
	earlier := <-source
	go ask()
	later := <-source
	later <- enrolled(ref, "revoked")
	if err := <-results; !errors.Is(err, autonomygate.ReasonEnrollmentRevoked) {
		t.Error(err)
	}
	earlier <- enrolled(ref, "active")
	if err := <-results; !errors.Is(err, autonomygate.ReasonEnrollmentRevoked) {
		t.Error(err)
	}
}

// One who gives up must not have the calls of others denied.
func TestACallThatIsGivenUpIsNoAnswer(t *testing.T) {
	guard, host := guarded(t)
	guard.MaxAge = time.Hour
	source := make(held)
	guard.Source = source
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() {
		_, err := guard.Ask(ctx, autonomygate.ToolCall{Tool: "tool.echo"})
		result <- err
	}()
	<-source
	cancel()
	if err := <-result; !errors.Is(err, autonomygate.ReasonWALUnavailable) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	guard.Source = host
	if _, err := guard.Ask(ctx, autonomygate.ToolCall{Tool: "tool.echo"}); !errors.Is(err, autonomygate.ReasonWALUnavailable) {
		t.Error(err)
	}
	if err := host.Append(ctx, "[]"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	allows(t, guard, "tool.echo")
}

// answers is a source that gives one after the other.
type answers []func() (autonomygate.Answer, error)

func (a *answers) LookUp(context.Context, string) (autonomygate.Answer, error) {
	next := (*a)[0]
	*a = (*a)[1:]
	return next()
}

func TestWhateverComesAfterAnAnswerThatAllowedDeniesAndTheNextOneCounts(t *testing.T) {
	config, ref := fixture(t)
	allowed := func() (autonomygate.Answer, error) { return enrolled(ref, "active"), nil }
	large := strings.Repeat("x", 68<<20)
	for name, answer := range map[string]autonomygate.Answer{
		"none":               {},
		"no JSON":            autonomygate.AnswerJSON("<html>"),
		"null":               autonomygate.AnswerJSON("null"),
		"too large":          autonomygate.AnswerJSON(large),
		"a lease, too large": autonomygate.Lease([]byte(large)),
		"no UTF-8":           autonomygate.AnswerJSON(strings.Replace(document(ref), "active", "active\xed\xa0\x80", 1)),
		"half a pair":        autonomygate.AnswerJSON(strings.Replace(document(ref), "active", `active\ud800`, 1)),
		// It is read, and then there is no memory left for what it says.
		"more than the memory": autonomygate.AnswerJSON(`{"answer":"unavailable","why":"` + strings.Repeat(`\n`, 32<<20-32) + `"}`),
	} {
		gate := load(t, config)
		host := &autonomygate.MemoryHost{}
		guard := &autonomygate.Guard{Gate: gate, Sink: host, Source: &answers{
			allowed, func() (autonomygate.Answer, error) { return answer, nil }, allowed,
		}}
		allows(t, guard, "tool.echo")
		// How the tool went is written down, or that could be the last frame.
		guard.Wait()
		denies(t, guard, "tool.echo", autonomygate.ReasonEnrollmentUnavailable)
		if verdict, err := gate.Verdict(time.Now()); verdict != autonomygate.ReasonEnrollmentUnavailable || err != nil {
			t.Errorf("%s: found %s, %v", name, verdict, err)
		}
		frames := host.Frames()
		if last := string(frames[len(frames)-1].Attrs); !strings.Contains(last, `"attestation: enrollment_unavailable"`) {
			t.Errorf("%s: %s", name, last)
		}
		allows(t, guard, "tool.echo")
		guard.Wait()
	}
}

// document is the JSON of an answer that allows.
func document(ref string) string {
	return fmt.Sprintf(`{"answer":"enrolled","enrollment":{"node_id":"%s","enrollment_ref":"%s","status":"active",`+
		`"rollout_state":"<none>","serial":1},"observed_at_ms":%d}`, nodeID, ref, time.Now().UnixMilli())
}

func TestAnAnswerThatOnlyLooksLikeTheOneBeforeItButForItsTimeIsRead(t *testing.T) {
	config, ref := fixture(t)
	allowed := document(ref)
	from := strings.Index(allowed, `"observed_at_ms"`)
	observed := allowed[from : len(allowed)-1]
	for _, nonsense := range []string{
		strings.Replace(allowed, observed, strings.Replace(observed, ":", ":000", 1), 1),
		strings.Replace(allowed, observed, strings.Replace(observed, ":", ":+", 1), 1),
		strings.Replace(allowed, "},"+observed, observed+"},", 1),
		"{" + strings.Replace(observed, ":", ":1.5", 1) + "," + allowed[1:],
	} {
		source := &answers{}
		for _, text := range []string{allowed, nonsense} {
			*source = append(*source, func() (autonomygate.Answer, error) { return autonomygate.AnswerJSON(text), nil })
		}
		guard := &autonomygate.Guard{Gate: load(t, config), Source: source, Sink: &autonomygate.MemoryHost{}}
		allows(t, guard, "tool.echo")
		denies(t, guard, "tool.echo", autonomygate.ReasonEnrollmentUnavailable)
		guard.Wait()
	}
}

// deaf is a context that has not heard of its deadline yet, as on a machine that is busy: those made of it have no timer.
type deaf struct{ context.Context }

func (deaf) Deadline() (time.Time, bool) { return time.Time{}, true }

func TestAnAnswerThatIsLateIsNone(t *testing.T) {
	config, ref := fixture(t)
	for _, ctx := range []context.Context{context.Background(), deaf{context.Background()}} {
		source := &answers{func() (autonomygate.Answer, error) {
			time.Sleep(50 * time.Millisecond)
			return enrolled(ref, "active"), nil
		}}
		host := &autonomygate.MemoryHost{}
		guard := &autonomygate.Guard{
			Gate: load(t, config), Source: source, Sink: host, LookUpTimeout: 20 * time.Millisecond, AppendTimeout: patience,
		}
		permit, err := guard.Ask(ctx, autonomygate.ToolCall{Tool: "tool.echo"})
		if !errors.Is(err, autonomygate.ReasonEnrollmentUnavailable) {
			t.Fatal(permit, err)
		}
		if facts := string(host.Frames()[0].Attrs); !strings.Contains(facts, `"why":"context deadline exceeded"`) {
			t.Error(facts)
		}
	}
}

func TestAPanicOfASourceIsTheCallersAndTheNextCallIsRight(t *testing.T) {
	config, ref := fixture(t)
	allowed := func() (autonomygate.Answer, error) { return enrolled(ref, "active"), nil }
	source := &answers{allowed, func() (autonomygate.Answer, error) { panic("no") }, allowed}
	host := &autonomygate.MemoryHost{}
	guard := &autonomygate.Guard{Gate: load(t, config), Source: source, Sink: host}
	allows(t, guard, "tool.echo")
	func() {
		defer func() {
			if recover() != "no" {
				t.Error("the panic is gone")
			}
		}()
		permit, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"})
		t.Error(permit, err)
	}()
	allows(t, guard, "tool.echo")
	guard.Wait()
}

func TestARowThatIsReadAgainIsNotLoggedAgain(t *testing.T) {
	guard, host := guarded(t)
	for range 20 {
		allows(t, guard, "tool.echo")
		time.Sleep(2 * time.Millisecond)
	}
	guard.Wait()
	facts := 0
	for _, kind := range kinds(host) {
		if kind == "facts" {
			facts++
		}
	}
	if facts != 1 {
		t.Error(facts)
	}
}

// failing is a sink or source of its own.
type failing struct{ error }

func (f failing) LookUp(context.Context, string) (autonomygate.Answer, error) {
	return autonomygate.Answer{}, f.error
}

func TestASourceThatIsDownDenies(t *testing.T) {
	played(t, "source_down")
	guard, host := guarded(t)
	guard.Source = failing{errors.New("connection\nrefused")}
	denied := denies(t, guard, "tool.echo", autonomygate.ReasonEnrollmentUnavailable)
	frames := host.Frames()
	if len(frames) != 3 || frames[2].AuditID != denied.AuditID || !strings.Contains(string(frames[0].Attrs), `"why":"connection refused"`) {
		t.Error(frames)
	}
	guard.Source = host
	allows(t, guard, "tool.echo")
}

func TestThreadsGetTheirOwnFrames(t *testing.T) {
	played(t, "threads")
	guard, host := guarded(t)
	guard.Policy = func(_ context.Context, call autonomygate.ToolCall) (autonomygate.PolicyAnswer, error) {
		return autonomygate.PolicyAnswer{Reason: call.Params.(autonomygate.Reason)}, nil
	}
	var all sync.WaitGroup
	type mark struct {
		tool    string
		outcome string
	}
	var mutex sync.Mutex
	want := map[string]mark{}
	for thread := range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			for call := range 100 {
				reason, outcome := autonomygate.ReasonAllowed, "allow"
				if (thread+call)%2 == 0 {
					reason, outcome = autonomygate.ReasonDenied, "deny"
				}
				id, tool := fmt.Sprintf("%d-%d", thread, call), fmt.Sprintf("tool.%d", thread)
				_, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: tool, Params: reason, AuditID: id})
				if (err == nil) != (outcome == "allow") || err != nil && !errors.Is(err, autonomygate.ReasonDenied) {
					t.Errorf("%s: %v", id, err)
				}
				mutex.Lock()
				want[id] = mark{tool, outcome}
				mutex.Unlock()
			}
		}()
	}
	all.Wait()
	for _, frame := range host.Frames() {
		if frame.Kind != "autonomy.decision" {
			continue
		}
		var attrs struct{ Tool, Outcome string }
		parse(t, frame.Attrs, &attrs)
		if found, there := want[frame.AuditID]; !there || found != (mark{attrs.Tool, attrs.Outcome}) {
			t.Errorf("%s: found %+v, expected %+v", frame.AuditID, attrs, found)
		}
		delete(want, frame.AuditID)
	}
	if len(want) != 0 {
		t.Errorf("%d calls have no frame", len(want))
	}
}

func TestMiddleware(t *testing.T) {
	guard, host := guarded(t)
	status := http.StatusOK
	handler := autonomygate.Middleware(guard, func(r *http.Request) (autonomygate.ToolCall, error) {
		if r.URL.Path == "/bad" {
			return autonomygate.ToolCall{}, errors.New("no body")
		}
		return autonomygate.Tool(strings.TrimPrefix(r.URL.Path, "/"))(r)
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(status)
		fmt.Fprint(w, autonomygate.PermitOf(r.Context()).AuditID)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}))
	server := httptest.NewServer(handler)
	defer server.Close()
	get := func(path string) (int, string) {
		response, err := http.Get(server.URL + path)
		if err != nil {
			return 0, err.Error()
		}
		defer response.Body.Close()
		var body bytes.Buffer
		_, _ = body.ReadFrom(response.Body)
		return response.StatusCode, body.String()
	}
	outcome := func(want string) {
		t.Helper()
		guard.Wait()
		frames := host.Frames()
		if last := frames[len(frames)-1]; !strings.Contains(string(last.Attrs), `"outcome":"`+want+`"`) {
			t.Error(string(last.Attrs))
		}
	}
	found, body := get("/tool.echo")
	if frames := host.Frames(); found != 200 || frames[0].AuditID != body {
		t.Error(found, body)
	}
	outcome("completed")
	status = http.StatusTeapot
	if found, _ := get("/tool.echo"); found != status {
		t.Error(found)
	}
	outcome("failed")
	get("/panic")
	outcome("failed")
	status = http.StatusOK
	ctx, cancel := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/slow", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	cancel()
	eventually(t, func() bool {
		frames := host.Frames()
		return strings.Contains(string(frames[len(frames)-1].Attrs), `"outcome":"abandoned"`)
	})
	if found, body := get("/bad"); found != 400 || body != "{\"error\":\"no body\"}\n" {
		t.Error(found, body)
	}
	if found, body := get("/not%20a%20tool"); found != 400 || !strings.Contains(body, "the call is malformed") {
		t.Error(found, body)
	}
	host.Revoke(nodeID)
	if found, body := get("/tool.echo"); found != 403 || !strings.HasPrefix(body, `{"decision":"deny","reason":"attestation: enrollment_revoked","policy_ref":null,"audit_id":"`) {
		t.Error(found, body)
	}
	host.Fail(errors.New("no disk"))
	if found, body := get("/tool.echo"); found != 503 || strings.Contains(body, "no disk") {
		t.Error(found, body)
	}
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to hold")
		}
	}
}

func TestAGuardMayBeWaitedForWhileCallsCome(t *testing.T) {
	guard, host := guarded(t)
	const callers, calls = 4, 2_000
	var calling, waiting sync.WaitGroup
	done := make(chan struct{})
	for range callers {
		calling.Add(1)
		waiting.Add(1)
		go func() {
			defer calling.Done()
			for range calls {
				if permit, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"}); err != nil {
					t.Error(err)
				} else {
					permit.Finish(autonomygate.Completed)
				}
			}
		}()
		go func() {
			defer waiting.Done()
			for {
				select {
				case <-done:
					return
				default:
					guard.Wait()
				}
			}
		}()
	}
	calling.Wait()
	close(done)
	waiting.Wait()
	guard.Wait()
	actions := 0
	for _, kind := range kinds(host) {
		if kind == "action" {
			actions++
		}
	}
	if actions != callers*calls {
		t.Errorf("%d of %d were written down", actions, callers*calls)
	}
}
