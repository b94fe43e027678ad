package autonomygate

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
)

// appendCall writes what gate_decide takes.
func appendCall(to []byte, call *Call, auditID string, nowMs int64) []byte {
	to = append(to, `{"now_ms":`...)
	to = strconv.AppendInt(to, nowMs, 10)
	to = appendMember(to, `,"audit_id":`, auditID)
	to = appendMember(to, `,"tool":`, call.Tool)
	to = appendMember(to, `,"policy":`, string(call.Policy))
	if call.PolicyRef != "" {
		to = appendMember(to, `,"policy_ref":`, call.PolicyRef)
	}
	if call.PolicyDetail != "" {
		to = appendMember(to, `,"policy_detail":`, call.PolicyDetail)
	}
	if call.FactsLogged != "" {
		to = appendMember(to, `,"facts_logged":`, call.FactsLogged)
	}
	return append(to, '}')
}

func appendMember(to []byte, name, value string) []byte {
	to = append(to, name...)
	for at := 0; at < len(value); at++ {
		if c := value[at]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			// A string always has a JSON.
			quoted, _ := json.Marshal(value)
			return append(to, quoted...)
		}
	}
	to = append(to, '"')
	to = append(to, value...)
	return append(to, '"')
}

var errNoDecision = errors.New("the module's decision cannot be read")

// readDecision reads all of a decision but its frames: they go to the log as the text that they are. Its strings are parts
// of the text, so that a decision is one allocation.
func readDecision(text, auditID string) (Decision, error) {
	// What stands before is an effect, a digest and two reasons: none can hold this text.
	head, frames, _ := strings.Cut(text, `,"frames":`)
	frames, found := strings.CutSuffix(frames, "}")
	if !found {
		return Decision{}, trapped(errNoDecision)
	}
	decision, ok := scanHead(head)
	if !ok {
		// A later minor version may have added members.
		if err := json.Unmarshal([]byte(head+"}"), &decision); err != nil {
			return Decision{}, trapped(errNoDecision)
		}
	}
	decision.AuditID = auditID
	decision.Frames = Frames(frames)
	return decision, nil
}

// scanHead reads the members that every version has, in their order.
func scanHead(head string) (decision Decision, ok bool) {
	rest, ok := strings.CutPrefix(head, `{"effect":"`)
	if !ok {
		return decision, false
	}
	effect, rest, ok := strings.Cut(rest, `","reason":`)
	if !ok {
		return decision, false
	}
	reason, rest, ok := strings.Cut(rest, `,"verdict":`)
	if !ok {
		return decision, false
	}
	verdict, facts, ok := strings.Cut(rest, `,"facts":"`)
	if !ok {
		return decision, false
	}
	facts, rest, ok = strings.Cut(facts, `"`)
	return Decision{Effect: Effect(effect), Reason: unquoted(reason), Verdict: unquoted(verdict), Facts: facts}, ok && rest == ""
}

func unquoted(text string) Reason {
	if text == "null" {
		return ""
	}
	return Reason(strings.Trim(text, `"`))
}

// newAuditID is a UUID of version 7, which sorts by the time it was made at. It must be unique and not secret: the
// runtime's ChaCha8 is random enough, and needs no system call.
func newAuditID(nowMs int64) string {
	var id [16]byte
	ms := uint64(nowMs)
	for at := range 6 {
		id[at] = byte(ms >> (8 * (5 - at)))
	}
	high, low := rand.Uint64(), rand.Uint64()
	id[6], id[7] = 0x70|byte(high)&0x0f, byte(high>>8)
	for at := range 8 {
		id[8+at] = byte(low >> (8 * at))
	}
	id[8] = 0x80 | id[8]&0x3f
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
