package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

// root is that of the repository.
const root = "../../.."

const nodeID = "robot-7"

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func parse(t testing.TB, document []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(document, into); err != nil {
		t.Fatal(err)
	}
}

// tar is a list of segments: base64, or how many zeros.
type tar []any

func (segments tar) unpack(t testing.TB) []byte {
	t.Helper()
	if segments == nil {
		return nil
	}
	unpacked := []byte{}
	for _, segment := range segments {
		switch segment := segment.(type) {
		case float64:
			unpacked = append(unpacked, make([]byte, int(segment))...)
		case string:
			bytes, err := base64.StdEncoding.DecodeString(segment)
			if err != nil {
				t.Fatal(err)
			}
			unpacked = append(unpacked, bytes...)
		default:
			t.Fatalf("a segment is a %T", segment)
		}
	}
	return unpacked
}

type bundleCorpus struct {
	Format  string
	Version int
	Keys    map[string]string
	Bundles []bundleCase
}

type bundleCase struct {
	Name      string
	Keys      []string
	Threshold int
	Tar       tar
	Accepted  *struct {
		Digest        string
		EnrollmentRef *string `json:"enrollment_ref"`
		PolicyRef     string  `json:"policy_ref"`
		SchemaVersion string  `json:"schema_version"`
		Files         [][2]string
		Signers       []string
	}
	Refused *string
}

func bundles(t testing.TB) bundleCorpus {
	t.Helper()
	var corpus bundleCorpus
	parse(t, read(t, "tests/corpus/bundles.json"), &corpus)
	if corpus.Format != "autonomy-bundle-corpus" || corpus.Version != 1 {
		t.Fatalf("another corpus: %s %d", corpus.Format, corpus.Version)
	}
	return corpus
}

func (corpus bundleCorpus) trusted(names []string) []string {
	keys := make([]string, len(names))
	for at, name := range names {
		keys[at] = corpus.Keys[name]
	}
	return keys
}

// fixture is the first bundle that is accepted, and the ref that it declares.
func fixture(t testing.TB) (config autonomygate.Config, enrollmentRef string) {
	t.Helper()
	corpus := bundles(t)
	for _, one := range corpus.Bundles {
		if one.Accepted != nil && one.Accepted.EnrollmentRef != nil {
			return autonomygate.Config{
				NodeID:      nodeID,
				Mode:        autonomygate.Enforce,
				Bundle:      one.Tar.unpack(t),
				TrustedKeys: corpus.trusted(one.Keys),
				Threshold:   one.Threshold,
			}, *one.Accepted.EnrollmentRef
		}
	}
	t.Fatal("the corpus has no bundle that is accepted")
	return
}

func load(t testing.TB, config autonomygate.Config) *autonomygate.Gate {
	t.Helper()
	gate, err := autonomygate.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	return gate
}

func enrolled(ref, status string) autonomygate.Answer {
	return autonomygate.Enrolled(autonomygate.Enrollment{
		NodeID: nodeID, EnrollmentRef: ref, Status: status, RolloutState: "<none>", Serial: 1,
	}, time.Now())
}

// conformance prints a line of the contract.
func conformance(t testing.TB, line any) {
	t.Helper()
	document, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("conformance %s\n", document)
}

// played says that the test of a fault has passed.
func played(t testing.TB, fault string) {
	t.Cleanup(func() {
		if !t.Failed() {
			conformance(t, struct {
				Language string `json:"language"`
				Engine   string `json:"engine"`
				Fault    string `json:"fault"`
			}{"go", engine(t), fault})
		}
	})
}

func engine(t testing.TB) string {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, dependency := range info.Deps {
			if dependency.Path == "github.com/tetratelabs/wazero" {
				return "wazero " + dependency.Version[1:]
			}
		}
	}
	t.Fatal("the test is not built with wazero")
	return ""
}
