package nvmeconformance

import (
	"vfiouser/devices/nvme/spec"
)

// doorbellChecks are those of doorbells that make no sense.
func doorbellChecks() (checks []Check) {
	const section = "Base 2.0, 5.2.1"
	type doorbell struct {
		what   string
		number func(t *T) int
		value  func(t *T) uint32
		info   uint8
		mapped bool // noticed in a mapping too
	}
	const (
		unknown = spec.AsyncInvalidDoorbell
		invalid = spec.AsyncInvalidTail
	)
	size := func(*T) uint32 { return ioEntries }
	all := []doorbell{
		{"the tail of a submission queue that does not exist", func(*T) int { return 2 * spare }, func(*T) uint32 { return 1 }, unknown, false},
		{"the head of a completion queue that does not exist", func(*T) int { return 2*spare + 1 }, func(*T) uint32 { return 1 }, unknown, false},
		{"a tail that is the size of the queue", func(*T) int { return 2 }, size, invalid, true},
		{"a tail of FFFFh", func(*T) int { return 2 }, func(*T) uint32 { return 0xffff }, invalid, true},
		{"a head that is the size of the queue", func(*T) int { return 3 }, size, invalid, false},
		{"an admin tail that is the size of the queue", func(*T) int { return 0 }, func(*T) uint32 { return adminEntries }, invalid, true},
		{"an admin head that is the size of the queue", func(*T) int { return 1 }, func(*T) uint32 { return adminEntries }, invalid, true},
		{"an admin head ahead of the completions", func(*T) int { return 1 }, func(t *T) uint32 { return (t.admin.head + 9) % adminEntries }, invalid, true},
	}
	for _, d := range all {
		raise := func(t *T) (completion, uint16) {
			t.need(t.bell == nil || d.mapped, "doorbell that is noticed when it is written through a mapping")
			t.dirty = true
			cid := t.submit(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
			t.fence()
			old := []uint32{t.admin.tail, t.admin.head}
			n := d.number(t)
			t.ringRegister(n*t.cap.DoorbellStride(), d.value(t))
			if n < 2 && t.bell != nil {
				// A mapping has no memory of what was there before: let it be noticed, then go on.
				t.await("the event", func() bool { _, ok := t.peek(t.admin); return ok })
				t.ringRegister(n*t.cap.DoorbellStride(), old[n])
			}
			return t.result(t.admin, cid), cid
		}
		checks = append(checks,
			Check{section, "a doorbell write of " + d.what + " raises the error event", func(t *T) {
				c, _ := raise(t)
				equal(t, "event", spec.AsyncResult(c.DW0), spec.NewAsyncResult(spec.AsyncError, d.info, spec.LogErrors))
			}, false},
			Check{section, "after a doorbell write of " + d.what + " everything goes on", func(t *T) {
				raise(t)
				t.must("Identify", t.doIdentify(t.admin))
				t.must("Flush", t.do(t.io, &spec.SubmissionEntry{NSID: t.namespaces[0].id}))
			}, false},
			Check{"Base 2.0, 5.16.1.2", "a doorbell write of " + d.what + " is in the error log", func(t *T) {
				before := t.u64(t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64), 0)
				raise(t)
				e := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64)
				equal(t, "errors since", t.u64(e, 0)-before, 1)
				equal(t, "SQID", t.u16(e, 8), uint16(d.number(t)/2))
				equal(t, "CID", t.u16(e, 10), 0xffff)
			}, false})
	}
	checks = append(checks, Check{section, "a doorbell beyond the last queue raises the error event", func(t *T) {
		t.need(t.bell == nil, "doorbell that is noticed when it is written through a mapping")
		t.dirty = true
		a, b := t.ioQueues()
		off := 2 * (int(max(a, b)) + 1) * t.cap.DoorbellStride()
		cid := t.submit(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		t.ringRegister(off, 1)
		c := t.result(t.admin, cid)
		equal(t, "event", spec.AsyncResult(c.DW0), spec.NewAsyncResult(spec.AsyncError, unknown, spec.LogErrors))
	}, false})
	return append(checks, doorbellBufferChecks()...)
}

// doorbellBufferChecks are those of Doorbell Buffer Config.
func doorbellBufferChecks() (checks []Check) {
	add := func(rule string, run func(t *T, e *spec.SubmissionEntry)) {
		checks = append(checks, Check{"Base 2.0, 5.8", "Doorbell Buffer Config " + rule, func(t *T) {
			t.need(t.oacs(8), "Doorbell Buffer Config")
			t.dirty = true
			_, a := t.alloc(pageSize)
			_, b := t.alloc(pageSize)
			run(t, &spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: a, PRP2: b})
		}, false})
	}
	add("is accepted", func(t *T, e *spec.SubmissionEntry) { t.expect("it", e, spec.Success) })
	add("with an unaligned shadow buffer is refused", func(t *T, e *spec.SubmissionEntry) {
		e.PRP1 += 8
		t.expect("it", e, never(spec.InvalidField))
	})
	add("with an unaligned event index buffer is refused", func(t *T, e *spec.SubmissionEntry) {
		e.PRP2 += 4
		t.expect("it", e, never(spec.InvalidField))
	})
	add("leaves the admin queue to its registers", func(t *T, e *spec.SubmissionEntry) {
		t.must("it", t.do(t.admin, e))
		t.must("Identify", t.doIdentify(t.admin))
	})
	add("is undone by a controller reset", func(t *T, e *spec.SubmissionEntry) {
		t.must("it", t.do(t.admin, e))
		t.down(t)
		t.freshAdmin()
		q := t.newIOQueue(1, 16)
		t.must("Flush", t.do(q, &spec.SubmissionEntry{NSID: t.namespaces[0].id}))
	})
	return checks
}
