package autonomygate

import (
	"context"
	"sync"
	"time"
)

// MemoryHost is a source and a sink in memory, for tests and first steps: nothing it takes is durable. Its zero value is
// ready, and any number of goroutines may use it.
type MemoryHost struct {
	mutex  sync.Mutex
	rows   map[string]Enrollment
	frames []Frame
	fault  error
}

// Enroll enrolls a node, or changes its row. An empty status is active, and an empty rollout state <none>; the serial is the
// host's own.
func (h *MemoryHost) Enroll(row Enrollment) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.rows == nil {
		h.rows = make(map[string]Enrollment)
	}
	if row.Status == "" {
		row.Status = "active"
	}
	if row.RolloutState == "" {
		row.RolloutState = "<none>"
	}
	row.Serial = h.rows[row.NodeID].Serial + 1
	h.rows[row.NodeID] = row
}

// Revoke revokes a node: its next call is denied.
func (h *MemoryHost) Revoke(nodeID string) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if row, enrolled := h.rows[nodeID]; enrolled {
		row.Status = "revoked"
		row.Serial++
		h.rows[nodeID] = row
	}
}

// Fail has look-ups and appends fail, until it is told nil.
func (h *MemoryHost) Fail(fault error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.fault = fault
}

// Frames are those that were appended.
func (h *MemoryHost) Frames() []Frame {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return append([]Frame(nil), h.frames...)
}

// LookUp is what an EnrollmentSource does.
func (h *MemoryHost) LookUp(ctx context.Context, nodeID string) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.fault != nil {
		return Answer{}, h.fault
	}
	if row, enrolled := h.rows[nodeID]; enrolled {
		return Enrolled(row, time.Now()), nil
	}
	return NotEnrolled(time.Now()), nil
}

// Append is what a DecisionSink does.
func (h *MemoryHost) Append(ctx context.Context, frames Frames) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	read, err := frames.Read()
	if err != nil {
		return err
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.fault != nil {
		return h.fault
	}
	h.frames = append(h.frames, read...)
	return nil
}
