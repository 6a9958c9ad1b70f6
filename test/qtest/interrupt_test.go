package qtest

import (
	"testing"

	"vfiouser/test/card"
)

// TestLineInterrupt raises the card's line. QEMU masks the line while a guest handles it: it
// lowers its own when the guest accesses a BAR, and unmasks the device's, which fires again
// if it is still up.
func TestLineInterrupt(t *testing.T) {
	r, _ := newCard(t, shared, card.Config{})
	r.check(r.m.Intercept(r.ctx))
	seen := 0
	line := func(up bool) {
		t.Helper()
		changes, err := r.m.WaitLine(r.ctx, up)
		r.check(err)
		seen = changes
	}
	for range 5 {
		r.setRegister(card.RegLine, 1, 4)
		line(true)
		for range 3 {
			before := seen
			r.register(card.RegID) // the guest takes notice, but does nothing about it
			r.until("the line comes back", func() bool {
				line(true)
				r.register(card.RegID)
				return seen >= before+2 // down and up again
			})
		}
		r.setRegister(card.RegLine, 0, 4)
		r.until("the line stays down", func() bool {
			line(false)
			before := seen
			for range 10 {
				r.register(card.RegID)
			}
			r.check(r.sync())
			line(false)
			return seen == before
		})
	}
}

// sync returns when QEMU has handled what had arrived at its descriptors before.
func (r *rig) sync() error {
	_, err := r.m.Load(r.ctx, Ports, configAddress, 4)
	return err
}

// The registers of the MSI-X capability and of a table entry (PCI Express 7.7.2).
const (
	capMSIX       = 0x11
	msixControl   = 2
	msixEnable    = 1 << 15
	msixMaskAll   = 1 << 14
	entrySize     = 16
	entryAddress  = 0
	entryData     = 8
	entryControl  = 12
	entryMasked   = 1
	messagesAt    = 0x30_0000 // ordinary memory: a message is a store of its data
	messageStride = 16
)

// messages is a card with MSI-X whose vectors store to memory.
type messages struct {
	*rig
	capability int
}

// newMessages points each vector of a card's to a place in memory of its own; all are
// masked.
func newMessages(t *testing.T) (*messages, *card.Card) {
	t.Helper()
	r, c := newCard(t, shared, card.Config{MSIX: true})
	at, err := r.f.Capability(r.ctx, capMSIX)
	r.check(err)
	m := &messages{r, at}
	for v := range uint64(card.Vectors) {
		entry := tableAt + v*entrySize
		r.store(Memory, entry+entryAddress, messagesAt+v*messageStride, 4)
		r.store(Memory, entry+entryAddress+4, 0, 4)
		r.store(Memory, entry+entryData, message(v), 4)
		r.store(Memory, entry+entryControl, entryMasked, 4)
	}
	m.control(msixEnable)
	return m, c
}

// message is the data that a vector stores.
func message(vector uint64) uint64 { return 0xa0a0_0000 + vector }

func (m *messages) control(v uint32) {
	m.Helper()
	m.check(m.f.SetConfig(m.ctx, m.capability+msixControl, v, 2))
}

func (m *messages) mask(vector uint64, masked bool) {
	m.Helper()
	var v uint64
	if masked {
		v = entryMasked
	}
	m.store(Memory, tableAt+vector*entrySize+entryControl, v, 4)
}

func (m *messages) trigger(vector uint64) { m.setRegister(card.RegVector, vector, 4) }

// stored waits for a vector's message and takes it away.
func (m *messages) stored(vector uint64) {
	m.Helper()
	at := messagesAt + vector*messageStride
	m.until("the message of a vector arrives", func() bool { return m.load(Memory, at, 4) == message(vector) })
	m.store(Memory, at, 0, 4)
}

// silent checks that no vector has stored a message. What was triggered has been: an
// access that was served after it and a turn of QEMU's lie between.
func (m *messages) silent() {
	m.Helper()
	m.register(card.RegID)
	m.check(m.sync())
	for v := range uint64(card.Vectors) {
		if got := m.load(Memory, messagesAt+v*messageStride, 4); got != 0 {
			m.Errorf("vector %d has stored %#x", v, got)
		}
	}
}

// TestMessages triggers vectors that are unmasked, masked one by one, and masked together.
func TestMessages(t *testing.T) {
	m, _ := newMessages(t)
	for v := range uint64(card.Vectors) {
		m.mask(v, false)
	}
	for range 10 {
		for v := range uint64(card.Vectors) {
			m.trigger(v)
			m.stored(v)
		}
	}
	m.silent()

	m.mask(2, true)
	m.trigger(2)
	m.trigger(3)
	m.stored(3)
	m.silent()
	m.mask(2, false)
	m.stored(2)

	m.control(msixEnable | msixMaskAll)
	m.trigger(0)
	m.silent()
	m.control(msixEnable)
	m.stored(0)
	m.silent()

	// (without KVM QEMU tells the server of no mask: what is pending is known to QEMU alone,
	// but the pending bits that the guest reads are the server's)
	if got := m.load(Memory, tableAt+card.PBAOffset, 8); got != 0 {
		t.Errorf("pending bits %#x, want none", got)
	}
}

// TestCopyMessage has the card trigger a vector by itself.
func TestCopyMessage(t *testing.T) {
	m, c := newMessages(t)
	m.mask(card.CopyVector, false)
	m.setRegister(card.RegSource, 0x10_0000, 8)
	m.setRegister(card.RegTarget, 0x20_0000, 8)
	m.setRegister(card.RegLength, 8192, 4)
	for range 10 {
		m.setRegister(card.RegGo, 1, 4)
		m.stored(card.CopyVector)
		if status := m.register(card.RegStatus); status != card.StatusDone {
			t.Fatal(c.CopyError())
		}
	}
}

// TestMessagesAfterReset enables MSI-X again after a reset and finds all vectors masked.
func TestMessagesAfterReset(t *testing.T) {
	m, c := newMessages(t)
	m.mask(0, false)
	m.trigger(0)
	m.stored(0)
	before := c.Resets()
	m.check(m.m.Monitor(m.ctx, "system_reset", nil, nil))
	m.until("the reset arrives", func() bool { return c.Resets() > before })
	m.program(true)
	m.control(msixEnable)
	m.trigger(0)
	m.silent()
	m.store(Memory, tableAt+entryAddress, messagesAt, 4)
	m.store(Memory, tableAt+entryData, message(0), 4)
	m.mask(0, false)
	m.stored(0)
}
