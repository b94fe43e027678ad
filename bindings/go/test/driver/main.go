// Command driver is a runtime of `cargo xtask test together`: docs/src/spec/conformance.md says what it is given and what it
// prints.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 7 {
		log.Fatal("usage: driver <url> <token file> <bundle> <key> <tasks> <node id>...")
	}
	url, tokenFile, bundle, key, nodes := os.Args[1], os.Args[2], read(os.Args[3]), read(os.Args[4]), os.Args[6:]
	tasks := number(os.Args[5])
	host, err := autonomygate.NewNativeHost(autonomygate.NativeHostConfig{URL: url, TokenFile: tokenFile})
	if err != nil {
		log.Fatal(err)
	}
	guards := make([]*autonomygate.Guard, len(nodes))
	for at, node := range nodes {
		gate, err := autonomygate.Load(autonomygate.Config{
			NodeID: node, Mode: autonomygate.Enforce, Bundle: bundle, TrustedKeys: []string{string(key)},
		})
		if err != nil {
			log.Fatal(err)
		}
		guards[at] = &autonomygate.Guard{
			Gate: gate, Source: host, Sink: host, LookUpTimeout: 30 * time.Second, AppendTimeout: 30 * time.Second,
		}
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		calls := int64(number(lines.Text()))
		var made atomic.Int64
		var working sync.WaitGroup
		for range tasks {
			working.Add(1)
			go func() {
				defer working.Done()
				for at := made.Add(1); at <= calls; at = made.Add(1) {
					call(guards[at%int64(len(guards))])
				}
			}()
		}
		working.Wait()
	}
	for _, guard := range guards {
		guard.Wait()
	}
}

func call(guard *autonomygate.Guard) {
	beganUs := time.Now().UnixMicro()
	say := func(auditID, answer string) {
		fmt.Printf("%d\t%s\t%s\t%s\n", beganUs, guard.Gate.NodeID(), auditID, answer)
	}
	permit, err := guard.Ask(context.Background(), autonomygate.ToolCall{Tool: "tool.echo"})
	var denied *autonomygate.Denied
	switch {
	case err == nil:
		permit.Finish(autonomygate.Completed)
		say(permit.AuditID, "allow")
	case errors.As(err, &denied):
		say(denied.AuditID, string(denied.Reason))
	default:
		log.Fatal(err)
	}
}

func number(text string) int {
	parsed, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return parsed
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return content
}
