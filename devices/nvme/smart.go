package nvme

import (
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

// sleeps takes note that a worker has nothing to do.
func (l *smartLog) sleeps() { l.idle.Store(int64(time.Since(l.start))) }

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
