package autonomygate

import (
	"errors"
	"strings"
	"testing"
)

func TestReadDecision(t *testing.T) {
	for text, want := range map[string]Decision{
		`{"effect":"allow","reason":null,"verdict":"pass","facts":"sha256:00","frames":[{"a":1}]}`: {
			Effect: Allow, Verdict: Pass, Facts: "sha256:00", Frames: `[{"a":1}]`, AuditID: "a-1",
		},
		// A later minor version adds a member.
		`{"effect":"deny","reason":"policy: denied","verdict":null,"facts":"sha256:00","more":{"x":[]},"frames":[]}`: {
			Effect: Deny, Reason: ReasonDenied, Facts: "sha256:00", Frames: `[]`, AuditID: "a-1",
		},
	} {
		if found, err := readDecision(text, "a-1"); err != nil || found != want {
			t.Errorf("%s: found %+v, %v", text, found, err)
		}
	}
	for _, text := range []string{``, `{}`, `{"effect":"allow"`, `{"effect":"allow","frames":[]`, `"effect","frames":[]}`} {
		if found, err := readDecision(text, "a-1"); !errors.Is(err, ErrTrapped) || found.Effect != "" {
			t.Errorf("%s: found %+v, %v", text, found, err)
		}
	}
}

// In a mode that would allow it, a call that has trapped is denied all the same.
func TestACallThatHasTrappedIsDeniedInEveryMode(t *testing.T) {
	for mode, want := range map[Mode]Reason{
		Off: ReasonWALUnavailable, Advisory: ReasonWALUnavailable, Enforce: ReasonBundleUnverified,
	} {
		gate, err := Load(Config{NodeID: "robot-7", Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		call := Call{Tool: "tool.echo", Policy: ReasonAllowed}
		decision := gate.decideTrapped(&call, "a-1", 1, errors.New("memory"))
		if decision.Effect != Deny || decision.Reason != want || (decision.Frames == "") != (want == ReasonWALUnavailable) {
			t.Errorf("%s: %+v", mode, decision)
		}
	}
}

// More forms of calls than the module remembers, none as long as another: what it remembers turns over, again and again.
func TestAMillionDecisionsLeaveTheMemoryAsItWas(t *testing.T) {
	gate, err := Load(Config{NodeID: "robot-7", Mode: Off, Instances: 1})
	if err != nil {
		t.Fatal(err)
	}
	const forms, inARow = 40, 10
	var factsLogged string
	decide := func(at int) {
		policyRef := strings.Repeat("p", 1+at/inARow%forms)
		call := Call{Tool: "tool.echo", Policy: ReasonAllowed, PolicyRef: policyRef, FactsLogged: factsLogged}
		decision, err := gate.Decide(call)
		if err != nil || decision.Effect != Allow {
			t.Fatal(decision, err)
		}
		factsLogged = decision.Facts
	}
	memory := func() uint32 { return gate.pool.idle[0].module.Memory().Size() }
	for at := range forms * inARow {
		decide(at)
	}
	instance, before := gate.pool.idle[0], memory()
	for at := range 1_000_000 {
		decide(at)
	}
	if memory() != before || gate.pool.idle[0] != instance {
		t.Errorf("%d bytes became %d", before, memory())
	}
}

func TestAuditIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		seen[newAuditID(1)] = true
	}
	if len(seen) != 10_000 {
		t.Errorf("%d of 10000", len(seen))
	}
}
