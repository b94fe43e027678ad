package autonomygate

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// An Answer is what a source says about a node. Its zero value is no answer, and denies.
type Answer struct {
	// The JSON of an answer, or the envelope of a lease.
	text  string
	lease bool
}

// An Enrollment is a row of the enrollment store.
type Enrollment struct {
	NodeID        string `json:"node_id"`
	EnrollmentRef string `json:"enrollment_ref"`
	Status        string `json:"status"`
	RolloutState  string `json:"rollout_state"`
	Serial        uint64 `json:"serial"`
}

// AnswerJSON is an answer as it came from a source: nothing of it is lost.
func AnswerJSON(text string) Answer { return Answer{text: text} }

// Lease is an answer that the orchestrator has signed: its DSSE envelope, byte for byte.
func Lease(envelope []byte) Answer { return Answer{text: string(envelope), lease: true} }

// Enrolled is the answer that there is this row.
func Enrolled(row Enrollment, observedAt time.Time) Answer {
	return answerOf(struct {
		Answer       string     `json:"answer"`
		Enrollment   Enrollment `json:"enrollment"`
		ObservedAtMs int64      `json:"observed_at_ms"`
	}{"enrolled", row, observedAt.UnixMilli()})
}

// NotEnrolled is the answer that there is no such node.
func NotEnrolled(observedAt time.Time) Answer {
	return answerOf(struct {
		Answer       string `json:"answer"`
		ObservedAtMs int64  `json:"observed_at_ms"`
	}{"not_enrolled", observedAt.UnixMilli()})
}

// Unavailable says that there is no answer, and why.
func Unavailable(why string) Answer {
	return answerOf(struct {
		Answer string `json:"answer"`
		Why    string `json:"why"`
	}{"unavailable", why})
}

func answerOf(document any) Answer {
	// Strings and integers always have a JSON.
	text, _ := json.Marshal(document)
	return AnswerJSON(string(text))
}

// observation is all of an answer but the time, and the time: what it takes to know that a later answer is the same.
type observation struct {
	before, after string
	at            int64
}

const observedAt = `"observed_at_ms":`

// observe gives nothing for an answer that has no time.
func (a Answer) observe() (observation, bool) {
	// Inside of a string there would be a backslash before the second quote.
	at := strings.Index(a.text, observedAt)
	if at < 0 || a.lease {
		return observation{}, false
	}
	before, rest := a.text[:at], a.text[at+len(observedAt):]
	end := strings.IndexAny(rest, ",}")
	// Only a number as JSON has it is taken out: what differs from an answer that was read in these digits alone can be read
	// as well.
	if end < 1 || rest[0] < '1' || rest[0] > '9' {
		return observation{}, false
	}
	ms, err := strconv.ParseInt(rest[:end], 10, 64)
	return observation{before, rest[end:], ms}, err == nil
}

func (o observation) same(other observation) bool {
	return o.before == other.before && o.after == other.after
}

// Frames are those of one call: the text of a JSON array. They are appended as one batch, byte for byte, and must be
// durable before the tool runs and before the caller is answered.
type Frames string

// A Frame is one record, read to look at.
type Frame struct {
	Kind    string          `json:"kind"`
	AuditID string          `json:"audit_id"`
	NodeID  *string         `json:"node_id"`
	Attrs   json.RawMessage `json:"attrs"`
}

// Read gives each frame.
func (f Frames) Read() ([]Frame, error) {
	var frames []Frame
	return frames, json.Unmarshal([]byte(f), &frames)
}
