package virtio

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
)

const (
	testIOVA = 1 << 32
	segBytes = 64 // bytes of each segment
	maxSegs  = 6  // of a chain
)

// pair is a driver's ring and the device's queue on the same memory.
type pair struct {
	ring   *Ring
	mem    []byte // the ring's memory
	data   []byte // the rest: buffers
	addr   uint64 // of data
	queue  *virtqueue.Queue
	reader *dma.Reader
}

func newPair(t testing.TB, cfg RingConfig, dataSize uint64) *pair {
	t.Helper()
	size, err := cfg.MemorySize()
	if err != nil {
		t.Fatal(err)
	}
	size = (size + 4095) &^ 4095
	mem, err := client.NewMemory(size + dataSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	fd, err := unix.FcntlInt(uintptr(mem.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	table := dma.NewTable(dma.Config{})
	t.Cleanup(func() { table.Close(nil) })
	if err := table.Map(dma.Mapping{IOVA: testIOVA, Size: mem.Size(), Prot: dma.ProtRead | dma.ProtWrite, FD: fd}); err != nil {
		t.Fatal(err)
	}
	p := &pair{mem: mem.Bytes()[:size], data: mem.Bytes()[size:], addr: testIOVA + size, reader: table.NewReader()}
	t.Cleanup(p.reader.Close)
	if p.ring, err = NewRing(cfg, p.mem, testIOVA); err != nil {
		t.Fatal(err)
	}
	desc, driver, device := p.ring.Addresses()
	p.queue, err = virtqueue.New(virtqueue.Config{Size: cfg.Size, Desc: desc, Driver: driver, Device: device,
		Packed: cfg.Packed, Indirect: cfg.Indirect, EventIdx: cfg.EventIdx, InOrder: cfg.InOrder})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forEachRing runs a test with every combination of features.
func forEachRing(t *testing.T, size uint16, test func(t *testing.T, cfg RingConfig)) {
	for i := range 16 {
		cfg := RingConfig{Size: size, Packed: i&1 != 0, Indirect: i&2 != 0, EventIdx: i&4 != 0, InOrder: i&8 != 0, Segments: maxSegs}
		name := "split"
		if cfg.Packed {
			name = "packed"
		}
		for bit, feature := range []string{1: ",indirect", 2: ",eventidx", 3: ",inorder"} {
			if i>>bit&1 != 0 {
				name += feature
			}
		}
		t.Run(fmt.Sprintf("%d,%s", size, name), func(t *testing.T) { test(t, cfg) })
	}
}

// echo is the device: it answers each word that it reads with its complement. wake is what the driver signals, interrupt signals the
// driver.
type echo struct {
	*pair
	rng             *rand.Rand
	inOrder         bool
	wake, interrupt chan struct{}
	chains          int // to be served
	interrupts      int
}

func (e *echo) run(t *testing.T) {
	const most = 16
	chains := make([]virtqueue.Chain, most)
	e.reader.Enter()
	defer e.reader.Exit()
	if err := e.queue.Translate(e.reader); err != nil {
		t.Error(err)
		return
	}
	e.queue.Disarm()
	for e.chains > 0 {
		n, err := e.queue.Take(chains[:1+e.rng.IntN(most)])
		if err != nil {
			t.Error(err)
			return
		}
		if n == 0 {
			if !e.queue.Arm() {
				<-e.wake
			}
			e.queue.Disarm()
			continue
		}
		if n > 1 && e.rng.IntN(8) == 0 {
			e.queue.Untake(1)
			n--
		}
		if !e.inOrder {
			e.rng.Shuffle(n, func(i, j int) { chains[i], chains[j] = chains[j], chains[i] })
		}
		for i := range chains[:n] {
			e.queue.Push(&chains[i], answer(&chains[i]))
		}
		e.chains -= n
		if e.queue.Publish() {
			e.interrupts++
			signal(e.interrupt)
		}
	}
}

// answer writes the complement of the first word that is read to all that may be written, but for the last bytes.
func answer(c *virtqueue.Chain) uint32 {
	if c.WritableLen == 0 {
		return 0
	}
	word := uint32(0xffffffff)
	if c.ReadableLen > 0 {
		word = dma.Load32(c.Readable[0], 0)
	}
	written := uint32(0)
	for _, b := range c.Writable {
		for off := 0; off < len(b); off += 4 {
			dma.StoreRelease32(b, off, ^word)
		}
		written += uint32(len(b))
	}
	return written - word%4
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// TestRingsUnderstandEachOther runs chains of random shapes through the driver's ring and the device's queue, on two goroutines that
// sleep whenever they find nothing: a notification or an interrupt that is missing hangs the test.
func TestRingsUnderstandEachOther(t *testing.T) {
	chains := 200_000
	if testing.Short() {
		chains = 5_000
	}
	for _, size := range []uint16{8, 256} {
		forEachRing(t, size, func(t *testing.T, cfg RingConfig) { exchange(t, cfg, chains) })
	}
	t.Run("packed, no power of two", func(t *testing.T) {
		exchange(t, RingConfig{Size: 37, Packed: true, EventIdx: true, Segments: maxSegs}, chains)
	})
	t.Run("one entry", func(t *testing.T) { exchange(t, RingConfig{Size: 1, EventIdx: true}, chains/20) })
}

func exchange(t *testing.T, cfg RingConfig, chains int) {
	slots := 2 * int(cfg.Size)
	p := newPair(t, cfg, uint64(slots*maxSegs*segBytes))
	dev := &echo{pair: p, rng: rand.New(rand.NewPCG(1, uint64(cfg.Size))), inOrder: cfg.InOrder, chains: chains,
		wake: make(chan struct{}, 1), interrupt: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { dev.run(t) })
	defer wg.Wait()
	d := &exchanger{pair: p, t: t, rng: rand.New(rand.NewPCG(2, uint64(cfg.Size))), left: chains, segments: max(1, cfg.Segments), size: int(cfg.Size),
		inOrder: cfg.InOrder, indirect: cfg.Indirect, state: make([]exchanged, slots), dev: dev}
	for i := range slots {
		d.free = append(d.free, uint32(i))
	}
	d.run()
	wg.Wait()
	if r := p.ring; r.Err() != nil || r.InFlight() != 0 || r.Room() != r.Size() {
		t.Errorf("%v, %d chains under way, room for %d", r.Err(), r.InFlight(), r.Room())
	}
	t.Logf("%d chains: %d notifications, %d interrupts", chains, d.notifications, dev.interrupts)
}

// exchanger is the driver.
type exchanger struct {
	*pair
	t             *testing.T
	rng           *rand.Rand
	dev           *echo
	free          []uint32
	order         []uint32 // tokens under way
	state         []exchanged
	left          int
	size          int
	segments      int
	inOrder       bool
	indirect      bool
	notifications int
}

// exchanged is what is known of a chain under way.
type exchanged struct {
	word     uint32
	writable int // segments
	readable int
}

func (d *exchanger) run() {
	done := make([]Used, 32)
	for d.left > 0 || d.ring.InFlight() > 0 {
		added := d.add(d.rng.IntN(24))
		if d.ring.Publish() {
			d.notifications++
			signal(d.dev.wake)
		}
		n, err := d.ring.Reap(done[:1+d.rng.IntN(len(done))])
		if err != nil {
			d.t.Error(err)
			signal(d.dev.wake)
			return
		}
		for i := range done[:n] {
			d.check(&done[i])
		}
		if n == 0 && added == 0 && d.ring.InFlight() > 0 && !d.ring.EnableInterrupts() {
			<-d.dev.interrupt
			d.ring.DisableInterrupts()
		}
	}
}

func (d *exchanger) add(most int) (added int) {
	var readable, writable [maxSegs]Segment
	for added < most && d.left > 0 && len(d.free) > 0 {
		token := d.free[0]
		n := 1 + d.rng.IntN(min(d.segments, d.size))
		r := d.rng.IntN(n + 1)
		for i := range n {
			s := Segment{Addr: d.addr + uint64(token)*maxSegs*segBytes + uint64(i*segBytes), Len: segBytes}
			if i < r {
				readable[i] = s
			} else {
				writable[i-r] = s
			}
		}
		e := exchanged{word: d.rng.Uint32(), readable: r, writable: n - r}
		if r == 0 {
			e.word = 0xffffffff
		}
		binary.LittleEndian.PutUint32(d.slot(token), e.word)
		var err error
		switch {
		case n == 1 && r == 1:
			err = d.ring.AddReadable(token, readable[0].Addr, segBytes)
		case n == 1:
			err = d.ring.AddWritable(token, writable[0].Addr, segBytes)
		default:
			err = d.ring.Add(token, readable[:r], writable[:n-r])
		}
		if err == ErrFull {
			if d.ring.Room() >= n {
				d.t.Errorf("full with room for %d", d.ring.Room())
			}
			return added
		}
		if err != nil {
			d.t.Error(err)
			return added
		}
		d.free = d.free[1:]
		d.order = append(d.order, token)
		d.state[token] = e
		d.left--
		added++
	}
	return added
}

func (d *exchanger) slot(token uint32) []byte {
	return d.data[token*maxSegs*segBytes:][:maxSegs*segBytes]
}

func (d *exchanger) check(u *Used) {
	e := &d.state[u.Token]
	if d.inOrder && d.order[0] != u.Token {
		d.t.Errorf("chain %d is used before %d", u.Token, d.order[0])
	}
	for i, token := range d.order {
		if token == u.Token {
			d.order = append(d.order[:i], d.order[i+1:]...)
			break
		}
	}
	want := uint32(0)
	if e.writable > 0 {
		want = uint32(e.writable*segBytes) - e.word%4
	}
	if u.Len != want {
		d.t.Errorf("%d bytes written to chain %d, want %d", u.Len, u.Token, want)
	}
	b := d.slot(u.Token)[e.readable*segBytes:][:e.writable*segBytes]
	for off := 0; off < len(b); off += 4 {
		if got := dma.Load32(b, off); got != ^e.word {
			d.t.Fatalf("chain %d holds %#x at %d, want %#x", u.Token, got, off, ^e.word)
		}
	}
	d.free = append(d.free, u.Token)
}

// TestChainsServeOneQueueAfterAnother: a device keeps its chains when the next driver wants another layout.
func TestChainsServeOneQueueAfterAnother(t *testing.T) {
	chains := make([]virtqueue.Chain, 1)
	for i, packed := range []bool{false, true, false, true} {
		p := newPair(t, RingConfig{Size: 4, Packed: packed}, 4096)
		if err := p.ring.AddReadable(uint32(i), p.addr, 8); err != nil {
			t.Fatal(err)
		}
		p.ring.Publish()
		p.reader.Enter()
		if err := p.queue.Translate(p.reader); err != nil {
			t.Fatal(err)
		}
		if n, err := p.queue.Take(chains); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		p.queue.Push(&chains[0], 0)
		p.queue.Publish()
		p.reader.Exit()
		done := make([]Used, 1)
		if n, err := p.ring.Reap(done); n != 1 || err != nil || done[0].Token != uint32(i) {
			t.Errorf("packed %v: %d, %v, %v", packed, n, err, done)
		}
	}
}
