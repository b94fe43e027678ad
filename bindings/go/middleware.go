package autonomygate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Tool asks for the same tool with each request.
func Tool(name string) func(*http.Request) (ToolCall, error) {
	return func(*http.Request) (ToolCall, error) { return ToolCall{Tool: name}, nil }
}

// Middleware asks a guard before a handler. The call is what the function makes of the request; where it fails, the request
// is answered 400.
//
// The handler runs only with a permit, which [PermitOf] gives it. A request that is denied is answered 403 (503 where the
// decision could not be written down) with `{"decision":"deny","reason":…,"policy_ref":…,"audit_id":…}`. How the tool went
// is the answer's status: Completed below 400, Failed from there and where the handler panics, Abandoned when the client
// went away. A handler that knows better finishes its permit itself.
func Middleware(guard *Guard, call func(*http.Request) (ToolCall, error)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked, err := call(r)
			if err != nil {
				refuse(w, http.StatusBadRequest, said{line(err)})
				return
			}
			permit, err := guard.Ask(r.Context(), asked)
			if err != nil {
				refuseCall(w, err)
				return
			}
			// Where it panics, this is what is written.
			defer permit.Finish(Failed)
			answer := &statusWriter{ResponseWriter: w}
			next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), permitKey{}, permit)))
			switch {
			case r.Context().Err() != nil:
				permit.Finish(Abandoned)
			case answer.status < http.StatusBadRequest:
				permit.Finish(Completed)
			}
		})
	}
}

// PermitOf is the permit of the request that a context belongs to; nil where no [Middleware] has asked.
func PermitOf(ctx context.Context) *Permit {
	permit, _ := ctx.Value(permitKey{}).(*Permit)
	return permit
}

type permitKey struct{}

type said struct {
	Error string `json:"error"`
}

func refuseCall(w http.ResponseWriter, err error) {
	var denied *Denied
	switch {
	case errors.As(err, &denied):
		refuse(w, denied.Status(), denied)
	case errors.Is(err, ErrMalformed):
		refuse(w, http.StatusBadRequest, said{line(err)})
	default:
		// What it was is for the operator, not for the caller.
		refuse(w, http.StatusInternalServerError, said{"the call could not be decided"})
	}
}

func refuse(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Where it cannot be sent, nobody is there.
	_ = json.NewEncoder(w).Encode(document)
}

// statusWriter remembers the status. http.ResponseController finds what else a writer can do through Unwrap.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	// Those below 200 are followed by another, but for the switch of protocols.
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
