package autonomygate_test

import (
	"context"
	"fmt"
	"log"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

// The first lines of the README.
func Example() {
	gate, err := autonomygate.Load(autonomygate.Config{NodeID: "robot-7", Mode: autonomygate.Enforce})
	if err != nil {
		log.Fatal(err)
	}
	host := &autonomygate.MemoryHost{} // on a node: autonomygate.NewNativeHost
	guard := &autonomygate.Guard{Gate: gate, Source: host, Sink: host}
	err = guard.Run(context.Background(), autonomygate.ToolCall{Tool: "arm.move"}, move)
	fmt.Println(err)
	// Output: the call is denied: attestation: bundle_unverified
}

func move(context.Context) error {
	fmt.Println("moving")
	return nil
}
