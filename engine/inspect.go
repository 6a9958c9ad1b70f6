package engine

import (
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/irq"
)

// Inspection is what an endpoint's client and its session were at one moment.
type Inspection struct {
	// PID, UID and GID are the client's (SO_PEERCRED): those of whoever connected the
	// socket. 0 and -1 if the kernel does not say.
	PID, UID, GID int
	Connected     time.Time
	// Negotiated says that VERSION was exchanged; what follows is zero before.
	Negotiated bool
	Minor      uint16
	// Client is what the client offered, with defaults filled in.
	Client codec.Capabilities
	// TwinSocket and WriteMultiple say what was agreed on.
	TwinSocket, WriteMultiple bool
	// Memory is the client's, without access to it: Local is nil, and Mapped says whether
	// the device can touch it. In ascending order of IOVA.
	Memory     []MemoryRegion
	Interrupts [irq.NumIndexes]InterruptState
	Traffic    Traffic
}

// MemoryRegion is a part of a client's memory.
type MemoryRegion struct {
	dma.Region
	Mapped bool // otherwise it is reached by message
}

// InterruptState counts the vectors of an interrupt type.
type InterruptState struct {
	Vectors  int // that the device has
	Enabled  bool
	Assigned int // that have an eventfd
	Masked   int
	Pending  int
}

// Traffic counts what a session has exchanged by message, from its beginning on both
// sockets, and what is under way.
type Traffic struct {
	ReceivedMessages uint64
	ReceivedBytes    uint64
	SentBytes        uint64
	DMAMessages      uint64 // DMA_READ and DMA_WRITE sent
	DMAOutstanding   int    // of them, not answered
	DMAWaiting       int    // DMA messages that wait to be sent
	CommandsWaiting  int    // for one that is not finished, or for the session's turn
	UnsentBytes      int    // that the client has not read
}

// Inspect tells of the client that is attached now; false if there is none. It costs the
// data path nothing. Any goroutine but the reactor's.
func (ep *Endpoint) Inspect() (Inspection, bool) {
	var in Inspection
	found := false
	err := ep.engine.reactor.Do(func() {
		if s := ep.session; s != nil && s.state != stateDropped {
			in, found = s.inspect(), true
		}
	})
	return in, found && err == nil
}

// inspect runs on the reactor.
func (s *Session) inspect() Inspection {
	in := Inspection{
		UID: -1, GID: -1,
		Connected:  s.connected,
		Negotiated: s.state == stateNegotiated,
		TwinSocket: s.twin != nil,
		Traffic:    s.traffic(),
	}
	if cred, err := unix.GetsockoptUcred(s.fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid != 0 {
		in.PID, in.UID, in.GID = int(cred.Pid), int(cred.Uid), int(cred.Gid)
	}
	if !in.Negotiated {
		return in
	}
	in.Client, in.Minor = s.peer, s.minor
	in.WriteMultiple = s.peer.WriteMultiple && s.engine.cfg.WriteMultiple
	for _, r := range s.memory.Regions() {
		m := MemoryRegion{Region: r, Mapped: r.Local != nil}
		m.Local = nil
		in.Memory = append(in.Memory, m)
	}
	for i := range in.Interrupts {
		in.Interrupts[i] = s.interruptState(irq.Index(i))
	}
	return in
}

func (s *Session) interruptState(index irq.Index) InterruptState {
	st := InterruptState{Vectors: s.irqs.Count(index), Enabled: s.irqs.Enabled(index)}
	for n := range st.Vectors {
		v := s.irqs.Vector(index, n)
		if v.Assigned() {
			st.Assigned++
		}
		if v.Masked() {
			st.Masked++
		}
		if v.Pending() {
			st.Pending++
		}
	}
	return st
}

func (s *Session) traffic() Traffic {
	t := Traffic{
		ReceivedMessages: s.in.Messages(),
		ReceivedBytes:    s.in.received,
		SentBytes:        s.out.gone,
		UnsentBytes:      s.out.unsent(),
		DMAMessages:      s.calls.sent,
		DMAOutstanding:   len(s.calls.open),
		DMAWaiting:       len(s.calls.waiting),
		CommandsWaiting:  len(s.backlog.waiting) - s.backlog.first,
	}
	if w := s.twin; w != nil {
		t.ReceivedMessages += w.in.Messages()
		t.ReceivedBytes += w.in.received
		t.SentBytes += w.out.gone
		t.UnsentBytes += w.out.unsent()
	}
	return t
}
