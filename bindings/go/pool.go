package autonomygate

import (
	"context"
	"sync"
)

// pool keeps instances: the one that was used last is taken next, and none is made that is not needed.
type pool struct {
	module        *module
	configuration []byte
	mutex         sync.Mutex
	given         sync.Cond
	idle          []*instance
	// room is how many more may be made.
	room int
}

func (p *pool) open(module *module, configuration []byte, most int) {
	p.module, p.configuration, p.room = module, configuration, most
	p.given.L = &p.mutex
}

func (p *pool) take() (*instance, error) {
	p.mutex.Lock()
	for len(p.idle) == 0 && p.room == 0 {
		p.given.Wait()
	}
	if last := len(p.idle) - 1; last >= 0 {
		i := p.idle[last]
		p.idle = p.idle[:last]
		p.mutex.Unlock()
		return i, nil
	}
	p.room--
	p.mutex.Unlock()
	i, err := p.module.instantiate(p.configuration)
	if err != nil {
		p.makeRoom()
	}
	return i, err
}

func (p *pool) give(i *instance) {
	p.mutex.Lock()
	p.idle = append(p.idle, i)
	p.mutex.Unlock()
	p.given.Signal()
}

// drop lets go of an instance that has trapped: another is made when it is needed.
func (p *pool) drop(i *instance) {
	_ = i.module.Close(context.Background())
	p.makeRoom()
}

func (p *pool) makeRoom() {
	p.mutex.Lock()
	p.room++
	p.mutex.Unlock()
	p.given.Signal()
}
