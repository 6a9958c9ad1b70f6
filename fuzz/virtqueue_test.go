package fuzz

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/fuzz/choice"
)

// FuzzVirtqueue is a driver that breaks rules, and a device that uses a Queue, over memory with
// holes. A slow walker says which chains there are, or which rule was broken; a model says what
// the used ring and the event indexes are to be, and whether an interrupt is due. All memory is
// compared after each step.
//
//fuzz:covers devices/virtio/virtqueue
func FuzzVirtqueue(f *testing.F) {
	choice.Corpus(f, 600, 1000)
	mem := newVQMemory(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		mem.reset(t)
		defer mem.r.Exit()
		m := newVQModel(t, choice.FromBytes(program), mem)
		if m == nil {
			return
		}
		for steps := 0; steps < 300 && m.src.More() && m.q.Err() == nil; steps++ {
			if !m.step() {
				return
			}
			m.compare()
			m.logged()
		}
		m.end()
	})
}

// vqTaken is a chain that the device has.
type vqTaken struct {
	vqChain
	chain *virtqueue.Chain
	next  uint32 // how far chains were taken before it
}

// vqModel is both sides of a queue. Places are counted through: a split ring's index is the
// count modulo 65,536, a packed ring's place is the count modulo its size, and the round is odd
// or even.
type vqModel struct {
	t   *testing.T
	src *choice.Source
	mem *vqMemory
	cfg virtqueue.Config
	q   *virtqueue.Queue
	w   vqWalker

	shown       uint32 // the driver's place, as far as it behaves
	desc        uint16 // split: where its next chain goes
	table       uint64 // where its next indirect table goes, bytes from vqTables
	taken, used uint32
	flight      []*vqTaken        // not pushed
	spare       []virtqueue.Chain // that were pushed: their memory is used again
	pushed      []vqEntry         // not published
	ripe        int               // chains or packed descriptors that are pushed
	last        uint32            // place of the newest chain that was pushed, and 1
	joins       bool
	armed       bool
}

func newVQModel(t *testing.T, src *choice.Source, mem *vqMemory) *vqModel {
	how := src.Uint8()
	cfg := virtqueue.Config{
		Packed: how&1 != 0, Indirect: how&2 != 0, EventIdx: how&4 != 0, InOrder: how&8 != 0,
		Desc: vqBase, Driver: vqBase + vqPage, Device: vqBase + 2*vqPage,
		MaxChain: choice.Pick(src, 1024, 1024, 64, 3), MaxBytes: choice.Pick(src, 1<<20, 40000),
	}
	cfg.Size = 1 << src.Intn(7)
	if cfg.Packed {
		cfg.Size = 1 + uint16(src.Intn(64))
	}
	if src.Bool() { // across pages
		cfg.Desc = vqBase + vqPage - 16*uint64(src.Intn(int(cfg.Size)+1))
		cfg.Driver += vqPage / 2
		cfg.Device += vqPage - 4*uint64(src.Intn(2*int(cfg.Size)+1))
	}
	if src.Odds(8) {
		for _, at := range []*uint64{&cfg.Desc, &cfg.Driver, &cfg.Device} {
			*at = choice.Pick(src, *at, *at, vqBase+8*vqPage-64, vqBase+12*vqPage, vqBase+14*vqPage, vqBase+16*vqPage,
				vqBase+18*vqPage, vqBase+22*vqPage-16, vqBase+24*vqPage-4, ^uint64(0)&^15, vqBase+1)
		}
	}
	q, err := virtqueue.New(cfg)
	if err != nil {
		if !errors.Is(err, virtqueue.ErrConfig) {
			t.Fatal(err)
		}
		return nil
	}
	m := &vqModel{t: t, src: src, mem: mem, cfg: cfg, q: q, armed: true}
	m.w = vqWalker{mem: mem, cfg: &m.cfg, remote: how&16 != 0, maxBytes: uint64(cfg.MaxBytes)}
	start := src.Uint16()
	state := start
	if cfg.Packed {
		start %= 2 * cfg.Size
		if state = start % cfg.Size; start < cfg.Size {
			state |= 1 << 15
		}
	} else {
		mem.poke16(cfg.Driver+2, start)
	}
	m.shown, m.taken, m.used = uint32(start), uint32(start), uint32(start)
	if err := q.Restore(state); err != nil {
		t.Fatal(err)
	}
	if !m.place() {
		return nil
	}
	return m
}

// place brings the queue to its memory, by message or not. It returns false if there is no
// such way to the ring.
func (m *vqModel) place() bool {
	mapped, reached := true, true
	for _, a := range m.areas() {
		list, wrong := m.mem.pieces(a.addr, a.n, a.prot)
		mapped = mapped && wrong == nil && len(list) == 1
		reached = reached && m.mem.reachable(a.addr, a.n, a.prot)
	}
	if m.w.remote {
		m.q.SetRemote(m.mem)
		return reached
	}
	err := m.q.Translate(m.mem.r)
	if (err == nil) != mapped || err != nil && !errors.Is(err, virtqueue.ErrRemote) && !errors.Is(err, virtqueue.ErrAddress) {
		m.t.Fatalf("Translate: %v; the ring is in mapped regions: %v", err, mapped)
	}
	if err == nil {
		return true
	}
	if n, again := m.q.Take(make([]virtqueue.Chain, 1)); n != 0 || again == nil {
		m.t.Fatalf("a ring that is not there gives %d chains, %v", n, again)
	}
	m.w.remote = true
	m.q.SetRemote(m.mem)
	return reached
}

// compare holds memory against the model.
func (m *vqModel) compare() {
	if !m.mem.same() {
		m.t.Fatalf("memory at %#x is %#x", m.mem.difference(), m.mem.mem[m.mem.difference()-vqBase])
	}
}

// logged holds the log of writes against what was written. Of messages the client knows.
func (m *vqModel) logged() {
	if written, logged := m.mem.settle(m.t); !m.w.remote && written&^logged != 0 {
		m.t.Fatalf("pages %#x were written, in the log are %#x", written, logged)
	}
}

// step returns false when nothing leads to the ring any more.
func (m *vqModel) step() bool {
	switch k := m.src.Intn(32); {
	case k < 10:
		m.offer()
	case k < 12:
		m.damage()
	case k < 13:
		m.wish()
	case k < 19:
		m.take()
	case k < 23:
		m.push()
	case k < 26:
		m.publish()
	case k < 28:
		m.arm()
	case k < 29:
		m.untake()
	case k < 30:
		if len(m.flight) == 0 || m.w.remote {
			m.mem.r.Exit()
			m.mem.toggle(m.t)
			m.mem.r.Enter()
			return m.place()
		}
	default:
		if len(m.flight) == 0 && len(m.pushed) == 0 {
			m.w.remote = !m.w.remote
			return m.place()
		}
	}
	return true
}

// take compares what the queue finds with what the walker does.
func (m *vqModel) take() {
	chains := make([]virtqueue.Chain, 1+m.src.Intn(6))
	m.spare = m.spare[copy(chains, m.spare):]
	inflight := m.ripe
	for _, f := range m.flight {
		inflight += int(f.descs)
	}
	want := m.w.walk(m.taken, inflight, len(chains))
	available := m.q.Available()
	n, err := m.q.Take(chains)
	if (available > 0) != (n > 0 || err != nil) {
		m.t.Fatalf("%d available, %d taken, %v", available, n, err)
	}
	if most := 2048 + int(m.cfg.Size) + m.cfg.MaxChain + 1; m.q.Walked() > most {
		m.t.Fatalf("%d descriptors walked in one batch", m.q.Walked())
	}
	// A batch may end early where it was much.
	early := n > 0 && (m.q.Walked() > 2048 || m.w.remote)
	if n > len(want.chains) || n < len(want.chains) && (err != nil || !early) {
		m.t.Fatalf("took %d chains, %v; there are %d, %v", n, err, len(want.chains), want.rules)
	}
	if n == len(want.chains) {
		m.refused(err, &want, early)
	}
	for i := range chains[:n] {
		m.check(&chains[i], &want.chains[i])
	}
	for i := range chains[:n] {
		m.keep(&chains[i], want.chains[i])
	}
}

// refused compares what is said of the chain that was not taken.
func (m *vqModel) refused(err error, want *vqWalk, early bool) {
	if err == nil {
		if len(want.rules) > 0 && !early {
			m.t.Fatalf("nothing is said of a chain that breaks %v", want.rules)
		}
		return
	}
	if !slices.ContainsFunc(want.rules, func(rule error) bool { return errors.Is(err, rule) }) {
		m.t.Fatalf("%v; what is wrong is %v", err, want.rules)
	}
	if e := (*virtqueue.Error)(nil); errors.As(err, &e) && e.At != want.at {
		m.t.Fatalf("%v is told of entry %d, not %d", err, e.At, want.at)
	}
	lost := errors.Is(err, virtqueue.ErrRemote) || errors.Is(err, virtqueue.ErrMemory)
	if broken := m.q.Err() != nil; broken == lost {
		m.t.Fatalf("%v has broken the queue: %v", err, broken)
	}
}

// check compares a chain.
func (m *vqModel) check(c *virtqueue.Chain, want *vqChain) {
	if got := bytes.Join(c.Readable, nil); uint64(c.ReadableLen) != want.read || !bytes.Equal(got, want.content) {
		m.t.Fatalf("a chain of %d bytes to read has %d, or others", want.read, len(got))
	}
	n := uint64(0)
	for _, b := range c.Writable {
		n += uint64(len(b))
		if m.w.remote && bytes.Count(b, []byte{0}) != len(b) {
			m.t.Fatalf("a copy to be written has something of another: % x", b)
		}
	}
	if uint64(c.WritableLen) != want.write || n != want.write {
		m.t.Fatalf("a chain of %d bytes to write has %d", want.write, n)
	}
}

// keep takes a chain over, and writes all that it may.
func (m *vqModel) keep(c *virtqueue.Chain, want vqChain) {
	i := 0
	for _, b := range c.Writable {
		for k := range b {
			b[k] = vqPattern(i)
			i++
		}
	}
	if !m.w.remote {
		// Buffers that lie on each other are written in their order, and so in the model.
		i = 0
		for _, b := range want.buffers {
			if b.write {
				m.mem.expect(b.addr, vqPatterns(i, b.n))
				i += int(b.n)
			}
		}
	}
	m.flight = append(m.flight, &vqTaken{want, c, m.taken})
	m.taken += uint32(want.descs)
}

func vqPattern(i int) byte { return byte(0xa0 + i%91) }

func vqPatterns(from int, n uint64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = vqPattern(from + i)
	}
	return b
}

// untake gives back chains behind which none is pushed.
func (m *vqModel) untake() {
	n := 0
	for n < len(m.flight) && m.flight[len(m.flight)-1-n].next >= m.last {
		n++
	}
	if n == 0 {
		return
	}
	n = 1 + m.src.Intn(n)
	m.q.Untake(n)
	m.taken = m.flight[len(m.flight)-n].next
	m.flight = m.flight[:len(m.flight)-n]
}

// end gives back all that was taken, after which the queue is where it says.
func (m *vqModel) end() {
	broken := m.q.Err()
	for len(m.flight) > 0 && m.sound() {
		m.pushFirst()
	}
	if len(m.pushed) > 0 && m.sound() {
		m.publish()
	}
	if m.sound() {
		m.compare()
		m.logged()
		if _, err := m.q.State(); err != nil {
			m.t.Fatalf("nothing is in flight, and State says %v", err)
		}
	}
	if n, err := m.q.Take(make([]virtqueue.Chain, 1)); broken != nil && (n != 0 || !errors.Is(err, broken)) {
		m.t.Fatalf("a queue that is broken by %v gives %d chains, %v", broken, n, err)
	}
}

// sound says that no write by message has failed, of which nobody knows how far it went.
func (m *vqModel) sound() bool { return !errors.Is(m.q.Err(), virtqueue.ErrMemory) }
