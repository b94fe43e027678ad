package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the README says, in an empty directory, with the module as its zip has it.

func readmeBlock(t *testing.T, words string) string {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(read(t, "bindings/go/README.md")), -1) {
		if strings.Contains(block[1], words) {
			return block[1]
		}
	}
	t.Fatalf("the README has no block with %q", words)
	return ""
}

func TestTheFirstLinesOfTheReadmeRun(t *testing.T) {
	program := readmeBlock(t, "MemoryHost")
	_, main, _ := strings.Cut(program, "\n\nfunc main() {\n")
	main, tool, _ := strings.Cut(main, "}\n\n")
	if lines := strings.Count(main, "\n") + 2; lines > 10 {
		t.Errorf("main has %d lines", lines)
	}
	example := fmt.Sprintf("func Example() {\n%s\t// Output: the call is denied: attestation: bundle_unverified\n}\n\n%s", main, tool)
	if !strings.HasSuffix(string(read(t, "bindings/go/example_test.go")), example) {
		t.Errorf("the package's example is not\n%s", example)
	}
	place := newModule(t)
	write(t, place, "main.go", program)
	found := run(t, place, "go", "run", ".")
	if want := "the call is denied: attestation: bundle_unverified\n"; found != want {
		t.Errorf("found %q, expected %q", found, want)
	}
}

func TestTheNodeOfTheReadmeIsGatedByARealHost(t *testing.T) {
	config, ref := fixture(t)
	node := newNode(t, ref)
	node.serve("true")
	// An address that nobody else listens on.
	address := fmt.Sprintf("127.%d.%d.2:8080", 1+os.Getpid()/250%250, os.Getpid()%250)
	program := strings.NewReplacer("127.0.0.1:7778", node.listen, "127.0.0.1:8080", address).Replace(readmeBlock(t, "NewNativeHost("))
	module := newModule(t)
	write(t, module, "main.go", program)
	run(t, module, "go", "build", "-o", filepath.Join(node.place, "server"))
	write(t, node.place, "bundle.tar", string(config.Bundle))
	write(t, node.place, "release.pub.pem", strings.Join(config.TrustedKeys, "\n"))
	t.Setenv("AUTONOMY_NODE_ID", nodeID)
	start(t, node.place, filepath.Join(node.place, "server"))
	move := func() (status int) {
		response, err := http.Post("http://"+address+"/move", "", nil)
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	eventually(t, func() bool { return move() == 200 })
	node.cli("node", "revoke", "--node-id", nodeID)
	if status := move(); status != 403 {
		t.Errorf("a revoked node answers %d", status)
	}
}

func TestTheErrorsOfTheReadmeAreTold(t *testing.T) {
	config, ref := fixture(t)
	module := newModule(t)
	write(t, module, "main.go", readmeBlock(t, "errors.Is"))
	write(t, module, "bundle.tar", string(config.Bundle))
	write(t, module, "release.pub.pem", strings.Join(config.TrustedKeys, "\n"))
	write(t, module, "main_test.go", `package main

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"strings"
	"testing"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

func TestMove(t *testing.T) {
	bundle, _ := os.ReadFile("bundle.tar")
	key, _ := os.ReadFile("release.pub.pem")
	gate, err := autonomygate.Load(autonomygate.Config{NodeID: "robot-7", Mode: autonomygate.Enforce, Bundle: bundle, TrustedKeys: []string{string(key)}})
	if err != nil {
		t.Fatal(err)
	}
	host := &autonomygate.MemoryHost{}
	host.Enroll(autonomygate.Enrollment{NodeID: "robot-7", EnrollmentRef: "`+ref+`"})
	guard := &autonomygate.Guard{Gate: gate, Source: host, Sink: host}
	if err := move(context.Background(), guard); err != nil {
		t.Fatal(err)
	}
	guard.Wait()
	frames := host.Frames()
	if last := frames[len(frames)-1]; !strings.Contains(string(last.Attrs), "completed") {
		t.Errorf("the tool's end is %s", last.Attrs)
	}
	host.Revoke("robot-7")
	var said bytes.Buffer
	log.SetOutput(&said)
	if err := move(context.Background(), guard); !errors.Is(err, autonomygate.ReasonEnrollmentRevoked) {
		t.Fatal(err)
	}
	if !strings.HasSuffix(said.String(), "this node was revoked\n") {
		t.Error(said.String())
	}
}
`)
	run(t, module, "go", "vet", ".")
	run(t, module, "go", "test", ".")
}
