package nvme

import (
	"sync"

	"vfiouser/devices/nvme/spec"
)

// errorEntries is the number of entries that the error log keeps (ELPE + 1).
const errorEntries = 64

// errorLog is the error information log (Base 1.4, 5.14.1.1). Any goroutine adds to it.
type errorLog struct {
	mu      sync.Mutex
	count   uint64
	entries [errorEntries]spec.ErrorEntry // count n is in entries[n % errorEntries]
}

func (l *errorLog) add(e spec.ErrorEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	e.Count = l.count
	l.entries[l.count%errorEntries] = e
}

func (l *errorLog) total() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// page is the log, newest entry first.
func (l *errorLog) page() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := make([]byte, errorEntries*spec.ErrorEntrySize)
	for i := uint64(0); i < min(l.count, errorEntries); i++ {
		l.entries[(l.count-i)%errorEntries].Put(b[i*spec.ErrorEntrySize:])
	}
	return b
}

// load replaces the log with a page and the count of its newest entry.
func (l *errorLog) load(count uint64, page []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = [errorEntries]spec.ErrorEntry{}
	l.count = count
	for i := uint64(0); i < min(count, errorEntries); i++ {
		e := &l.entries[(count-i)%errorEntries]
		e.Get(page[i*spec.ErrorEntrySize:])
		e.Count = count - i
	}
}

// logFailure records a command that failed. It returns the status that the command
// completes with: More says that the log has an entry (Base 2.0, 3.3.3.2.1).
func (h *host) logFailure(sqid uint16, e *spec.SubmissionEntry, st spec.Status) spec.Status {
	st |= spec.StatusMore
	entry := spec.ErrorEntry{SQID: sqid, CID: e.CID, Status: st, NSID: e.NSID, Opcode: e.Opcode, Version: 1}
	if sqid == 0 {
		entry.Parameter = h.adminLocation(e, st)
		if st.Code() == spec.NamespaceInsufficientCapacity { // of a command that the control goroutine has carried out
			entry.Specific = h.required
		}
	} else {
		entry.LBA = e.LBA()
		entry.Parameter = h.c.ioLocation(e, st)
	}
	h.c.errors.add(entry)
	return st
}
