package virtqueue

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"vfiouser/dma"
)

var (
	modelSteps = flag.Int("steps", 0, "steps of the model for each combination of features; 0: a few")
	modelSeed  = flag.Uint64("seed", 0, "seed of the model; 0: a new one")
)

// access says how the device of a model reaches memory.
type access int

const (
	mapped access = iota
	message
	mixed // some buffers by message only, so that the queue changes over and back
)

func (a access) String() string { return [...]string{"mapped", "message", "mixed"}[a] }

// slotSize is the part of memory that a chain of the model has for itself: its buffers, a
// guard, and at the end its indirect table.
const (
	slotSize   = 2048
	tableInset = 1024
	maxBuffers = 7
)

// model runs a random driver, the reference, against a random device on a Queue.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	cfg    Config
	how    access
	g      *guest
	q      *Queue
	gen    uint64
	driver refDriver
	log    []string // the last steps

	slotBase uint64
	slots    []int    // free
	seq      int      // of the next offer
	waiting  []*offer // shown or placed, in order, not yet taken by the device
	placed   int      // of waiting, at the end, that are not shown

	flight []*taken // taken in order, not pushed
	pushed []*taken // not published
	asleep bool     // the device armed and found nothing
	newest int      // seq of the newest chain that was ever pushed

	counts struct{ chains, kicks, interrupts, sleeps, remotes, moves int }
}

// taken is a chain that the device has.
type taken struct {
	chain   *Chain
	o       *offer
	written uint32
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, s := range m.log[max(0, len(m.log)-40):] {
		m.t.Log(s)
	}
	m.t.Fatalf(format, args...)
}

func (m *model) note(format string, args ...any) {
	if testing.Verbose() {
		if len(m.log) > 1000 {
			m.log = append(m.log[:0], m.log[500:]...)
		}
		m.log = append(m.log, fmt.Sprintf(format, args...))
	}
}

// pattern is byte i of what chain seq holds to read, or to write with a salt.
func pattern(seq, salt, i int) byte { return byte(seq*31 + salt + i*7 + i>>8) }

const (
	canary    = 0xEE
	writeSalt = 101
)

func newModel(t *testing.T, cfg Config, how access, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 7)), how: how}
	slots := int(cfg.Size)
	const ringBytes = 0x20000
	m.g = newGuest(t, ringBytes+(2*slots+4)*slotSize&^(page-1))
	cfg.Desc, cfg.Driver, cfg.Device = base, base+0x8000, base+0x10000
	m.cfg = cfg
	m.slotBase = base + ringBytes + uint64(m.rng.IntN(slotSize))
	// Regions that touch each other: buffers and tables lie across.
	cuts := []int{0, ringBytes, ringBytes + page, (ringBytes + slots*slotSize) &^ (page - 1), len(m.g.mem)}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	for i, from := range cuts[:len(cuts)-1] {
		size := cuts[i+1] - from
		if how == mixed && cuts[i+1] == len(m.g.mem) { // half of the slots, or more
			must(t, m.g.table.Map(dma.Mapping{IOVA: base + uint64(from), Size: uint64(size), Prot: dma.ProtRead | dma.ProtWrite, FD: -1}))
		} else {
			m.g.share(from, size, dma.ProtRead|dma.ProtWrite)
		}
	}
	for i := range 2 * slots {
		m.slots = append(m.slots, i)
	}
	m.q, _ = New(cfg)
	start := 0
	var state uint16
	if cfg.Packed {
		start = m.rng.IntN(2 * int(cfg.Size))
		d := newRefPacked(m.g, cfg, m.rng, start)
		m.driver, state = d, d.position(start)
	} else {
		start = 1<<16 - 1 - m.rng.IntN(500) // wraps around soon
		m.driver, state = newRefSplit(m.g, cfg, m.rng, uint16(start)), uint16(start)
	}
	must(t, m.q.Restore(state))
	if how == message {
		m.q.SetRemote(m.g)
	}
	return m
}

func (m *model) slotAddr(slot int) uint64 { return m.slotBase + uint64(slot)*slotSize }

// device runs a step of the device in a section, if it works on mapped memory.
func (m *model) device(f func()) {
	if m.q.mem != nil {
		f()
		return
	}
	m.g.r.Enter()
	defer m.g.r.Exit()
	if g := m.g.r.Generation(); g != m.gen || m.q.r == nil {
		must(m.t, m.q.Translate(m.g.r))
		m.gen = g
	}
	f()
}

// make composes a random chain of at most room descriptors.
func (m *model) make(room int) *offer {
	i := m.rng.IntN(len(m.slots))
	if m.how == mixed && m.rng.IntN(20) > 0 {
		// Mostly memory that is mapped.
		for j, s := range m.slots {
			if s < int(m.cfg.Size)-2 {
				i = j
			}
		}
	}
	o := &offer{seq: m.seq, slot: m.slots[i]}
	m.slots = slices.Delete(m.slots, i, i+1)
	m.seq++
	at, end := m.slotAddr(o.slot), m.slotAddr(o.slot)+tableInset
	n := 1
	if m.rng.IntN(2) == 0 {
		n = 1 + m.rng.IntN(maxBuffers)
	}
	if m.cfg.Indirect && m.rng.IntN(2) == 0 {
		o.table = end + uint64(m.rng.IntN(64))
		if !m.cfg.Packed {
			o.direct = m.rng.IntN(min(room, n)) // the table itself takes one
			if m.rng.IntN(2) == 0 {
				o.direct = 0
			}
		}
	} else {
		n = min(n, room)
	}
	writes := m.rng.IntN(n + 1) // the last ones
	read, write := 0, 0
	for i := range n {
		e := element{addr: at + uint64(m.rng.IntN(20)), n: uint32(m.rng.IntN(100)), write: i >= n-writes}
		if m.rng.IntN(16) == 0 {
			e.n = 0
		}
		b := m.g.at(e.addr, int(e.n))
		for j := range b {
			if e.write {
				b[j] = canary
				write++
			} else {
				b[j] = pattern(o.seq, 0, read)
				read++
			}
		}
		o.elements = append(o.elements, e)
		at = e.addr + uint64(e.n)
	}
	return o
}

func (m *model) offerSome() {
	for range 1 + m.rng.IntN(6) {
		room := m.driver.room()
		if room == 0 || len(m.slots) == 0 {
			break
		}
		o := m.make(room)
		m.driver.place(o)
		m.waiting = append(m.waiting, o)
		m.placed++
		m.note("place %d: slot %d table %#x direct %d %v", o.seq, o.slot, o.table, o.direct, o.elements)
	}
	if m.placed > 0 && m.rng.IntN(4) > 0 {
		kick := m.driver.show()
		m.note("show %d, kick %v", m.placed, kick)
		if m.asleep && !kick {
			m.fatalf("the device sleeps and the driver does not notify it")
		}
		m.placed = 0
		if kick {
			m.counts.kicks++
			m.asleep = false
		}
	}
}

func (m *model) step() {
	switch k := m.rng.IntN(32); {
	case k < 8:
		m.offerSome()
	case k < 16:
		if !m.asleep {
			m.takeSome()
		}
	case k < 22:
		m.pushSome()
	case k < 26:
		m.publish()
	case k < 28:
		m.wish()
	case k < 29:
		m.untakeSome()
		m.asleep = false
	case k < 30:
		m.sleep()
	case k < 31:
		m.device(m.q.Disarm)
		m.asleep = false
		m.note("disarm")
	default:
		m.move()
	}
}

func (m *model) run(steps int) {
	for range steps {
		m.step()
	}
	// What is there comes through to the end.
	for i := 0; len(m.waiting)+len(m.flight)+len(m.pushed) > 0; i++ {
		if i > 10*int(m.cfg.Size)+100 {
			m.fatalf("%d waiting, %d in flight", len(m.waiting), len(m.flight))
		}
		m.driver.show()
		m.placed = 0
		m.takeSome()
		m.pushSome()
		m.publish()
	}
}

func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed %d", seed)
	steps := *modelSteps
	if steps == 0 {
		steps = 30000
		if testing.Short() {
			steps = 3000
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 48 {
		cfg := Config{Packed: i&1 != 0, Indirect: i&2 != 0, EventIdx: i&4 != 0, InOrder: i&8 != 0}
		how := access(i / 16)
		cfg.Size = 1 << rng.IntN(8)
		if cfg.Packed {
			cfg.Size = uint16(1 + rng.IntN(70))
		}
		name := fmt.Sprintf("packed=%v,indirect=%v,event=%v,inorder=%v,%v,size=%d", cfg.Packed, cfg.Indirect, cfg.EventIdx, cfg.InOrder, how, cfg.Size)
		seed := rng.Uint64()
		t.Run(name, func(t *testing.T) {
			m := newModel(t, cfg, how, seed)
			m.run(steps)
			t.Logf("%+v", m.counts)
		})
	}
}
