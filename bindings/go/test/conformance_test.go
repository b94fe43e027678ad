package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

// transcript hashes what an implementation says, and compares it with what gate-core says.
func transcript(t *testing.T, corpus string, cases int, started time.Time, sum []byte) {
	t.Helper()
	var want map[string]struct {
		Cases      int
		Transcript string
	}
	parse(t, read(t, "tests/corpus/transcripts.json"), &want)
	found := "sha256:" + hex.EncodeToString(sum)
	if want[corpus].Cases != cases || want[corpus].Transcript != found {
		t.Fatalf("%s: found %d cases, %s, expected %+v", corpus, cases, found, want[corpus])
	}
	conformance(t, struct {
		Language   string `json:"language"`
		Engine     string `json:"engine"`
		Corpus     string `json:"corpus"`
		Cases      int    `json:"cases"`
		Transcript string `json:"transcript"`
		Ms         int64  `json:"ms"`
	}{"go", engine(), corpus, cases, found, time.Since(started).Milliseconds()})
}

func TestSignatures(t *testing.T) {
	var corpus struct {
		Format  string
		Version int
		Cases   []struct {
			Name, Key, Message, Signature string
			Valid                         bool
		}
	}
	parse(t, read(t, "tests/corpus/signatures.json"), &corpus)
	if corpus.Format != "autonomy-signature-corpus" || corpus.Version != 1 {
		t.Fatalf("another corpus: %s %d", corpus.Format, corpus.Version)
	}
	started := time.Now()
	gate := load(t, autonomygate.Config{Mode: autonomygate.Off})
	hash := sha256.New()
	unhex := func(text string) []byte {
		bytes, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	for _, one := range corpus.Cases {
		err := gate.VerifySignature(unhex(one.Key), unhex(one.Message), unhex(one.Signature))
		if (err == nil) != one.Valid {
			t.Errorf("%s: found %v, expected valid %t", one.Name, err, one.Valid)
		}
		said := "valid"
		if err != nil {
			said = "invalid"
		}
		fmt.Fprintf(hash, "%s\t%s\n", one.Name, said)
	}
	transcript(t, "signatures", len(corpus.Cases), started, hash.Sum(nil))
}

func TestBundles(t *testing.T) {
	corpus := bundles(t)
	started := time.Now()
	hash := sha256.New()
	orDash := func(text string) string {
		if text == "" {
			return "-"
		}
		return text
	}
	for _, one := range corpus.Bundles {
		gate := load(t, autonomygate.Config{
			Mode: autonomygate.Off, TrustedKeys: corpus.trusted(one.Keys), Threshold: one.Threshold,
		})
		bundle, err := gate.LoadBundle(one.Tar.unpack(t))
		if one.Accepted == nil {
			if err == nil || err.Error() != *one.Refused || gate.Bundle() != nil {
				t.Errorf("%s: found %v, expected %s", one.Name, err, *one.Refused)
			}
			fmt.Fprintf(hash, "%s\trefused\t%v\n", one.Name, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: found %v", one.Name, err)
			continue
		}
		want := one.Accepted
		ref := ""
		if want.EnrollmentRef != nil {
			ref = *want.EnrollmentRef
		}
		found := []string{bundle.Digest, bundle.EnrollmentRef, bundle.PolicyRef, bundle.SchemaVersion, strings.Join(bundle.Signers, ",")}
		expected := []string{want.Digest, ref, want.PolicyRef, want.SchemaVersion, strings.Join(want.Signers, ",")}
		line := []string{
			one.Name, "accepted", bundle.Digest, bundle.Name, bundle.Version, bundle.Channel, bundle.PolicyVersion,
			bundle.SchemaVersion, orDash(bundle.PolicyRef), orDash(bundle.EnrollmentRef), strings.Join(bundle.Signers, ","),
		}
		for _, file := range want.Files {
			expected = append(expected, file[0], file[1])
		}
		for _, file := range bundle.Files {
			found = append(found, file.Path, fmt.Sprintf("sha256:%x", sha256.Sum256(file.Bytes)))
			line = append(line, fmt.Sprintf("%s=%s@%d+%d", file.Path, file.Digest, file.Offset, file.Size))
		}
		if strings.Join(found, "\t") != strings.Join(expected, "\t") {
			t.Errorf("%s: found %q, expected %q", one.Name, found, expected)
		}
		fmt.Fprintln(hash, strings.Join(line, "\t"))
	}
	transcript(t, "bundles", len(corpus.Bundles), started, hash.Sum(nil))
}

type decisionCorpus struct {
	Format   string
	Version  int
	Cases    int
	Settings struct {
		NowMs           int64    `json:"now_ms"`
		MaxStalenessMs  int64    `json:"max_staleness_ms"`
		MaxSkewMs       int64    `json:"max_skew_ms"`
		BundleKeys      []string `json:"bundle_keys"`
		BundleThreshold int      `json:"bundle_threshold"`
		LeaseKeys       []string `json:"lease_keys"`
		LeaseThreshold  int      `json:"lease_threshold"`
		AuditID         string   `json:"audit_id"`
		Tool            string
	}
	Dimensions []struct{ Values []value }
	Outcomes   []struct {
		Verdict int
		Effect  int
		Frames  []attrs
	}
	Expected [][2]int
}

type attrs struct {
	Layer, Outcome, Reason string
	Enforced               bool
}

// value has the inputs of every dimension.
type value struct {
	Mode          autonomygate.Mode
	Reason        int
	Tar           tar
	NodeID        string `json:"node_id"`
	Kind          string
	Why           string
	ObservedAtMs  int64 `json:"observed_at_ms"`
	Before        *string
	Leases        []string
	EnrollmentRef string `json:"enrollment_ref"`
	Status        string
	RolloutState  string `json:"rollout_state"`
}

func (a value) answer(ref, status, state string, lease int) autonomygate.Answer {
	observed := time.UnixMilli(a.ObservedAtMs)
	switch a.Kind {
	case "unavailable":
		return autonomygate.Unavailable(a.Why)
	case "not_enrolled":
		return autonomygate.NotEnrolled(observed)
	case "lease":
		return autonomygate.Lease([]byte(a.Leases[lease]))
	default:
		return autonomygate.Enrolled(autonomygate.Enrollment{
			NodeID: nodeID, EnrollmentRef: ref, Status: status, RolloutState: state, Serial: 7,
		}, observed)
	}
}

func TestDecisions(t *testing.T) {
	var corpus decisionCorpus
	parse(t, read(t, "tests/corpus/decision.json"), &corpus)
	if corpus.Format != "autonomy-decision-corpus" || corpus.Version != 1 {
		t.Fatalf("another corpus: %s %d", corpus.Format, corpus.Version)
	}
	var expected []int
	for _, run := range corpus.Expected {
		for range run[1] {
			expected = append(expected, run[0])
		}
	}
	started := time.Now()
	dimension := func(at int) []value { return corpus.Dimensions[at].Values }
	running := make(chan struct{}, runtime.GOMAXPROCS(0))
	var gates []chan []byte
	for mode := range dimension(0) {
		for bundle := range dimension(2) {
			for node := range dimension(3) {
				lines := make(chan []byte, 1)
				gates = append(gates, lines)
				go func() {
					running <- struct{}{}
					lines <- corpus.ask(t, expected, mode, bundle, node)
					<-running
				}()
			}
		}
	}
	hash, cases := sha256.New(), 0
	for _, lines := range gates {
		said := <-lines
		hash.Write(said)
		cases += bytes.Count(said, []byte("\n"))
	}
	if cases != corpus.Cases {
		t.Errorf("found %d cases, expected %d", cases, corpus.Cases)
	}
	transcript(t, "decision", cases, started, hash.Sum(nil))
}

// ask asks one gate everything, and gives its lines of the transcript.
func (corpus *decisionCorpus) ask(t *testing.T, expected []int, mode, bundle, node int) []byte {
	settings := corpus.Settings
	dimension := func(at int) []value { return corpus.Dimensions[at].Values }
	policies, refs, statuses, states := dimension(1), dimension(5), dimension(6), dimension(7)
	gate := load(t, autonomygate.Config{
		NodeID: dimension(3)[node].NodeID, Mode: dimension(0)[mode].Mode,
		TrustedKeys: settings.BundleKeys, Threshold: settings.BundleThreshold,
		LeaseKeys: settings.LeaseKeys, LeaseThreshold: settings.LeaseThreshold,
		MaxStaleness: time.Duration(settings.MaxStalenessMs) * time.Millisecond,
		MaxSkew:      time.Duration(settings.MaxSkewMs) * time.Millisecond,
	})
	if tar := dimension(2)[bundle].Tar; tar != nil {
		refused(t, func() error { _, err := gate.LoadBundle(tar.unpack(t)); return err }())
	}
	texts := map[int]autonomygate.Reason{}
	for _, reason := range reasons {
		texts[reason.Number()] = reason
	}
	now := time.UnixMilli(settings.NowMs)
	var said bytes.Buffer
	rows := len(dimension(4)) * len(refs) * len(statuses) * len(states)
	row := 0
	for _, answer := range dimension(4) {
		if answer.Before != nil {
			refused(t, gate.SetEnrollment(autonomygate.Lease([]byte(*answer.Before))))
		}
		for at := range len(refs) * len(statuses) * len(states) {
			ref, status, state := refs[at/len(states)/len(statuses)], statuses[at/len(states)%len(statuses)], states[at%len(states)]
			refused(t, gate.SetEnrollment(answer.answer(ref.EnrollmentRef, status.Status, state.RolloutState, at)))
			verdict, err := gate.Verdict(now)
			if err != nil {
				t.Errorf("the verdict gave %v", err)
				return nil
			}
			for policy := range policies {
				number := (((mode*len(policies)+policy)*len(dimension(2))+bundle)*len(dimension(3))+node)*rows + row
				want := corpus.Outcomes[expected[number]]
				decision, err := gate.Decide(autonomygate.Call{
					Tool: settings.Tool, Policy: texts[policies[policy].Reason], AuditID: settings.AuditID, Now: now,
				})
				if err != nil {
					t.Errorf("case %d gave %v", number, err)
					return nil
				}
				frames := decided(t, decision)
				same := verdict.Number() == want.Verdict && decision.Reason.Number() == want.Effect &&
					(decision.Effect == autonomygate.Allow) == (want.Effect == 0) && len(frames) == len(want.Frames)
				for frame := range frames {
					same = same && frames[frame] == want.Frames[frame]
				}
				if !same {
					t.Errorf("case %d: found %s, %+v, expected %+v", number, verdict, decision, want)
					return nil
				}
				fmt.Fprintf(&said, "%d\t{\"effect\":%q,\"reason\":%s,\"verdict\":%s,\"facts\":%q,\"frames\":%s}\n",
					verdict.Number(), decision.Effect, orNull(decision.Reason), orNull(decision.Verdict), decision.Facts, decision.Frames)
			}
			row++
		}
	}
	return said.Bytes()
}

// decided reads the frames of a decision, behind those of its facts.
func decided(t *testing.T, decision autonomygate.Decision) []attrs {
	var read []struct {
		Kind  string
		Attrs struct {
			ID string
			attrs
		}
	}
	if err := json.Unmarshal([]byte(decision.Frames), &read); err != nil {
		t.Error(err)
		return nil
	}
	if len(read) == 0 || read[0].Kind != "autonomy.facts" || read[0].Attrs.ID != decision.Facts {
		t.Errorf("the facts are not in front of %s", decision.Frames)
		return nil
	}
	frames := make([]attrs, 0, 2)
	for _, frame := range read[1:] {
		frames = append(frames, frame.Attrs.attrs)
	}
	return frames
}

func orNull(reason autonomygate.Reason) string {
	if reason == "" {
		return "null"
	}
	return `"` + string(reason) + `"`
}

// refused lets pass what the gate read and refused.
func refused(t *testing.T, err error) {
	if err != nil && !errors.Is(err, autonomygate.ErrRefused) {
		t.Error(err)
	}
}

var reasons = []autonomygate.Reason{
	autonomygate.ReasonAllowed, autonomygate.ReasonDenied, autonomygate.ReasonUndefined,
	autonomygate.ReasonEvaluationFailed, autonomygate.ReasonNoBundle,
}
