package virtio

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzRing: a device finds the chains that a driver has added as the specification has them, and
// those that it uses come back, as it says, once. If it lies nothing else comes back: a chain that
// is under way, once, with no more bytes than it has room for, or an ErrDevice that is for good.
//
//fuzz:covers drivers/virtio/ring.go drivers/virtio/split.go drivers/virtio/packed.go drivers/virtio/ringconfig.go
func FuzzRing(f *testing.F) {
	choice.Fuzz(f, 200, 200, runRing)
}

func TestRingPrograms(t *testing.T) {
	choice.Programs(t, 200, 150, runRing)
}

// ringRun is a program under way.
type ringRun struct {
	*testing.T
	*choice.Source
	cfg  RingConfig
	ring *Ring
	mem  []byte

	token     uint32
	underWay  map[uint32]*ringChain // by token
	added     []*ringChain          // that the device has not seen
	room      int
	published int // of added
	taken     []*ringChain
	used      []Used // that are to come back
	lied      bool

	// The device's places: of the next available and of the next used chain.
	takeAt, useAt     int
	takeWrap, useWrap bool
}

// ringChain is a chain under way.
type ringChain struct {
	token   uint32
	reads   []Segment
	writes  []Segment
	entries int    // of the ring
	id      uint16 // that the device found
}

func (c *ringChain) writable() (n uint32) {
	for _, s := range c.writes {
		n += s.Len
	}
	return n
}

func runRing(t *testing.T, s *choice.Source) {
	t.Helper()
	r := &ringRun{T: t, Source: s, underWay: map[uint32]*ringChain{}, takeWrap: true, useWrap: true}
	r.cfg = RingConfig{Packed: s.Bool(), Indirect: s.Bool(), EventIdx: s.Bool(), InOrder: s.Bool(), Segments: s.Intn(4), Size: choice.Pick[uint16](s, 4, 1, 2, 8, 5)}
	size, err := r.cfg.MemorySize()
	if wrong := !r.cfg.Packed && r.cfg.Size == 5; wrong != (err != nil) {
		t.Fatalf("%+v: %v", r.cfg, err)
	} else if wrong {
		return
	}
	for r.mem = make([]byte, size+line); !aligned(r.mem); {
		r.mem = r.mem[1:]
	}
	if r.ring, err = NewRing(r.cfg, r.mem, testIOVA); err != nil {
		t.Fatal(err)
	}
	r.room = int(r.cfg.Size)
	for step := 0; s.More() && !t.Failed() && r.ring.Err() == nil; step++ {
		switch s.Intn(16) {
		case 0, 1, 2, 3:
			r.add()
		case 4, 5:
			r.ring.Publish()
			r.published = len(r.added)
		case 6, 7, 8:
			r.take()
		case 9, 10, 11:
			r.use()
		case 12:
			if pending := r.ring.EnableInterrupts(); !r.lied && pending != (len(r.used) > 0) {
				t.Errorf("%d chains were used, pending: %v", len(r.used), pending)
			}
		case 13:
			if s.Odds(4) {
				r.lie()
			}
		default:
			r.reap()
		}
		if r.ring.Room() != r.room || r.ring.InFlight() != len(r.underWay) {
			t.Errorf("room for %d, %d under way; want %d, %d", r.ring.Room(), r.ring.InFlight(), r.room, len(r.underWay))
		}
		if t.Failed() {
			t.Errorf("step %d of %+v", step, r.cfg)
		}
	}
	if err := r.ring.Err(); err != nil && (!errors.Is(err, ErrDevice) || !r.lied) {
		t.Errorf("%v; the device lied: %v", err, r.lied)
	}
}

func (r *ringRun) segments(n int) (list []Segment) {
	for range n {
		list = append(list, Segment{r.Uint64(), uint32(r.Intn(1000))})
	}
	return list
}

func (r *ringRun) add() {
	r.token++
	most := max(r.cfg.Segments, 1)
	c := &ringChain{token: r.token, reads: r.segments(r.Intn(most + 1))}
	c.writes = r.segments(r.Intn(most - len(c.reads) + 1))
	if r.Odds(16) {
		c.writes = r.segments(r.Intn(most + 2))
	}
	n := len(c.reads) + len(c.writes)
	direct := !r.cfg.Indirect || most == 1
	if c.entries = n; !direct {
		c.entries = 1
	}
	var want error
	switch {
	case n == 0, n > most, direct && n > int(r.cfg.Size):
		want = ErrInvalid
	case c.entries > r.room:
		want = ErrFull
	}
	if err := r.ring.Add(c.token, c.reads, c.writes); !errors.Is(err, want) || want == nil && err != nil {
		r.Errorf("a chain of %d and %d segments: %v, want %v", len(c.reads), len(c.writes), err, want)
	}
	if want == nil {
		r.underWay[c.token], r.added, r.room = c, append(r.added, c), r.room-c.entries
	}
}

// bytesAt is the ring's memory from one of its addresses on.
func (r *ringRun) bytesAt(addr uint64) []byte { return r.mem[addr-testIOVA:] }

// take has the device look for a chain.
func (r *ringRun) take() {
	desc, driver, _ := r.ring.Addresses()
	table, size := r.bytesAt(desc), int(r.cfg.Size)
	there := int(int16(binary.LittleEndian.Uint16(r.bytesAt(driver)[2:]) - uint16(r.takeAt)))
	if r.cfg.Packed {
		there = 0
		flags := binary.LittleEndian.Uint16(table[16*r.takeAt+14:])
		if avail, used := flags&0x80 != 0, flags&0x8000 != 0; avail == r.takeWrap && used != r.takeWrap {
			there = 1
		}
	}
	if !r.lied && (there > 0) != (r.published > 0) {
		r.Errorf("the device finds %d chains, %d are published", there, r.published)
	}
	if there <= 0 || r.published == 0 || r.lied {
		return
	}
	c := r.added[0]
	r.added, r.published = r.added[1:], r.published-1
	at := r.takeAt
	if !r.cfg.Packed {
		c.id = binary.LittleEndian.Uint16(r.bytesAt(driver)[4+2*(r.takeAt%size):])
		r.takeAt = (r.takeAt + 1) % (1 << 16)
		at = int(c.id)
	}
	r.follow(c, table, at)
	r.taken = append(r.taken, c)
}

// follow reads the descriptors of a chain.
func (r *ringRun) follow(c *ringChain, table []byte, at int) {
	size, inTable := int(r.cfg.Size), false
	segments := slices.Concat(c.reads, c.writes)
	for i := 0; i < len(segments); {
		d := table[16*at:]
		addr, n := binary.LittleEndian.Uint64(d), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), int(binary.LittleEndian.Uint16(d[14:]))
		if r.cfg.Packed {
			if flags, next = uint16(next), (at+1)%size; !inTable {
				c.id = binary.LittleEndian.Uint16(d[12:])
				if r.takeAt++; r.takeAt == size {
					r.takeAt, r.takeWrap = 0, !r.takeWrap
				}
			} else {
				next = at + 1
			}
		}
		if flags&4 != 0 {
			if inTable || i > 0 || flags&3 != 0 || int(n) != 16*len(segments) {
				r.Fatalf("a table of %d bytes with flags %#x in descriptor %d", n, flags, i)
			}
			table, at, inTable = r.bytesAt(addr), 0, true
			continue
		}
		last := i == len(segments)-1
		if segments[i] != (Segment{addr, n}) || flags&2 != 0 != (i >= len(c.reads)) || flags&1 != 0 == last && !(r.cfg.Packed && inTable) {
			r.Fatalf("segment %d of %d is %#x+%d with flags %#x, want %+v", i, len(segments), addr, n, flags, segments[i])
		}
		i, at = i+1, next
	}
}

// use has the device use a chain, or, where it keeps the order, some of them at once.
func (r *ringRun) use() {
	if len(r.taken) == 0 || r.lied {
		return
	}
	i := r.Intn(len(r.taken))
	group := r.taken[i : i+1]
	if r.cfg.InOrder {
		group = r.taken[:i+1]
	}
	entries := 0
	for _, c := range group {
		r.used = append(r.used, Used{c.token, c.writable()})
		entries += c.entries
	}
	c := group[len(group)-1]
	length := uint32(r.Intn(int(c.writable()) + 1))
	r.used[len(r.used)-1].Len = length
	r.tell(uint32(c.id), length, len(group), entries)
	r.taken = slices.Delete(r.taken, i+1-len(group), i+1)
}

// tell writes that a chain was used, the last of so many with so many entries.
func (r *ringRun) tell(id, length uint32, chains, entries int) {
	desc, _, device := r.ring.Addresses()
	if !r.cfg.Packed {
		ring := r.bytesAt(device)
		e := ring[4+8*(r.useAt%int(r.cfg.Size)):]
		binary.LittleEndian.PutUint32(e, id)
		binary.LittleEndian.PutUint32(e[4:], length)
		r.useAt = (r.useAt + chains) % (1 << 16)
		binary.LittleEndian.PutUint16(ring[2:], uint16(r.useAt))
		return
	}
	d, flags := r.bytesAt(desc)[16*r.useAt:], uint16(2)
	if length == 0 && r.Bool() {
		flags, length = 0, r.Uint32() // means nothing
	}
	if r.useWrap {
		flags |= 0x8080
	}
	binary.LittleEndian.PutUint32(d[8:], length)
	binary.LittleEndian.PutUint16(d[12:], uint16(id))
	binary.LittleEndian.PutUint16(d[14:], flags)
	if r.useAt += entries; r.useAt >= int(r.cfg.Size) {
		r.useAt, r.useWrap = r.useAt-int(r.cfg.Size), !r.useWrap
	}
}

// lie has the device write something that is wrong, most likely.
func (r *ringRun) lie() {
	known := !r.lied && r.Bool() && r.knownLie()
	if r.lied = true; known {
		for r.reap() > 0 {
		}
		if r.ring.Err() == nil {
			r.Errorf("a device that lies is believed")
		}
		return
	}
	switch r.Intn(4) {
	case 0:
		r.tell(uint32(r.Intn(int(r.cfg.Size)+1)), uint32(r.Intn(3000)), 1, 1)
	case 1:
		r.tell(r.Uint32(), r.Uint32(), 1+r.Intn(8), 1+r.Intn(int(r.cfg.Size)))
	case 2:
		_, _, device := r.ring.Addresses()
		binary.LittleEndian.PutUint16(r.bytesAt(device)[2:], r.Uint16())
	default:
		for range 1 + r.Intn(8) {
			r.mem[r.Intn(len(r.mem))] = r.Uint8()
		}
	}
}

// knownLie writes something that cannot be, if there is an occasion for it.
func (r *ringRun) knownLie() bool {
	what := r.Intn(5)
	if what == 4 && !r.cfg.Packed { // more chains than there are
		_, _, device := r.ring.Addresses()
		binary.LittleEndian.PutUint16(r.bytesAt(device)[2:], uint16(r.useAt+len(r.underWay)+1+r.Intn(100)))
		return true
	}
	if what == 3 { // a chain that is not under way
		id := r.Intn(int(r.cfg.Size) + 1)
		if id < int(r.cfg.Size) && r.ring.chains[id].n > 0 || len(r.underWay) == len(r.used) {
			return false
		}
		r.tell(uint32(id), 0, 1, 1)
		return true
	}
	if len(r.taken) == 0 {
		return false
	}
	i := r.Intn(len(r.taken))
	c, chains, entries := r.taken[i], 1, r.taken[i].entries
	if r.cfg.InOrder {
		chains, entries = i+1, 0
		for _, c := range r.taken[:i+1] {
			entries += c.entries
		}
	}
	switch {
	case what == 0: // more bytes than there is room for
		r.tell(uint32(c.id), c.writable()+1+uint32(r.Intn(3)), chains, entries)
	case what == 1 && !r.cfg.Packed: // a number that is too large
		r.tell(uint32(c.id)|1<<(16+r.Intn(16)), 0, chains, entries)
	case what == 2 && !r.cfg.Packed && chains > 1: // fewer chains than it is the last of
		r.tell(uint32(c.id), 0, chains-1-r.Intn(chains-1), entries)
	default:
		return false
	}
	return true
}

// reap takes chains back and tells how many.
func (r *ringRun) reap() int {
	done := make([]Used, 1+r.Intn(4))
	n, err := r.ring.Reap(done)
	if err != nil && (!r.lied || !errors.Is(err, ErrDevice)) {
		r.Errorf("%v; the device lied: %v", err, r.lied)
	}
	if want := min(len(done), len(r.used)); !r.lied && (n != want || !slices.Equal(done[:n], r.used[:n])) {
		r.Errorf("%+v come back, want %+v", done[:n], r.used[:want])
	}
	for _, u := range done[:n] {
		c := r.underWay[u.Token]
		if c == nil || u.Len > c.writable() {
			r.Fatalf("%+v comes back of %+v", u, c)
		}
		delete(r.underWay, u.Token)
		r.room += c.entries
		if !r.lied {
			r.used = r.used[1:]
		}
	}
	if err == nil {
		return n
	}
	// It is for good.
	if _, again := r.ring.Reap(done); again != err {
		r.Errorf("then %v", again)
	}
	if again := r.ring.AddReadable(0, 0, 1); again != err || r.ring.Publish() {
		r.Errorf("then %v", again)
	}
	return n
}
