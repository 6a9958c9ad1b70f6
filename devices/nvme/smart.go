package nvme

import (
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// The spare, in %, which never becomes less, and what is too little.
const (
	availableSpare = 100
	spareThreshold = 10
)

// ioStats counts the data transfers of one goroutine: commands and bytes.
type ioStats struct {
	reads, writes, bytesRead, bytesWritten uint64
}

func (s *ioStats) count(op block.Op, n int64) {
	if op == block.Read {
		s.reads++
		s.bytesRead += uint64(n)
	} else {
		s.writes++
		s.bytesWritten += uint64(n)
	}
}

// smartLog is what the SMART log counts over the life of the drive, which with a state
// directory is more than that of the process.
type smartLog struct {
	start           time.Time
	earlier         atomic.Int64 // ns of power before start
	powerCycles     atomic.Uint64
	reads, writes   atomic.Uint64
	bytesRead       atomic.Uint64
	bytesWritten    atomic.Uint64
	unsafeShutdowns atomic.Uint64
	mediaErrors     atomic.Uint64
	throttling      throttling
	busy            busyTime
	idle            atomic.Int64 // when a worker slept last, ns since start
}

// hours is how long there was power.
func (l *smartLog) hours() uint64 { return uint64(l.powered() / time.Hour) }

// powered is how long there was power.
func (l *smartLog) powered() time.Duration {
	return time.Duration(l.earlier.Load()) + time.Since(l.start)
}

// commands counts what moved data.
func (l *smartLog) commands() uint64 { return l.reads.Load() + l.writes.Load() }

// work and rest keep account of when a group has something to do.
func (g *group) work() {
	if !g.busy {
		g.busy = true
		g.h.c.smart.busy.begin()
	}
}

func (g *group) rest() {
	g.h.c.smart.idle.Store(int64(time.Since(g.h.c.smart.start)))
	if g.busy {
		g.busy = false
		g.h.c.smart.busy.end()
	}
}

// busyTime is how long any of several was at work.
type busyTime struct {
	mu    sync.Mutex
	count int
	since time.Time // with count > 0
	spent time.Duration
}

func (b *busyTime) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count++; b.count == 1 {
		b.since = time.Now()
	}
}

func (b *busyTime) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count--; b.count == 0 {
		b.spent += time.Since(b.since)
	}
}

func (b *busyTime) total() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count > 0 {
		return b.spent + time.Since(b.since)
	}
	return b.spent
}

// load says what was spent before.
func (b *busyTime) load(spent time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent, b.since = spent, time.Now()
}

// idleSince is when a worker slept last.
func (l *smartLog) idleSince() time.Time { return l.start.Add(time.Duration(l.idle.Load())) }

// add takes what a goroutine has counted since it added last.
func (l *smartLog) add(s *ioStats) {
	if s.reads > 0 {
		l.reads.Add(s.reads)
		l.bytesRead.Add(s.bytesRead)
	}
	if s.writes > 0 {
		l.writes.Add(s.writes)
		l.bytesWritten.Add(s.bytesWritten)
	}
	*s = ioStats{}
}

// dataUnits is bytes in thousands of 512, rounded up (Base 1.4, 5.14.1.2).
func dataUnits(bytes uint64) uint64 { return (bytes + 511999) / 512000 }

// smartPage is the SMART log.
func (h *host) smartPage() *spec.Smart {
	l := &h.c.smart
	s := &spec.Smart{
		CriticalWarning: h.criticalWarning(),
		Temperature:     temperature,
		AvailableSpare:  availableSpare,
		SpareThreshold:  spareThreshold,
		UnitsRead:       dataUnits(l.bytesRead.Load()),
		UnitsWritten:    dataUnits(l.bytesWritten.Load()),
		HostReads:       l.reads.Load(),
		HostWrites:      l.writes.Load(),
		BusyMinutes:     uint64(l.busy.total() / time.Minute),
		PowerCycles:     l.powerCycles.Load(),
		PowerOnHours:    l.hours(),
		UnsafeShutdowns: l.unsafeShutdowns.Load(),
		MediaErrors:     l.mediaErrors.Load(),
		ErrorEntries:    h.c.errors.total(),
	}
	copy(s.Sensors[:], sensors[:])
	l.throttling.log(s, time.Now())
	return s
}
