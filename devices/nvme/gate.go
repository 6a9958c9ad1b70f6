package nvme

import (
	"sync"
	"sync/atomic"

	"vfiouser/devices/nvme/spec"
)

// gate keeps commands away from a namespace while something is done to it that none of
// them may see half of. Commands pass it in one of three ways: what a worker carries out
// within one Poll is seen by the lock of its group; what an asynchronous backend has is
// counted; and couriers hold the lock shared.
type gate struct {
	lock  sync.RWMutex
	async atomic.Int64  // commands that the backend has
	ended chan struct{} // capacity 1: async became 0
	// shut: workers give all commands to couriers. It is a part of what
	// namespace.readable says, and changes under the same lock.
	shut atomic.Bool
}

// begin and end count a command that the backend has.
func (g *gate) begin() { g.async.Add(1) }

func (g *gate) end() {
	if g.async.Add(-1) == 0 {
		notify(g.ended)
	}
}

// exclude runs f while no command of any host touches the namespace; they wait. f gets the
// view that holds now, nil if the namespace is gone, and may replace it. It must not wait
// for a host, as that may take as long as the host likes. The caller is not a worker, and
// holds neither a gate nor mu.
func (s *Subsystem) exclude(a *allocation, f func(ns *namespace)) {
	g := &a.gate
	g.lock.Lock()
	defer g.lock.Unlock()
	s.setShut(a, true)
	defer s.setShut(a, false)
	s.passGroups()
	for g.async.Load() > 0 {
		<-g.ended
	}
	f(a.view.Load())
}

// setShut closes or opens the way of the workers.
func (s *Subsystem) setShut(a *allocation, shut bool) {
	s.uncorrectable.mu.Lock()
	defer s.uncorrectable.mu.Unlock()
	a.gate.shut.Store(shut)
	if ns := a.view.Load(); ns != nil {
		ns.cleanTo()
	}
}

// passGroups waits until every group has left the Poll that it is in.
func (s *Subsystem) passGroups() {
	for _, g := range s.groups() {
		g.polling.Lock()
		g.polling.Unlock() //lint:ignore SA2001 to have passed is all that is wanted
	}
}

// changed is no status of NVMe: the namespace is not what it was when the command was
// checked.
const changed spec.Status = 0xfffd

// pass lets a command at its blocks until release. What it needs of the host it has
// fetched before, as a host may take its time.
func (c *courier) pass(cmd *command) spec.Status {
	switch s := c.script; {
	case s == nil:
	case s.replaying: // alone, as it is
		return c.admit(cmd)
	default:
		return fetched
	}
	if cmd.ns.formatting.Load() {
		return spec.FormatInProgress
	}
	g := &cmd.ns.gate
	g.lock.RLock()
	st := c.admit(cmd)
	if !st.OK() {
		g.lock.RUnlock()
		return st
	}
	c.passed = g
	return spec.Success
}

// admit says whether a command that was checked earlier may still be carried out.
func (c *courier) admit(cmd *command) spec.Status {
	switch {
	case c.h.c.namespace(cmd.ns.id) != cmd.ns:
		return changed
	case !cmd.ns.bars(c.h.c, cmd.entry.Opcode):
		return spec.Success
	case cmd.era != cmd.ns.era.Load():
		return spec.AbortPreempted | spec.StatusDNR
	}
	return conflict
}

// release ends what pass began, if it did.
func (c *courier) release() {
	if c.passed != nil {
		c.passed.lock.RUnlock()
		c.passed = nil
	}
}
