// Command server moves an arm for whoever asks, on a node that may. Each move is decided, and written down by the native
// host of the node before the arm moves:
//
//	autonomy host token --out host.token
//	AUTONOMY_HOST_TOKEN_FILE=host.token autonomy host serve &
//	go run . -node-id robot-7 -mode enforce -bundle bundle.tar -keys release.pub.pem -token-file host.token
//	curl -d '{"joint":2}' 127.0.0.1:8080/move
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	autonomygate "github.com/autonomy-gate/autonomy-gate/bindings/go"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:8080", "where to listen")
	nodeID := flag.String("node-id", "", "which node this is")
	mode := flag.String("mode", "", "off, advisory or enforce")
	bundle := flag.String("bundle", "bundle.tar", "the tar of the bundle")
	keys := flag.String("keys", "release.pub.pem", "who may sign it")
	hostURL := flag.String("host", "http://127.0.0.1:7778", "where the native host listens")
	tokenFile := flag.String("token-file", "host.token", "its token")
	flag.Parse()

	gate, err := autonomygate.Load(autonomygate.Config{
		NodeID:      *nodeID,
		Mode:        autonomygate.Mode(*mode),
		Bundle:      read(*bundle),
		TrustedKeys: []string{string(read(*keys))},
	})
	if err != nil {
		log.Fatal(err)
	}
	host, err := autonomygate.NewNativeHost(autonomygate.NativeHostConfig{URL: *hostURL, TokenFile: *tokenFile})
	if err != nil {
		log.Fatal(err)
	}
	guard := &autonomygate.Guard{Gate: gate, Source: host, Sink: host}

	routes := http.NewServeMux()
	routes.Handle("POST /move", autonomygate.Middleware(guard, autonomygate.Tool("arm.move"))(http.HandlerFunc(move)))
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	stop, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	<-stop.Done()
	if err := server.Shutdown(context.Background()); err != nil {
		log.Print(err)
	}
	guard.Wait()
}

// move runs only when the decision is on disk.
func move(w http.ResponseWriter, r *http.Request) {
	var order struct{ Joint int }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1024)).Decode(&order); err != nil {
		http.Error(w, "give a joint", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "{\"moved\":%d,\"audit_id\":%q}\n", order.Joint, autonomygate.PermitOf(r.Context()).AuditID)
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return content
}
