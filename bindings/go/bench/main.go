// Command bench measures the gate beside what a user of Go would take in its place, on the same question: is the node
// enrolled and active, its ref equal, and its rollout state one of four? It prints the lines of the conformance page.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/rego"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

const (
	nodeID = "robot-7"
	tool   = "tool.echo"
	// calls are measured, after a tenth as many that are not.
	calls = 20_000
	// durableCalls wait for a disk.
	durableCalls = 2_000
	// loads are processes.
	loads = 10
)

func main() {
	log.SetFlags(0)
	fixture := readFixture()
	if len(os.Args) > 1 {
		// A process that has loaded no gate before.
		started := time.Now()
		fixture.load()
		fmt.Println(time.Since(started).Nanoseconds())
		return
	}
	engine := "wazero " + version("github.com/tetratelabs/wazero")
	report(engine, "load", fixture.loadElsewhere())

	gate := fixture.load()
	must(gate.SetEnrollment(fixture.answer()))
	now := time.Now()
	report(engine, "verdict", measureShort(func() {
		if verdict, err := gate.Verdict(now); verdict != autonomygate.Pass {
			log.Fatal(verdict, err)
		}
	}))
	call := autonomygate.Call{Tool: tool, Policy: autonomygate.ReasonAllowed}
	first, err := gate.Decide(call)
	must(err)
	call.FactsLogged = first.Facts
	var tools [64]string
	for at := range tools {
		tools[at] = fmt.Sprintf("tool.%d", at)
	}
	asked := 0
	report(engine, "decide", measure(calls, func() {
		call.Tool = tools[asked%len(tools)]
		asked++
		if decision, err := gate.Decide(call); decision.Effect != autonomygate.Allow {
			log.Fatal(decision, err)
		}
	}))
	var refs [calls + calls/10]string
	for at := range refs {
		refs[at] = fmt.Sprintf("fleet@%d", at)
	}
	asked = 0
	report(engine, "decide_first", measure(calls, func() {
		call.PolicyRef = refs[asked]
		asked++
		if decision, err := gate.Decide(call); decision.Effect != autonomygate.Allow {
			log.Fatal(decision, err)
		}
	}))
	report(engine, "decide_durable", fixture.durable())

	report("OPA "+version("github.com/open-policy-agent/opa"), "decide", measure(calls, fixture.opa()))
	report("cedar-go "+version("github.com/cedar-policy/cedar-go"), "decide", measure(calls, fixture.cedar()))
}

// fixture is the first bundle of the corpus that is accepted.
type fixture struct {
	config autonomygate.Config
	ref    string
}

func readFixture() fixture {
	var corpus struct {
		Keys    map[string]string
		Bundles []struct {
			Keys      []string
			Threshold int
			Tar       []any
			Accepted  *struct {
				EnrollmentRef string `json:"enrollment_ref"`
			}
		}
	}
	document, err := os.ReadFile("../../../tests/corpus/bundles.json")
	must(err)
	must(json.Unmarshal(document, &corpus))
	for _, one := range corpus.Bundles {
		if one.Accepted == nil {
			continue
		}
		config := autonomygate.Config{NodeID: nodeID, Mode: autonomygate.Enforce, Threshold: one.Threshold, MaxStaleness: time.Hour}
		for _, key := range one.Keys {
			config.TrustedKeys = append(config.TrustedKeys, corpus.Keys[key])
		}
		for _, segment := range one.Tar {
			switch segment := segment.(type) {
			case float64:
				config.Bundle = append(config.Bundle, make([]byte, int(segment))...)
			case string:
				some, err := base64.StdEncoding.DecodeString(segment)
				must(err)
				config.Bundle = append(config.Bundle, some...)
			}
		}
		return fixture{config, one.Accepted.EnrollmentRef}
	}
	log.Fatal("the corpus has no bundle that is accepted")
	return fixture{}
}

func (f fixture) load() *autonomygate.Gate {
	gate, err := autonomygate.Load(f.config)
	must(err)
	return gate
}

func (f fixture) answer() autonomygate.Answer {
	return autonomygate.Enrolled(autonomygate.Enrollment{
		NodeID: nodeID, EnrollmentRef: f.ref, Status: "active", RolloutState: "<none>", Serial: 1,
	}, time.Now())
}

func (f fixture) loadElsewhere() (took []time.Duration) {
	self, err := os.Executable()
	must(err)
	for range loads {
		printed, err := exec.Command(self, "load").Output()
		must(err)
		var ns int64
		_, err = fmt.Sscan(string(printed), &ns)
		must(err)
		took = append(took, time.Duration(ns))
	}
	return took
}

// durable decides through `autonomy host serve`.
func (f fixture) durable() []time.Duration {
	place, err := os.MkdirTemp("", "autonomy-bench-")
	must(err)
	defer os.RemoveAll(place)
	token := filepath.Join(place, "host.token")
	autonomy := func(arguments ...string) *exec.Cmd {
		return exec.Command(os.Getenv("AUTONOMY"), append([]string{"--home", place}, arguments...)...)
	}
	must(autonomy("host", "token", "--out", token).Run())
	must(autonomy("node", "enroll", "--node-id", nodeID, "--enrollment-ref", f.ref).Run())
	serve := autonomy("host", "serve", "--listen", "127.0.0.1:0", "--token-file", token)
	said := &output{}
	serve.Stdout, serve.Stderr = said, said
	must(serve.Start())
	defer func() { _ = serve.Process.Kill() }()
	host, err := autonomygate.NewNativeHost(autonomygate.NativeHostConfig{URL: said.find(`http://127\.0\.0\.1:\d+`), TokenFile: token})
	must(err)
	guard := &autonomygate.Guard{Gate: f.load(), Source: host, Sink: host}
	return measure(durableCalls, func() {
		_, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: tool})
		must(err)
	})
}

func (f fixture) opa() func() {
	const policy = `package autonomy

default allow := false

allow if {
	input.enrollment.node_id == input.node_id
	input.enrollment.status == "active"
	input.enrollment.enrollment_ref == input.enrollment_ref
	input.enrollment.rollout_state in {"<none>", "pending", "acknowledged", "active"}
}`
	query, err := rego.New(rego.Query("data.autonomy.allow"), rego.Module("autonomy.rego", policy)).PrepareForEval(context.Background())
	must(err)
	input := map[string]any{
		"node_id": nodeID, "enrollment_ref": f.ref,
		"enrollment": map[string]any{"node_id": nodeID, "enrollment_ref": f.ref, "status": "active", "rollout_state": "<none>"},
	}
	return func() {
		result, err := query.Eval(context.Background(), rego.EvalInput(input))
		if err != nil || !result.Allowed() {
			log.Fatal(result, err)
		}
	}
}

func (f fixture) cedar() func() {
	const policy = `permit (principal, action == Action::"run", resource)
when {
	principal.status == "active" &&
	principal.enrollment_ref == context.enrollment_ref &&
	["<none>", "pending", "acknowledged", "active"].contains(principal.rollout_state)
};`
	policies, err := cedar.NewPolicySetFromBytes("autonomy.cedar", []byte(policy))
	must(err)
	node := cedar.NewEntityUID("Node", nodeID)
	entities := cedar.EntityMap{node: cedar.Entity{UID: node, Attributes: cedar.NewRecord(cedar.RecordMap{
		"status": cedar.String("active"), "enrollment_ref": cedar.String(f.ref), "rollout_state": cedar.String("<none>"),
	})}}
	request := cedar.Request{
		Principal: node, Action: cedar.NewEntityUID("Action", "run"), Resource: cedar.NewEntityUID("Tool", tool),
		Context: cedar.NewRecord(cedar.RecordMap{"enrollment_ref": cedar.String(f.ref)}),
	}
	return func() {
		if decision, diagnostic := cedar.Authorize(policies, entities, request); decision != cedar.Allow {
			log.Fatal(diagnostic)
		}
	}
}

func measure(calls int, call func()) []time.Duration {
	for range calls / 10 {
		call()
	}
	took := make([]time.Duration, calls)
	for at := range took {
		started := time.Now()
		call()
		took[at] = time.Since(started)
	}
	return took
}

// measureShort measures what takes about as long as reading the clock: a hundred at a time.
func measureShort(call func()) []time.Duration {
	const together = 100
	took := measure(calls/together, func() {
		for range together {
			call()
		}
	})
	for at := range took {
		took[at] /= together
	}
	return took
}

func report(engine, what string, took []time.Duration) {
	slices.Sort(took)
	at := func(percent int) int64 { return took[(len(took)-1)*percent/100].Nanoseconds() }
	line, err := json.Marshal(struct {
		Language string `json:"language"`
		Engine   string `json:"engine"`
		What     string `json:"what"`
		P50      int64  `json:"p50_ns"`
		P95      int64  `json:"p95_ns"`
		P99      int64  `json:"p99_ns"`
		Calls    int    `json:"calls"`
	}{"go", engine, what, at(50), at(95), at(99), len(took)})
	must(err)
	fmt.Printf("bench %s\n", line)
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == module {
			if dependency.Replace != nil {
				dependency = dependency.Replace
			}
			return strings.TrimPrefix(dependency.Version, "v")
		}
	}
	return "of unknown version"
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// output is what a server says.
type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (o *output) Write(some []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.Write(some)
}

func (o *output) find(pattern string) string {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		o.mutex.Lock()
		found := regexp.MustCompile(pattern).FindString(o.text.String())
		o.mutex.Unlock()
		if found != "" {
			return found
		}
	}
	log.Fatalf("`%s` was not said", pattern)
	return ""
}
