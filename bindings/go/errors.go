package autonomygate

import (
	"errors"
	"strings"
)

// What kind of thing was wrong, for [errors.Is]. The error itself says in one line what it was, with which value, and what
// to do.
var (
	// ErrMalformed is an input that is not what the call takes.
	ErrMalformed = errors.New("malformed")
	// ErrRefused is an input that was read and does not hold: a bundle, a lease, a signature, a token file.
	ErrRefused = errors.New("refused")
	// ErrUnsupported is a module or an address that this package does not use.
	ErrUnsupported = errors.New("unsupported")
	// ErrTrapped is a defect of the module, or its memory was full. The instance is gone, and another takes its place.
	ErrTrapped = errors.New("trapped")
)

// ErrFactsNotLogged says that the log does not have the facts that a batch names: the batch is made again, with them.
var ErrFactsNotLogged = errors.New("the log does not have the facts")

// A Reason is why a call is denied, or what a policy said: what the wire, the log and the metrics say, byte for byte.
//
// It is an error, so that errors.Is(err, ReasonEnrollmentRevoked) is asked of whatever a [Guard] gave.
type Reason string

// Pass is the verdict of a gate that found nothing wrong.
const Pass Reason = "pass"

func (r Reason) Error() string { return string(r) }

// failure is an error of one kind.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }

func (f *failure) Unwrap() error { return f.kind }

// lineBytes is how much is kept of somebody else's error.
const lineBytes = 300

// line is somebody else's error as one line.
func line(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > lineBytes {
		text = strings.ToValidUTF8(text[:lineBytes], "")
	}
	return text
}
