package spec

import "encoding/binary"

// Self-test codes of Device Self-test.
const (
	SelfTestShort    = 0x1
	SelfTestExtended = 0x2
	SelfTestAbort    = 0xf
)

// Results of a self-test (Base 2.0, figure 214).
const (
	SelfTestPassed    = 0x0
	SelfTestAborted   = 0x1 // by Device Self-test
	SelfTestReset     = 0x2 // aborted by a reset
	SelfTestRemoved   = 0x3 // aborted, a namespace was removed
	SelfTestFormatted = 0x4 // aborted by Format NVM
	SelfTestFatal     = 0x5
	SelfTestFailed    = 0x7 // in the segment that is named
	SelfTestUnknown   = 0x8 // aborted for an unknown reason
	SelfTestSanitized = 0x9 // aborted by Sanitize
	selfTestUnused    = 0xf
)

// Sizes of the self-test log in bytes.
const (
	SelfTestSize       = 564
	SelfTestResultSize = 28
)

// SelfTestResult is an entry of the self-test log.
type SelfTestResult struct {
	Result       uint8
	Code         uint8
	Segment      uint8 // of SelfTestFailed
	PowerOnHours uint64
	HasNamespace bool
	Namespace    uint32
	HasLBA       bool
	LBA          uint64
	HasStatus    bool
	Status       Status // its code only
}

// SelfTestLog is the device self-test log, newest result first, at most 20.
type SelfTestLog struct {
	Operation uint8 // in progress, as a code; 0: none
	Percent   uint8
	Results   []SelfTestResult
}

// Put writes the 564 bytes of the log.
func (l *SelfTestLog) Put(b []byte) {
	b = b[:SelfTestSize]
	clear(b)
	le := binary.LittleEndian
	b[0], b[1] = l.Operation&0xf, l.Percent&0x7f
	for i, d := 0, b[4:]; len(d) > 0; i, d = i+1, d[SelfTestResultSize:] {
		if i >= len(l.Results) {
			d[0] = selfTestUnused
			continue
		}
		r := &l.Results[i]
		d[0], d[1] = r.Result&0xf|r.Code<<4, r.Segment
		le.PutUint64(d[4:], r.PowerOnHours)
		if r.HasNamespace {
			d[2] |= 1 << 0
			le.PutUint32(d[12:], r.Namespace)
		}
		if r.HasLBA {
			d[2] |= 1 << 1
			le.PutUint64(d[16:], r.LBA)
		}
		if r.HasStatus {
			d[2] |= 1<<2 | 1<<3
			d[24], d[25] = r.Status.SCT(), r.Status.SC()
		}
	}
}

// Get reads the 564 bytes of the log.
func (l *SelfTestLog) Get(b []byte) {
	b = b[:SelfTestSize]
	le := binary.LittleEndian
	*l = SelfTestLog{Operation: b[0] & 0xf, Percent: b[1] & 0x7f}
	for d := b[4:]; len(d) > 0 && d[0]&0xf != selfTestUnused; d = d[SelfTestResultSize:] {
		r := SelfTestResult{Result: d[0] & 0xf, Code: d[0] >> 4, Segment: d[1], PowerOnHours: le.Uint64(d[4:])}
		if r.HasNamespace = d[2]&1 != 0; r.HasNamespace {
			r.Namespace = le.Uint32(d[12:])
		}
		if r.HasLBA = d[2]&2 != 0; r.HasLBA {
			r.LBA = le.Uint64(d[16:])
		}
		if r.HasStatus = d[2]&0xc == 0xc; r.HasStatus {
			r.Status = Status(d[24]&7)<<8 | Status(d[25])
		}
		l.Results = append(l.Results, r)
	}
}
