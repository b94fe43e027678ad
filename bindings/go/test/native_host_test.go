package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

const token = "0123456789abcdef0123456789abcdef"

// rig is a native host that breaks its contract where a test wants it to.
type rig struct {
	*httptest.Server
	ref    string
	token  string
	mutex  sync.Mutex
	fault  func(w http.ResponseWriter, r *http.Request) bool
	facts  map[string]bool
	frames []autonomygate.Frame
	posts  int
}

// breakIt sets what answers in the place of the host where it gives true.
func (h *rig) breakIt(fault func(w http.ResponseWriter, r *http.Request) bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.fault, h.posts = fault, 0
}

func (h *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mutex.Lock()
	fault := h.fault
	if r.Method == http.MethodPost {
		h.posts++
	}
	h.mutex.Unlock()
	body, _ := io.ReadAll(r.Body)
	if fault != nil && fault(w, r) {
		return
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	say := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+h.token:
		say(401, `{"error":"the token is wrong"}`)
	case r.URL.Path == "/v1/health":
		say(200, `{"status":"ok"}`)
	case r.URL.Path == "/v1/enrollments/"+nodeID:
		say(200, rowOf(nodeID, h.ref))
	case r.URL.Path == "/v1/frames" && r.Header.Get("Content-Type") == "application/json":
		var batch struct{ Frames []autonomygate.Frame }
		if err := json.Unmarshal(body, &batch); err != nil {
			say(400, `{"error":"malformed"}`)
			return
		}
		for _, frame := range batch.Frames {
			var attrs struct{ ID, Facts string }
			_ = json.Unmarshal(frame.Attrs, &attrs)
			if frame.Kind == "autonomy.facts" {
				h.facts[attrs.ID] = true
			} else if frame.Kind == "autonomy.decision" && !h.facts[attrs.Facts] {
				say(409, `{"error":"the facts are not in the log"}`)
				return
			}
		}
		first := len(h.frames) + 1
		h.frames = append(h.frames, batch.Frames...)
		say(200, fmt.Sprintf(`{"first_seq":%d,"last_seq":%d}`, first, len(h.frames)))
	default:
		say(404, `{"error":"no such path"}`)
	}
}

func rowOf(node, ref string) string {
	return fmt.Sprintf(`{"answer":"enrolled","enrollment":{"node_id":%q,"enrollment_ref":%q,"status":"active",`+
		`"rollout_state":"<none>","serial":1},"observed_at_ms":%d}`, node, ref, time.Now().UnixMilli())
}

// newHost serves nothing yet.
func newHost(ref string) *rig {
	return &rig{ref: ref, token: token, facts: map[string]bool{}}
}

func newRig(t *testing.T) (*rig, *autonomygate.Guard) {
	t.Helper()
	config, ref := fixture(t)
	host := newHost(ref)
	host.Server = httptest.NewServer(host)
	t.Cleanup(host.Close)
	return host, host.guard(t, config, autonomygate.NativeHostConfig{URL: host.URL, Token: token})
}

func (h *rig) guard(t *testing.T, config autonomygate.Config, at autonomygate.NativeHostConfig) *autonomygate.Guard {
	t.Helper()
	native, err := autonomygate.NewNativeHost(at)
	if err != nil {
		t.Fatal(err)
	}
	return &autonomygate.Guard{
		Gate: load(t, config), Source: native, Sink: native, LookUpTimeout: patience, AppendTimeout: patience,
	}
}

func TestACallOverHTTP(t *testing.T) {
	host, guard := newRig(t)
	if err := guard.Source.(*autonomygate.NativeHost).Health(context.Background()); err != nil {
		t.Fatal(err)
	}
	allows(t, guard, "tool.echo")
	guard.Wait()
	if kinds := fmt.Sprint(host.frames[0].Kind, host.frames[1].Kind, host.frames[2].Kind); kinds != "autonomy.factsautonomy.decisionautonomy.action" {
		t.Error(kinds)
	}
}

func TestAHostThatIsDownDeniesInEveryMode(t *testing.T) {
	played(t, "host_down")
	for _, mode := range []autonomygate.Mode{autonomygate.Off, autonomygate.Advisory, autonomygate.Enforce} {
		config, ref := fixture(t)
		config.Mode = mode
		host, address := newHost(ref), keptAddress(t)
		up := func() {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			host.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: host}}
			host.Start()
		}
		guard := host.guard(t, config, autonomygate.NativeHostConfig{URL: "http://" + address, Token: token})
		for range 2 {
			up()
			allows(t, guard, "tool.echo")
			guard.Wait()
			host.Close()
			for range 3 {
				denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
			}
		}
		up()
		allows(t, guard, "tool.echo")
		guard.Wait()
		host.Close()
	}
}

// on answers one method alone.
func on(method string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			answer(w, r)
		}
		return r.Method == method
	}
}

func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}

func half(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"first_seq":1,"last_seq":2`)
	panic(http.ErrAbortHandler)
}

func redirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/v1/health", http.StatusTemporaryRedirect)
}

func TestASlowHostDeniesAfterTheTimeout(t *testing.T) {
	played(t, "host_slow")
	host, guard := newRig(t)
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	const timeout = time.Second
	for _, fault := range []struct {
		method string
		limit  *time.Duration
		reason autonomygate.Reason
	}{
		{http.MethodGet, &guard.LookUpTimeout, autonomygate.ReasonEnrollmentUnavailable},
		{http.MethodPost, &guard.AppendTimeout, autonomygate.ReasonWALUnavailable},
	} {
		host.breakIt(on(fault.method, slow))
		*fault.limit = timeout
		started := time.Now()
		denies(t, guard, "tool.echo", fault.reason)
		if took := time.Since(started); took < timeout || took > 15*timeout {
			t.Errorf("%s: %s", fault.method, took)
		}
		*fault.limit = patience
		host.breakIt(nil)
		allows(t, guard, "tool.echo")
		guard.Wait()
	}
}

func TestLookUpsThatLieDeny(t *testing.T) {
	played(t, "host_lying")
	host, guard := newRig(t)
	// How much of 4 GiB was sent.
	var sent atomic.Int64
	flood := func(w http.ResponseWriter) {
		block := bytes.Repeat([]byte(" "), 1<<16)
		for range 1 << 16 {
			if _, err := w.Write(block); err != nil {
				return
			}
			sent.Add(1 << 16)
		}
	}
	for name, lie := range map[string]http.HandlerFunc{
		"no answer":          says(200, "[]"),
		"nothing":            says(200, ""),
		"another word":       says(200, `{"answer":"sure"}`),
		"another node's row": says(200, rowOf("robot-8", host.ref)),
		"half a body":        half,
		"4 GiB, announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4294967296")
			flood(w)
		},
		"4 GiB, in chunks": func(w http.ResponseWriter, _ *http.Request) { flood(w) },
		"503":              says(503, `{"error":"busy"}`),
		"201":              says(201, rowOf(nodeID, host.ref)),
		"a redirect":       redirect,
		"cut off":          func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		host.breakIt(on(http.MethodGet, lie))
		t.Log(name)
		denies(t, guard, "tool.echo", autonomygate.ReasonEnrollmentUnavailable)
		host.breakIt(nil)
		allows(t, guard, "tool.echo")
	}
	if sent := sent.Load(); sent > 64<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
}

func TestAppendsThatLieDenyAndAreNotSentAgain(t *testing.T) {
	played(t, "append_lying")
	host, guard := newRig(t)
	lies := map[string]http.HandlerFunc{
		"half a body": half,
		"a redirect":  redirect,
		"cut off":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"no receipt":  says(200, `{"durable":true}`),
		"half of one": says(200, `{"first_seq":1}`),
		"backwards":   says(200, `{"first_seq":2,"last_seq":1}`),
		"no object":   says(200, `"ok"`),
		"nothing":     says(200, ``),
	}
	for _, status := range []int{201, 204, 400, 413, 500, 504} {
		lies[fmt.Sprint(status)] = says(status, "")
	}
	for name, lie := range lies {
		host.breakIt(on(http.MethodPost, lie))
		t.Log(name)
		denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
		host.mutex.Lock()
		posts := host.posts
		host.mutex.Unlock()
		if posts != 1 {
			t.Errorf("%s: sent %d times", name, posts)
		}
		host.breakIt(nil)
		allows(t, guard, "tool.echo")
		guard.Wait()
	}
}

func TestAFullDiskDenies(t *testing.T) {
	played(t, "disk_full")
	host, guard := newRig(t)
	host.breakIt(on(http.MethodPost, says(503, `{"error":"no space left"}`)))
	denied := denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
	if denied.Cause == nil || denied.Cause.Error() != "the native host answered `503`: no space left" {
		t.Error(denied.Cause)
	}
	host.breakIt(nil)
	allows(t, guard, "tool.echo")
}

func TestFactsThatAreLostAreSentOnce(t *testing.T) {
	played(t, "facts_lost")
	host, guard := newRig(t)
	allows(t, guard, "tool.echo")
	guard.Wait()
	host.mutex.Lock()
	clear(host.facts)
	host.frames, host.posts = nil, 0
	host.mutex.Unlock()
	if _, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"}); err != nil {
		t.Fatal(err)
	}
	if host.posts != 2 || len(host.frames) != 2 || host.frames[0].Kind != "autonomy.facts" {
		t.Error(host.posts, host.frames)
	}
	host.breakIt(on(http.MethodPost, says(409, "")))
	denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
	if host.posts != 2 {
		t.Error(host.posts)
	}
	host.breakIt(nil)
	allows(t, guard, "tool.echo")
}

func TestAWrongTokenDenies(t *testing.T) {
	played(t, "token_wrong")
	host, guard := newRig(t)
	tokenIs := func(token string) {
		host.mutex.Lock()
		defer host.mutex.Unlock()
		host.token = token
	}
	tokenIs("another")
	denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
	tokenIs(token)
	allows(t, guard, "tool.echo")
}

// A look-up on a kept connection that has died in the meantime is sent again.
func TestALookUpSurvivesADeadConnection(t *testing.T) {
	host, guard := newRig(t)
	for range 5 {
		allows(t, guard, "tool.echo")
		guard.Wait()
		host.CloseClientConnections()
	}
}

func TestAUnixSocketAndATokenThatNobodyElseCanRead(t *testing.T) {
	config, ref := fixture(t)
	place := t.TempDir()
	socket, file := filepath.Join(place, "host.sock"), filepath.Join(place, "token")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	host := newHost(ref)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: host}}
	server.Start()
	t.Cleanup(server.Close)
	write(t, place, "token", token+"\n")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	at := autonomygate.NativeHostConfig{Socket: socket, TokenFile: file}
	_, err = autonomygate.NewNativeHost(at)
	if want := "others can read `" + file + "` (mode `640`): run `chmod 600` on it"; !errors.Is(err, autonomygate.ErrRefused) || err.Error() != want {
		t.Errorf("found %v, expected %s", err, want)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	allows(t, host.guard(t, config, at), "tool.echo")
}

func TestWhatWouldLeakTheTokenOrMeansNothingIsRefused(t *testing.T) {
	place := t.TempDir()
	write(t, place, "short", "\n")
	url := "http://127.0.0.1:1"
	for want, config := range map[string]autonomygate.NativeHostConfig{
		"`http://10.0.0.1:7778` is not http on loopback":         {URL: "http://10.0.0.1:7778", Token: token},
		"`http://127.0.0.1.example.org` is not http on loopback": {URL: "http://127.0.0.1.example.org", Token: token},
		"`https://127.0.0.1` is not http on loopback":            {URL: "https://127.0.0.1", Token: token},
		"`no address` is no address":                             {URL: "no address", Token: token},
		"`http://a@127.0.0.1` is no address":                     {URL: "http://a@127.0.0.1", Token: token},
		"`http://127.0.0.1/v1` is no address":                    {URL: "http://127.0.0.1/v1", Token: token},
		"where the native host is must be said once: ":           {Token: token},
		"where the native host is must be said once":             {URL: url, Socket: "s", Token: token},
		"how to be let in must be said once: ":                   {URL: url},
		"how to be let in must be said once":                     {URL: url, Token: token, TokenFile: "t"},
		"the token does not have 32 to 512 printable":            {URL: url, Token: token + "\n"},
		"the token does not have 32 to 512":                      {URL: url, TokenFile: filepath.Join(place, "short")},
		"the token does not have":                                {URL: url, Token: strings.Repeat("x", 513)},
		"the token cannot be read":                               {URL: url, TokenFile: filepath.Join(place, "none")},
	} {
		if _, err := autonomygate.NewNativeHost(config); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: found %v, expected %s", config, err, want)
		}
	}
	for _, url := range []string{"http://[::1]:7778", "http://localhost:7778/", "http://127.8.8.8"} {
		if _, err := autonomygate.NewNativeHost(autonomygate.NativeHostConfig{URL: url, Token: token}); err != nil {
			t.Error(err)
		}
	}
}

// node is one that is enrolled, with its own `autonomy host serve`.
type node struct {
	t                        *testing.T
	place, tokenFile, listen string
	host                     process
}

func newNode(t *testing.T, enrollmentRef string) *node {
	t.Helper()
	place := t.TempDir()
	n := &node{t: t, place: place, tokenFile: filepath.Join(place, "host.token"), listen: keptAddress(t)}
	n.cli("host", "token", "--out", n.tokenFile)
	n.cli("node", "enroll", "--node-id", nodeID, "--enrollment-ref", enrollmentRef)
	return n
}

func (n *node) cli(arguments ...string) string {
	n.t.Helper()
	return run(n.t, n.place, os.Getenv("AUTONOMY"), append([]string{"--home", n.place}, arguments...)...)
}

// serve starts the host behind a command of the shell.
func (n *node) serve(first string) {
	n.t.Helper()
	n.host = start(n.t, n.place, "bash", "-c", first+` && exec "$@"`, "bash", os.Getenv("AUTONOMY"),
		"--home", n.place, "host", "serve", "--listen", n.listen, "--token-file", n.tokenFile)
	n.host.finds(regexp.QuoteMeta("http://" + n.listen))
}

func (n *node) guard(config autonomygate.Config) *autonomygate.Guard {
	n.t.Helper()
	native, err := autonomygate.NewNativeHost(autonomygate.NativeHostConfig{URL: "http://" + n.listen, TokenFile: n.tokenFile})
	if err != nil {
		n.t.Fatal(err)
	}
	return &autonomygate.Guard{
		Gate: load(n.t, config), Source: native, Sink: native, LookUpTimeout: patience, AppendTimeout: patience,
	}
}

// decided are the audit ids of the calls that the log has as allowed.
func (n *node) decided() map[string]bool {
	n.t.Helper()
	allowed := map[string]bool{}
	for lines := json.NewDecoder(strings.NewReader(n.cli("wal", "inspect", "--kind", "autonomy.decision"))); ; {
		var frame struct {
			AuditID string `json:"audit_id"`
			Attrs   struct{ Outcome string }
		}
		if err := lines.Decode(&frame); err == io.EOF {
			return allowed
		} else if err != nil {
			n.t.Fatal(err)
		}
		if frame.Attrs.Outcome == "allow" {
			allowed[frame.AuditID] = true
		}
	}
}

func TestCallsAreAllowedAgainOnceAKilledHostIsBack(t *testing.T) {
	for _, mode := range []autonomygate.Mode{autonomygate.Off, autonomygate.Advisory, autonomygate.Enforce} {
		config, ref := fixture(t)
		config.Mode = mode
		node := newNode(t, ref)
		node.serve("true")
		guard := node.guard(config)
		for range 3 {
			allows(t, guard, "tool.echo")
			node.host.kill()
			for range 3 {
				denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
			}
			node.serve("true")
		}
		allows(t, guard, "tool.echo")
		guard.Wait()
		node.cli("wal", "verify")
		if found := len(node.decided()); found != 4 {
			t.Errorf("%s: %d of 4 are in the log", mode, found)
		}
	}
}

// The host's log may not grow any more: a write fails as on a full disk.
func TestAFullDiskOfARealHostDenies(t *testing.T) {
	config, ref := fixture(t)
	node := newNode(t, ref)
	node.serve("ulimit -f 64")
	guard := node.guard(config)
	ran := map[string]bool{}
	var failure error
	for failure == nil && len(ran) < 10_000 {
		permit, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"})
		if failure = err; err == nil {
			ran[permit.AuditID] = true
		}
	}
	if !errors.Is(failure, autonomygate.ReasonWALUnavailable) {
		t.Fatalf("after %d calls: %v", len(ran), failure)
	}
	if denied := failure.(*autonomygate.Denied); !strings.Contains(denied.Cause.Error(), "File too large") {
		t.Error(denied.Cause)
	}
	for range 3 {
		denies(t, guard, "tool.echo", autonomygate.ReasonWALUnavailable)
	}
	node.host.kill()
	node.serve("true")
	allows(t, guard, "tool.echo")
	guard.Wait()
	node.cli("wal", "verify")
	decided := node.decided()
	for id := range ran {
		if !decided[id] {
			t.Errorf("`%s` was run, and is not in the log", id)
		}
	}
	if len(decided) != len(ran)+1 {
		t.Errorf("%d are in the log, %d were run", len(decided), len(ran)+1)
	}
}

// The example's server, gated by `autonomy host serve`.
func TestTheExampleIsGatedByARealHost(t *testing.T) {
	config, ref := fixture(t)
	node := newNode(t, ref)
	write(t, node.place, "bundle.tar", string(config.Bundle))
	write(t, node.place, "keys.pem", strings.Join(config.TrustedKeys, "\n"))
	node.serve("true")
	module := newModule(t)
	run(t, module, "go", "build", "-o", filepath.Join(node.place, "server"), "github.com/autonomy-gate/autonomy-gate/bindings/go/examples/server")
	server := start(t, node.place, filepath.Join(node.place, "server"),
		"-listen", "127.0.0.1:0", "-node-id", nodeID, "-mode", "enforce", "-bundle", "bundle.tar", "-keys", "keys.pem",
		"-host", "http://"+node.listen, "-token-file", node.tokenFile)
	url := server.finds(`http://127\.0\.0\.1:\d+`) + "/move"
	post := func(want int) (answer struct {
		Reason  string
		AuditID string `json:"audit_id"`
	}) {
		t.Helper()
		response, err := http.Post(url, "application/json", strings.NewReader(`{"joint":2}`))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != want {
			t.Fatalf("found %d, %s, expected %d", response.StatusCode, body, want)
		}
		parse(t, body, &answer)
		return answer
	}
	moved := post(200)
	node.cli("node", "revoke", "--node-id", nodeID)
	if denied := post(403); denied.Reason != "attestation: enrollment_revoked" {
		t.Error(denied)
	}
	if audit := node.cli("audit", "get", moved.AuditID); !strings.Contains(audit, "outcome=allow") {
		t.Error(audit)
	}
	// The action frame is not waited for.
	eventually(t, func() bool { return strings.Contains(node.cli("audit", "get", moved.AuditID), "completed") })
	node.host.kill()
	if denied := post(503); denied.Reason != "audit: wal_unavailable" {
		t.Error(denied)
	}
}

// process is a server that runs until the test is over.
type process struct {
	t      *testing.T
	kill   func()
	output *output
}

type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (o *output) Write(some []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.Write(some)
}

func (o *output) String() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.String()
}

// finds waits until a server has said this.
func (p process) finds(pattern string) (found string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for found == "" {
		if time.Now().After(deadline) {
			p.t.Fatalf("`%s` was not said: %s", pattern, p.output)
		}
		time.Sleep(10 * time.Millisecond)
		found = regexp.MustCompile(pattern).FindString(p.output.String())
	}
	return found
}
