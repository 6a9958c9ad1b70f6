package link

import (
	"sync"

	"vfiouser/link/vnet"
)

// null takes everything.
type null struct{ single }

// Null returns a link for one card that takes every frame without looking at it and never
// delivers one. It shows what everything in front of the link costs.
func Null() Link { return &null{} }

func (n *null) Attach(Card) (Port, error) {
	if err := n.take(); err != nil {
		return nil, err
	}
	return &nullPort{leave: sync.OnceFunc(n.leave)}, nil
}

func (n *null) Close() error { return nil }

type nullPort struct{ leave func() }

func (p *nullPort) Send(_ int, frames []vnet.Frame) int { return len(frames) }
func (p *nullPort) Poll(int) int                        { return 0 }
func (p *nullPort) Arm(int) bool                        { return false }
func (p *nullPort) SetOffloads(vnet.Offloads, int)      {}

func (p *nullPort) Close() error {
	p.leave()
	return nil
}
