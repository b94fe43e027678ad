package test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the README says, in an empty directory, with the module as its zip has it.

// readmeBlocks are the first lines, the shell's, a node and its errors.
func readmeBlocks(t *testing.T) (first, shell, node, errors string) {
	t.Helper()
	var languages, texts []string
	for _, found := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(read(t, "bindings/go/README.md")), -1) {
		languages, texts = append(languages, found[1]), append(texts, found[2])
	}
	if !slices.Equal(languages, []string{"go", "sh", "go", "go"}) {
		t.Fatalf("the README's blocks are %q: run each", languages)
	}
	return texts[0], texts[1], texts[2], texts[3]
}

func TestTheFirstLinesOfTheReadmeRun(t *testing.T) {
	program, shell, _, _ := readmeBlocks(t)
	_, main, _ := strings.Cut(program, "\n\nfunc main() {\n")
	main, tool, _ := strings.Cut(main, "}\n\n")
	if lines := strings.Count(main, "\n"); lines > 10 {
		t.Errorf("main has %d lines", lines)
	}
	example := fmt.Sprintf("func Example() {\n%s\t// Output: the call is denied: attestation: bundle_unverified\n}\n\n%s", main, tool)
	if !strings.HasSuffix(string(read(t, "bindings/go/example_test.go")), example) {
		t.Errorf("the package's example is not\n%s", example)
	}
	place := t.TempDir()
	write(t, place, "main.go", program)
	module, err := goList("github.com/autonomy-gate/autonomy-gate/bindings/go", "{{.Dir}}")
	if err != nil {
		t.Fatal(err)
	}
	found := run(t, place, "sh", "-ec", strings.ReplaceAll(shell, "/path/to/target/go/package", module))
	if want := "the call is denied: attestation: bundle_unverified\n"; found != want {
		t.Errorf("found %q, expected %q", found, want)
	}
}

func TestTheNodeOfTheReadmeIsGatedByARealHost(t *testing.T) {
	config, ref := fixture(t)
	host := newNode(t, ref)
	host.serve("true")
	_, _, program, _ := readmeBlocks(t)
	address := keptAddress(t)
	module := newModule(t)
	write(t, module, "main.go", strings.NewReplacer("127.0.0.1:7778", host.listen, "127.0.0.1:8080", address).Replace(program))
	run(t, module, "go", "build", "-o", filepath.Join(host.place, "server"))
	write(t, host.place, "bundle.tar", string(config.Bundle))
	write(t, host.place, "release.pub.pem", strings.Join(config.TrustedKeys, "\n"))
	t.Setenv("AUTONOMY_NODE_ID", nodeID)
	start(t, host.place, filepath.Join(host.place, "server"))
	move := func() (status int) {
		response, err := http.Post("http://"+address+"/move", "", nil)
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	eventually(t, func() bool { return move() == 200 })
	host.cli("node", "revoke", "--node-id", nodeID)
	if status := move(); status != 403 {
		t.Errorf("a revoked node answers %d", status)
	}
}

func TestTheErrorsOfTheReadmeAreTold(t *testing.T) {
	config, ref := fixture(t)
	_, _, _, program := readmeBlocks(t)
	module := newModule(t)
	write(t, module, "robot.go", program)
	write(t, module, "robot_test.go", string(read(t, "bindings/go/test/testdata/robot_test.go")))
	write(t, module, "bundle.tar", string(config.Bundle))
	write(t, module, "release.pub.pem", strings.Join(config.TrustedKeys, "\n"))
	write(t, module, "enrollment_ref", ref)
	run(t, module, "go", "test", ".")
}
