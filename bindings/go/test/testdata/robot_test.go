package robot

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

// The README's move is allowed and finished, and says that its node was revoked once it was.
func TestMove(t *testing.T) {
	read := func(name string) string {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	gate, err := autonomygate.Load(autonomygate.Config{
		NodeID:      "robot-7",
		Mode:        autonomygate.Enforce,
		Bundle:      []byte(read("bundle.tar")),
		TrustedKeys: []string{read("release.pub.pem")},
	})
	if err != nil {
		t.Fatal(err)
	}
	host := &autonomygate.MemoryHost{}
	host.Enroll(autonomygate.Enrollment{NodeID: "robot-7", EnrollmentRef: read("enrollment_ref")})
	guard := &autonomygate.Guard{Gate: gate, Source: host, Sink: host}
	if err := move(context.Background(), guard); err != nil {
		t.Fatal(err)
	}
	guard.Wait()
	frames := host.Frames()
	if last := frames[len(frames)-1]; !strings.Contains(string(last.Attrs), "completed") {
		t.Errorf("the last frame is %s", last.Attrs)
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
