package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

// root is that of the repository.
const root = "../../.."

const nodeID = "robot-7"

// patience is for what is not slow on purpose: a machine that is busy with other things must not count as a fault.
const patience = time.Minute

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
			}{"go", engine(), fault})
		}
	})
}

var engine = sync.OnceValue(func() string {
	version, err := goList("github.com/tetratelabs/wazero", "{{.Version}}")
	if err != nil {
		panic(err)
	}
	return "wazero " + strings.TrimPrefix(version, "v") + ", " + runtime.Version()
})

func goList(module, format string) (string, error) {
	found, err := exec.Command("go", "list", "-m", "-f", format, module).Output()
	return strings.TrimSpace(string(found)), err
}

// newModule is an empty module that requires this one, as a user's does.
func newModule(t *testing.T) string {
	t.Helper()
	module, err := goList("github.com/autonomy-gate/autonomy-gate/bindings/go", "{{.Dir}}")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	place := t.TempDir()
	write(t, place, "go.sum", string(sums))
	write(t, place, "go.mod", "module example.com/robot\n\ngo 1.23.0\n\n"+
		"require github.com/autonomy-gate/autonomy-gate/bindings/go v0.1.0\n\n"+
		"replace github.com/autonomy-gate/autonomy-gate/bindings/go => "+module+"\n")
	return place
}

func write(t *testing.T, place, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(place, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command, and gives what it printed.
func run(t *testing.T, place, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = place
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	var failure strings.Builder
	command.Stderr = &failure
	printed, err := command.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s\n%s", name, arguments, err, printed, failure.String())
	}
	return string(printed)
}

// keptAddress is one of loopback that no other process is given until the test is over, also while nothing listens there: a
// socket is bound to it and never listens. What Go listens with may share it.
func keptAddress(t *testing.T) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// start starts a server.
func start(t *testing.T, place, name string, arguments ...string) process {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = place
	said := &output{}
	command.Stdout, command.Stderr = said, said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	t.Cleanup(kill)
	return process{t, kill, said}
}
