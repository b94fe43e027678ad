package test

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

func allowed(tool string) autonomygate.Call {
	return autonomygate.Call{Tool: tool, Policy: autonomygate.ReasonAllowed}
}

func TestACallIsAllowedAndDeniedOnceTheNodeIsRevoked(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
		t.Fatal(err)
	}
	if verdict, err := gate.Verdict(time.Now()); verdict != autonomygate.Pass || err != nil {
		t.Fatal(verdict, err)
	}
	first, err := gate.Decide(allowed("tool.echo"))
	if err != nil || first.Effect != autonomygate.Allow || first.Reason != "" || first.Verdict != autonomygate.Pass {
		t.Fatal(first, err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(first.AuditID) {
		t.Error(first.AuditID)
	}
	frames, err := first.Frames.Read()
	if err != nil || len(frames) != 2 || frames[0].Kind != "autonomy.facts" || frames[1].AuditID != first.AuditID {
		t.Fatal(frames, err)
	}

	if err := gate.SetEnrollment(enrolled(ref, "revoked")); err != nil {
		t.Fatal(err)
	}
	call := allowed("tool.echo")
	call.FactsLogged = first.Facts
	denied, err := gate.Decide(call)
	if err != nil || denied.Effect != autonomygate.Deny || denied.Reason != autonomygate.ReasonEnrollmentRevoked || denied.Facts == first.Facts {
		t.Fatal(denied, err)
	}
	explanation, err := gate.Explain(time.Now())
	if err != nil || explanation.Verdict != denied.Reason || explanation.FactsID != denied.Facts || len(explanation.SubChecks) != 10 {
		t.Fatal(explanation, err)
	}
	if gate.Info().Reasons != autonomygate.ReasonsDigest || gate.Info().ABI.Major != 1 || gate.Info().Limits["batch_calls"] != 1024 {
		t.Error(gate.Info())
	}
}

func TestWhatIsMisspeltOrAbsentByMistakeIsRefused(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	for want, call := range map[string]autonomygate.Call{
		"the call is malformed":               {Tool: "tool.echo"},
		"audit: wal_unavailable":              {Tool: "t", Policy: autonomygate.ReasonWALUnavailable},
		"the call is malformed: ":             allowed("no tool"),
		"the call is malformed: expected u64": {Tool: "t", Policy: autonomygate.ReasonAllowed, Now: time.UnixMilli(-1)},
	} {
		if _, err := gate.Decide(call); !errors.Is(err, autonomygate.ErrMalformed) || !strings.Contains(err.Error(), strings.TrimSuffix(want, " expected u64")) {
			t.Errorf("%+v: %v", call, err)
		}
	}
	if _, err := gate.Verdict(time.UnixMilli(-1)); !errors.Is(err, autonomygate.ErrMalformed) {
		t.Error(err)
	}
	for _, answer := range []autonomygate.Answer{{}, autonomygate.AnswerJSON("[]"), autonomygate.AnswerJSON(`{"answer":"maybe"}`)} {
		if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
			t.Fatal(err)
		}
		if err := gate.SetEnrollment(answer); !errors.Is(err, autonomygate.ErrMalformed) {
			t.Error(err)
		}
		if verdict, _ := gate.Verdict(time.Now()); verdict != autonomygate.ReasonEnrollmentUnavailable {
			t.Error(verdict)
		}
	}
	for name, change := range map[string]struct {
		kind   error
		change func(*autonomygate.Config)
	}{
		"no mode":         {autonomygate.ErrMalformed, func(c *autonomygate.Config) { c.Mode = "" }},
		"another mode":    {autonomygate.ErrMalformed, func(c *autonomygate.Config) { c.Mode = "Enforce" }},
		"node id":         {autonomygate.ErrMalformed, func(c *autonomygate.Config) { c.NodeID = "a b" }},
		"threshold":       {autonomygate.ErrMalformed, func(c *autonomygate.Config) { c.Threshold = -1 }},
		"no keys":         {autonomygate.ErrRefused, func(c *autonomygate.Config) { c.TrustedKeys = nil }},
		"an empty file":   {autonomygate.ErrRefused, func(c *autonomygate.Config) { c.Bundle = []byte{} }},
		"not a module":    {autonomygate.ErrUnsupported, func(c *autonomygate.Config) { c.Module = []byte("module") }},
		"an empty module": {autonomygate.ErrUnsupported, func(c *autonomygate.Config) { c.Module = []byte("\x00asm\x01\x00\x00\x00") }},
	} {
		changed := config
		change.change(&changed)
		if _, err := autonomygate.Load(changed); !errors.Is(err, change.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARefusedBundleLeavesTheOneThatIsActive(t *testing.T) {
	config, ref := fixture(t)
	config.Instances = 2
	gate := load(t, config)
	digest := gate.Bundle().Digest
	if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
		t.Fatal(err)
	}
	if _, err := gate.LoadBundle(make([]byte, 512)); !errors.Is(err, autonomygate.ErrRefused) {
		t.Fatal(err)
	}
	if verdict, err := gate.Verdict(time.Now()); verdict != autonomygate.Pass || err != nil || gate.Bundle().Digest != digest {
		t.Error(verdict, err)
	}
}

func TestABatchDecidesWhatAsManyCallsWould(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
		t.Fatal(err)
	}
	calls := make([]autonomygate.Call, 2_500)
	for at := range calls {
		calls[at] = allowed("tool.echo")
		calls[at].AuditID = "a-" + strings.Repeat("x", at%7)
		calls[at].Now = time.UnixMilli(1_800_000_000_000)
		switch {
		case at%7 == 0:
			calls[at].Tool = "no tool"
		case at%3 == 0:
			calls[at].Policy = autonomygate.ReasonDenied
			calls[at].PolicyDetail = "\"no\"\n\x00\u2028\xff"
		}
	}
	together := gate.DecideBatch(calls)
	if len(together) != len(calls) {
		t.Fatal(len(together))
	}
	for at, call := range calls {
		alone, err := gate.Decide(call)
		if alone != together[at].Decision || (err == nil) != (together[at].Err == nil) || err != nil && err.Error() != together[at].Err.Error() {
			t.Fatalf("call %d: alone %+v %v, together %+v", at, alone, err, together[at])
		}
	}
	if len(gate.DecideBatch(nil)) != 0 {
		t.Error("nothing is decided to something")
	}
}

// Integers above 2^53 survive, since answers and frames are passed on as text.
func TestIntegersAreExact(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	row := autonomygate.Enrollment{NodeID: nodeID, EnrollmentRef: ref, Status: "active", RolloutState: "<none>", Serial: 1<<64 - 1}
	if err := gate.SetEnrollment(autonomygate.Enrolled(row, time.Now())); err != nil {
		t.Fatal(err)
	}
	decision, err := gate.Decide(allowed("tool.echo"))
	if err != nil || !strings.Contains(string(decision.Frames), `"serial":18446744073709551615`) {
		t.Fatal(decision, err)
	}
}

// What one instance was told, the others are told before they decide; and of a lease they know the serial.
func TestEveryInstanceIsToldEverything(t *testing.T) {
	config, ref := fixture(t)
	config.Instances = 8
	gate := load(t, config)
	for round := range 50 {
		status, want := "active", autonomygate.Pass
		if round%2 == 1 {
			status, want = "revoked", autonomygate.ReasonEnrollmentRevoked
		}
		if err := gate.SetEnrollment(enrolled(ref, status)); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 16 {
			all.Add(1)
			go func() {
				defer all.Done()
				for range 10 {
					if verdict, err := gate.Verdict(time.Now()); verdict != want || err != nil {
						t.Errorf("found %s, %v, expected %s", verdict, err, want)
					}
				}
			}()
		}
		all.Wait()
	}
}

func TestAnAnswerThatIsTooLargeDoesNotLeaveTheOneBeforeIt(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	large := strings.Repeat("x", 68<<20)
	for _, answer := range []autonomygate.Answer{autonomygate.AnswerJSON(large), autonomygate.Lease([]byte(large))} {
		if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
			t.Fatal(err)
		}
		if verdict, err := gate.Verdict(time.Now()); verdict != autonomygate.Pass || err != nil {
			t.Fatal(verdict, err)
		}
		if err := gate.SetEnrollment(answer); !errors.Is(err, autonomygate.ErrMalformed) {
			t.Fatal(err)
		}
		verdict, err := gate.Verdict(time.Now())
		if verdict != autonomygate.ReasonEnrollmentUnavailable || err != nil {
			t.Errorf("found %s, %v", verdict, err)
		}
	}
}

func TestALeaseBelowOneThatWasTakenIsUntrustedOnEveryInstance(t *testing.T) {
	var corpus decisionCorpus
	parse(t, read(t, "tests/corpus/decision.json"), &corpus)
	var newer, older string
	for _, answer := range corpus.Dimensions[4].Values {
		if answer.Before != nil {
			newer, older = *answer.Before, answer.Leases[0]
		}
	}
	now := time.UnixMilli(corpus.Settings.NowMs)
	var node string
	for _, value := range corpus.Dimensions[3].Values {
		node += value.NodeID
	}
	gate := load(t, autonomygate.Config{
		NodeID: node, Mode: autonomygate.Enforce, LeaseKeys: corpus.Settings.LeaseKeys, Instances: 8,
	})
	if err := gate.SetEnrollment(autonomygate.Lease([]byte(newer))); err != nil {
		t.Fatal(err)
	}
	if err := gate.SetEnrollment(autonomygate.Lease([]byte(older))); !errors.Is(err, autonomygate.ErrRefused) {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			explanation, err := gate.Explain(now)
			if err != nil || !strings.Contains(string(explanation.Facts), `"answer":"untrusted"`) {
				t.Error(explanation, err)
			}
		}()
	}
	all.Wait()
}

func TestADecisionAllocatesLittle(t *testing.T) {
	config, ref := fixture(t)
	gate := load(t, config)
	if err := gate.SetEnrollment(enrolled(ref, "active")); err != nil {
		t.Fatal(err)
	}
	first, err := gate.Decide(allowed("tool.echo"))
	if err != nil {
		t.Fatal(err)
	}
	call, now := allowed("tool.echo"), time.Now()
	call.FactsLogged = first.Facts
	if found := testing.AllocsPerRun(1_000, func() { _, _ = gate.Verdict(now) }); found != 0 {
		t.Errorf("a verdict allocates %v times", found)
	}
	// The audit id, and the text that all of a decision is part of.
	if found := testing.AllocsPerRun(1_000, func() { _, _ = gate.Decide(call) }); found > 3 {
		t.Errorf("a decision allocates %v times", found)
	}
}

func TestAnotherABIIsRefused(t *testing.T) {
	played(t, "other_abi")
	_, guard := newRig(t)
	allows(t, guard, "tool.echo")
	_, err := autonomygate.Load(autonomygate.Config{Mode: autonomygate.Off, Module: read(t, "target/gate-abi-2.wasm")})
	want := "the module's ABI is `2`: this package speaks 1, use the gate.wasm that comes with it"
	if !errors.Is(err, autonomygate.ErrUnsupported) || err.Error() != want {
		t.Fatalf("found %v, expected %s", err, want)
	}
	allows(t, guard, "tool.echo")
	_, guard = newRig(t)
	allows(t, guard, "tool.echo")
}

func TestATrapDeniesAndIsForgotten(t *testing.T) {
	played(t, "trap")
	for _, mode := range []autonomygate.Mode{autonomygate.Off, autonomygate.Advisory, autonomygate.Enforce} {
		config, ref := fixture(t)
		config.Module, config.Mode = read(t, "target/gate-trap.wasm"), mode
		gate := load(t, config)
		host := &autonomygate.MemoryHost{}
		host.Enroll(autonomygate.Enrollment{NodeID: nodeID, EnrollmentRef: ref})
		guard := &autonomygate.Guard{Gate: gate, Source: host, Sink: host}
		thousandAreRight(t, guard, host)
		for range 3 {
			denies(t, guard, "gate.trap", autonomygate.ReasonWALUnavailable)
		}
		thousandAreRight(t, guard, host)
		batch := gate.DecideBatch([]autonomygate.Call{allowed("tool.echo"), allowed("gate.trap"), allowed("tool.echo")})
		if batch[0].Effect != autonomygate.Allow || batch[1].Effect != autonomygate.Deny || batch[2].Effect != autonomygate.Allow {
			t.Fatalf("%s: %+v", mode, batch)
		}
		thousandAreRight(t, guard, host)
	}
}

// thousandAreRight makes a thousand calls: each is allowed, its tool runs, and the log has its decision once.
func thousandAreRight(t *testing.T, guard *autonomygate.Guard, host *autonomygate.MemoryHost) {
	t.Helper()
	before := len(host.Frames())
	for range 1_000 {
		allows(t, guard, "tool.echo")
	}
	guard.Wait()
	decided := map[string]bool{}
	for _, frame := range host.Frames()[before:] {
		if frame.Kind != "autonomy.decision" {
			continue
		}
		var attrs struct{ Tool, Outcome, Reason string }
		parse(t, frame.Attrs, &attrs)
		if decided[frame.AuditID] || attrs.Tool != "tool.echo" || attrs.Outcome != "allow" || attrs.Reason != "policy: allowed" {
			t.Errorf("%s: %s", frame.AuditID, frame.Attrs)
		}
		decided[frame.AuditID] = true
	}
	if len(decided) != 1_000 {
		t.Errorf("%d of 1000 are in the log", len(decided))
	}
}

func TestTheCopyOfTheModuleIsTheModule(t *testing.T) {
	if string(read(t, "gate-wasm/gate.wasm")) != string(read(t, "bindings/go/gate.wasm")) {
		t.Error("`bindings/go/gate.wasm` is stale: run `cargo xtask wasm` and commit it")
	}
}
