package autonomygate

import "sync"

// pending counts what goes on in the background. Unlike a [sync.WaitGroup] it may be waited for while more begins.
type pending struct {
	mutex sync.Mutex
	count int
	// Closed once there is none, if somebody waits.
	none chan struct{}
}

func (p *pending) begin() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.count++
}

func (p *pending) end() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.count--
	if p.count == 0 && p.none != nil {
		close(p.none)
		p.none = nil
	}
}

// wait returns once there was none for a moment.
func (p *pending) wait() {
	p.mutex.Lock()
	if p.count > 0 && p.none == nil {
		p.none = make(chan struct{})
	}
	none := p.none
	p.mutex.Unlock()
	if none != nil {
		<-none
	}
}
