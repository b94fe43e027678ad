package autonomygate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// answerBytes is the longest answer that is read.
	answerBytes = 64 * 1024
	// idleTimeout is shorter than the host's own 15 seconds: a connection that the host has closed is not used again.
	idleTimeout = 10 * time.Second
	// tokenBytes is the longest token.
	tokenBytes = 512
	// idleConnections are kept: a connection for each call would cost more than the call.
	idleConnections = 64
)

// NativeHostConfig is where the native host is (`autonomy host serve`), and how to be let in.
type NativeHostConfig struct {
	// URL is http://127.0.0.1:7778: on a loopback address alone, since the token goes there in clear.
	URL string
	// Socket is a Unix socket in the place of URL.
	Socket string
	// TokenFile holds the token, and nobody else can read it.
	TokenFile string
	// Token is the token itself, in the place of TokenFile.
	Token string
}

// NativeHost looks up and appends at the native host of this machine. Any number of goroutines may use it.
//
// A look-up whose kept connection turns out to be dead is sent again on another one. An append is never sent again.
type NativeHost struct {
	base          string
	authorization string
	client        http.Client
}

// NewNativeHost reads the token, and connects to nothing yet.
func NewNativeHost(config NativeHostConfig) (*NativeHost, error) {
	token, err := tokenOf(config)
	if err != nil {
		return nil, err
	}
	if (config.URL == "") == (config.Socket == "") {
		return nil, &failure{ErrMalformed, "where the native host is must be said once: give URL or Socket"}
	}
	// What a name resolves to is loopback as well.
	dialer := &net.Dialer{Timeout: idleTimeout, Control: onlyLoopback}
	base, dial := "http://localhost", dialer.DialContext
	if config.Socket != "" {
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", config.Socket)
		}
	} else if base, err = baseOf(config.URL); err != nil {
		return nil, err
	}
	return &NativeHost{
		base:          base,
		authorization: "Bearer " + token,
		client: http.Client{
			// No proxy: the token would go there.
			Transport: &http.Transport{
				DialContext:            dial,
				DisableCompression:     true,
				IdleConnTimeout:        idleTimeout,
				MaxIdleConnsPerHost:    idleConnections,
				MaxResponseHeaderBytes: answerBytes,
			},
			// A redirect is an answer like any other that is not 200.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// LookUp gives what the host answered, as it came.
func (h *NativeHost) LookUp(ctx context.Context, nodeID string) (Answer, error) {
	status, body, err := h.ask(ctx, http.MethodGet, "/v1/enrollments/"+url.PathEscape(nodeID), nil)
	if err != nil {
		return Answer{}, err
	}
	if status != http.StatusOK {
		return Answer{}, answered(status, body)
	}
	return AnswerJSON(string(body)), nil
}

// Append returns nil when the host says that the frames are durable.
func (h *NativeHost) Append(ctx context.Context, frames Frames) error {
	status, body, err := h.ask(ctx, http.MethodPost, "/v1/frames", strings.NewReader(`{"frames":`+string(frames)+`}`))
	switch {
	case err != nil:
		return err
	case status == http.StatusConflict:
		return fmt.Errorf("%w: %w", ErrFactsNotLogged, answered(status, body))
	case status != http.StatusOK:
		return answered(status, body)
	}
	var receipt struct {
		FirstSeq *uint64 `json:"first_seq"`
		LastSeq  *uint64 `json:"last_seq"`
	}
	if err := json.Unmarshal(body, &receipt); err != nil || receipt.FirstSeq == nil || receipt.LastSeq == nil || *receipt.FirstSeq > *receipt.LastSeq {
		return errors.New("the native host answered `200` without a receipt: is something else listening there?")
	}
	return nil
}

// Health says whether the host takes frames.
func (h *NativeHost) Health(ctx context.Context) error {
	status, body, err := h.ask(ctx, http.MethodGet, "/v1/health", nil)
	if err == nil && status != http.StatusOK {
		return answered(status, body)
	}
	return err
}

func (h *NativeHost) ask(ctx context.Context, method, path string, body io.Reader) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, h.base+path, body)
	if err != nil {
		return 0, nil, err
	}
	// Without it, net/http would send a body again on another connection.
	request.GetBody = nil
	request.Header.Set("Authorization", h.authorization)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := h.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(io.LimitReader(response.Body, answerBytes+1))
	if err != nil {
		return 0, nil, fmt.Errorf("the native host's answer broke off: %w", err)
	}
	if len(read) > answerBytes {
		return 0, nil, fmt.Errorf("the native host's answer is longer than %d bytes", answerBytes)
	}
	return response.StatusCode, read, nil
}

// answered is an answer that is not the one that was wanted.
func answered(status int, body []byte) error {
	var said struct{ Error string }
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		return fmt.Errorf("the native host answered `%d`", status)
	}
	return fmt.Errorf("the native host answered `%d`: %s", status, line(errors.New(said.Error)))
}

// baseOf refuses an address over which the token would be read by others.
func baseOf(address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || parsed.User != nil || strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "" {
		return "", &failure{ErrMalformed, fmt.Sprintf("`%s` is no address: give one like `http://127.0.0.1:7778`", address)}
	}
	ip, err := netip.ParseAddr(parsed.Hostname())
	if parsed.Scheme != "http" || parsed.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", &failure{ErrUnsupported, fmt.Sprintf("`%s` is not http on loopback: the token would be read on the way, use the host of this node", address)}
	}
	return "http://" + parsed.Host, nil
}

func onlyLoopback(network, address string, _ syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().IsLoopback() {
		return fmt.Errorf("`%s` is not loopback: the token would be read on the way", address)
	}
	return nil
}

func tokenOf(config NativeHostConfig) (string, error) {
	token := config.Token
	switch {
	case (token == "") == (config.TokenFile == ""):
		return "", &failure{ErrMalformed, "how to be let in must be said once: give TokenFile or Token"}
	case token == "":
		var err error
		if token, err = readToken(config.TokenFile); err != nil {
			return "", err
		}
	}
	other := strings.IndexFunc(token, func(c rune) bool { return c < '!' || c > '~' })
	if len(token) < 32 || len(token) > tokenBytes || other >= 0 {
		return "", &failure{ErrMalformed, "the token does not have 32 to 512 printable characters: make one with `autonomy host token`"}
	}
	return token, nil
}

func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", &failure{ErrRefused, fmt.Sprintf("the token cannot be read (%s): make one with `autonomy host token`", line(err))}
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return "", err
	}
	// Windows has no such bits.
	if mode := about.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return "", &failure{ErrRefused, fmt.Sprintf("others can read `%s` (mode `%o`): run `chmod 600` on it", path, mode)}
	}
	text, err := io.ReadAll(io.LimitReader(file, tokenBytes+3))
	if err != nil {
		return "", &failure{ErrRefused, fmt.Sprintf("the token cannot be read: %s", line(err))}
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
