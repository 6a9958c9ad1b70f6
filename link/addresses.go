package link

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// address is an Ethernet address, its first byte lowest, as a little-endian load gives it.
type address uint64

const (
	addressBits = 48
	noAddress   = address(1 << addressBits)
)

// group tells whether it is a multicast address, or broadcast.
func (a address) group() bool { return a&1 != 0 }

// ways is how many addresses share a bucket.
const ways = 4

// bucket holds the addresses of one hash value; it is a cache line.
type bucket struct {
	// An address in the upper 48 bits, and 1 + the slot of its port. 0: free.
	entries [ways]atomic.Uint64
	seen    [ways]atomic.Uint32 // when it was a frame's source last, seconds
	_       [16]byte
}

// addresses knows behind which port an address is. Looking up and refreshing is lock-free;
// what changes the table takes a lock, or is left to a later frame if somebody else has it.
//
// Its size is fixed. Addresses are spread by a secret hash. A port may hold no more than its
// share, and where a bucket is full the address of the port that holds most gives way, so
// that a port which invents addresses forgets its own and not those of the others.
type addresses struct {
	buckets []bucket
	shift   uint
	secret  uint64
	share   int    // addresses that a port may hold
	age     uint32 // seconds

	mu    sync.Mutex
	held  []int         // addresses by slot
	swept atomic.Uint32 // when, seconds
}

// init makes room for n addresses, rounded up to a power of two.
func (t *addresses) init(n, share int, age uint32) {
	log := bits.Len(uint(max(n, 2*ways)-1) / ways)
	t.buckets = make([]bucket, 1<<log)
	t.shift = uint(64 - log)
	t.secret = rand.Uint64() | 1
	t.share, t.age = share, age
	t.held = make([]int, maxPorts)
}

func (t *addresses) bucket(a address) *bucket {
	// Multiplication spreads to the upper bits only: bring those of the address down first.
	h := (uint64(a) ^ uint64(a)>>24) * t.secret
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15
	return &t.buckets[h>>t.shift]
}

// lookup returns the slot of the port behind which a is, or -1.
func (t *addresses) lookup(a address) int {
	b := t.bucket(a)
	for i := range b.entries {
		if e := b.entries[i].Load(); address(e>>16) == a {
			return int(uint16(e)) - 1
		}
	}
	return -1
}

// learn notes that a frame from a came out of the port of slot.
func (t *addresses) learn(a address, slot int, now uint32) {
	b, entry := t.bucket(a), uint64(a)<<16|uint64(slot+1)
	for i := range b.entries {
		if b.entries[i].Load() == entry {
			if b.seen[i].Load() != now {
				b.seen[i].Store(now)
			}
			return
		}
	}
	if !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	i := t.place(b, a, slot)
	if i < 0 {
		return
	}
	t.clear(b, i)
	b.seen[i].Store(now)
	b.entries[i].Store(entry)
	t.held[slot]++
}

// place says which entry of b the address of slot may have, -1 if none.
func (t *addresses) place(b *bucket, a address, slot int) int {
	free, most, own := -1, -1, -1
	holds := func(i int) int { return t.held[uint16(b.entries[i].Load())-1] }
	for i := range b.entries {
		switch e := b.entries[i].Load(); {
		case e == 0:
			free = i
		case address(e>>16) == a: // it has moved
			if t.held[slot] < t.share || uint16(e) == uint16(slot+1) {
				return i
			}
			return -1
		case uint16(e) == uint16(slot+1):
			if own < 0 || b.seen[i].Load() < b.seen[own].Load() {
				own = i
			}
		case most < 0 || holds(i) > holds(most):
			most = i
		}
	}
	switch {
	case t.held[slot] >= t.share:
		return own
	case free >= 0:
		return free
	case most >= 0 && holds(most) > t.held[slot]:
		return most
	}
	return own
}

// clear frees an entry. The lock is held.
func (t *addresses) clear(b *bucket, i int) {
	if e := b.entries[i].Load(); e != 0 {
		b.entries[i].Store(0)
		t.held[uint16(e)-1]--
	}
}

// sweep forgets what has not been seen for long. It does something a few times in that time
// only.
func (t *addresses) sweep(now uint32) {
	if !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	if !t.due(now) {
		return
	}
	t.remove(func(b *bucket, i int) bool { return now-b.seen[i].Load() > t.age })
	t.swept.Store(now)
}

// due tells whether sweep has something to do.
func (t *addresses) due(now uint32) bool { return now-t.swept.Load() >= t.interval() }

func (t *addresses) interval() uint32 { return max(t.age/8, 1) }

// forget removes the addresses of a port.
func (t *addresses) forget(slot int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(func(b *bucket, i int) bool { return uint16(b.entries[i].Load()) == uint16(slot+1) })
}

func (t *addresses) remove(which func(b *bucket, i int) bool) {
	for n := range t.buckets {
		b := &t.buckets[n]
		for i := range b.entries {
			if b.entries[i].Load() != 0 && which(b, i) {
				t.clear(b, i)
			}
		}
	}
}

// count is the number of addresses behind the port of slot.
func (t *addresses) count(slot int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held[slot]
}
