package nvmeconformance

import (
	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// spare is a queue identifier that up leaves free.
const spare = 2

// ioQueues is how many I/O queues of the two kinds there can be.
func (t *T) ioQueues() (sq, cq uint16) {
	v := t.must("Get Features", t.do(t.admin, getFeature(spec.FeatNumberOfQueues, 0, 0))).DW0
	return uint16(v) + 1, uint16(v>>16) + 1
}

func (t *T) needSpare() {
	sq, cq := t.ioQueues()
	t.need(min(sq, cq) >= spare, "second I/O queue")
}

// beyond is the largest queue size plus one, 0 if the field cannot hold it.
func (t *T) beyond() uint32 { return (uint32(t.cap.MQES()) + 2) & 0x1ffff }

// vectors is how many MSI-X vectors there are.
func (t *T) vectors() uint32 {
	info, err := t.dev.IRQInfo(t.ctx, client.IRQMSIX)
	if err != nil {
		t.fatalf("%v", err)
	}
	return info.Count
}

func createQueueChecks() (checks []Check) {
	add := func(section, rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.needSpare(); run(t) }, false})
	}
	const cq, sq = "Base 2.0, 5.4", "Base 2.0, 5.5"
	type create func(id uint16, size uint32, at uint64, flags uint32) *spec.SubmissionEntry
	for _, k := range []struct {
		section, name string
		create        create
		exponent      int // of the entry size in CC
	}{
		{cq, "Create I/O Completion Queue", createCQ, 20},
		{sq, "Create I/O Submission Queue", func(id uint16, size uint32, at uint64, flags uint32) *spec.SubmissionEntry {
			return createSQ(id, size, at, flags, 1)
		}, 16},
	} {
		refuse := func(rule string, want spec.Status, make func(t *T, at uint64) *spec.SubmissionEntry) {
			add(k.section, k.name+" with "+rule+": "+describe(want), func(t *T) {
				_, at := t.alloc(2 * pageSize)
				t.expect("the command", make(t, at), never(want))
			})
		}
		refuse("queue identifier 0", spec.InvalidQueueID, func(_ *T, at uint64) *spec.SubmissionEntry {
			return k.create(0, 16, at, contiguous)
		})
		refuse("an identifier beyond the number of queues", spec.InvalidQueueID, func(t *T, at uint64) *spec.SubmissionEntry {
			nsq, ncq := t.ioQueues()
			return k.create(max(nsq, ncq)+1, 16, at, contiguous)
		})
		refuse("identifier FFFFh", spec.InvalidQueueID, func(_ *T, at uint64) *spec.SubmissionEntry {
			return k.create(0xffff, 16, at, contiguous)
		})
		refuse("the identifier of a queue that exists", spec.InvalidQueueID, func(_ *T, at uint64) *spec.SubmissionEntry {
			return k.create(1, 16, at, contiguous)
		})
		refuse("a size of one entry (QSIZE 0)", spec.InvalidQueueSize, func(_ *T, at uint64) *spec.SubmissionEntry {
			return k.create(spare, 1, at, contiguous)
		})
		refuse("more entries than CAP.MQES allows", spec.InvalidQueueSize, func(t *T, at uint64) *spec.SubmissionEntry {
			t.need(t.beyond() <= 0x10000, "size beyond CAP.MQES")
			return k.create(spare, t.beyond(), at, contiguous)
		})
		refuse("an address that is no multiple of the page size", spec.InvalidPRPOffset, func(_ *T, at uint64) *spec.SubmissionEntry {
			return k.create(spare, 16, at+0x200, contiguous)
		})
		refuse("PC 0 although CAP.CQR is set", spec.InvalidField, func(t *T, at uint64) *spec.SubmissionEntry {
			t.need(t.cap&spec.CapCQR != 0, "CAP.CQR")
			return k.create(spare, 16, at, 0)
		})
		refuse("an entry size of 0 in CC", spec.InvalidQueueSize, func(t *T, at uint64) *spec.SubmissionEntry {
			t.dirty = true
			t.write32(spec.RegCC, enableValue()&^(0xf<<k.exponent))
			return k.create(spare, 16, at, contiguous)
		})
		refuse("an SGL", spec.InvalidField, func(_ *T, at uint64) *spec.SubmissionEntry {
			e := k.create(spare, 16, at, contiguous)
			e.Flags = 1 << 6
			return e
		})
		add(k.section, k.name+" after a refusal of the same identifier succeeds", func(t *T) {
			_, at := t.alloc(2 * pageSize)
			t.do(t.admin, createCQ(spare, 1, at, contiguous))
			t.do(t.admin, createSQ(spare, 1, at, contiguous, 1))
			t.newIOQueue(spare, 16)
		})
		add(k.section, k.name+" leaves nothing in dword 0 of its completion", func(t *T) {
			_, at := t.alloc(pageSize)
			c := t.expect("the command", k.create(spare, 16, at, contiguous), spec.Success)
			equal(t, "dword 0", c.DW0, 0)
		})
		for _, size := range []uint32{2, 3, 255} {
			add(k.section, k.name+" with "+count(size), func(t *T) {
				t.need(size <= uint32(t.cap.MQES())+1, "queue of that size (CAP.MQES)")
				_, at := t.alloc(int(size) * 64)
				t.expect("the command", k.create(spare, size, at, contiguous), spec.Success)
			})
		}
		add(k.section, k.name+" with as many entries as CAP.MQES allows", func(t *T) {
			size := uint32(t.cap.MQES()) + 1
			_, at := t.alloc(int(size) * 64)
			t.expect("the command", k.create(spare, size, at, contiguous), spec.Success)
		})
	}
	add(cq, "Create I/O Completion Queue with a vector that does not exist: "+describe(spec.InvalidInterruptVector), func(t *T) {
		_, at := t.alloc(pageSize)
		t.expect("the command", createCQ(spare, 16, at, contiguous|interruptEnabled|t.vectors()<<16), never(spec.InvalidInterruptVector))
	})
	add(cq, "Create I/O Completion Queue with the last vector that there is", func(t *T) {
		_, at := t.alloc(pageSize)
		t.expect("the command", createCQ(spare, 16, at, contiguous|interruptEnabled|(t.vectors()-1)<<16), spec.Success)
	})
	for _, f := range []struct {
		what string
		cq   func(t *T) uint16
		want spec.Status
	}{
		{"completion queue 0", func(*T) uint16 { return 0 }, spec.InvalidQueueID},
		{"a completion queue beyond the number of queues", func(t *T) uint16 { _, n := t.ioQueues(); return n + 1 }, spec.InvalidQueueID},
		{"a completion queue that does not exist", func(*T) uint16 { return spare }, spec.CompletionQueueInvalid},
	} {
		add(sq, "Create I/O Submission Queue with "+f.what+": "+describe(f.want), func(t *T) {
			_, at := t.alloc(pageSize)
			t.expect("the command", createSQ(spare, 16, at, contiguous, f.cq(t)), never(f.want))
		})
	}
	for priority, name := range []string{"urgent", "high", "medium", "low"} {
		add(sq, "Create I/O Submission Queue takes the "+name+" priority", func(t *T) {
			_, at := t.alloc(pageSize)
			t.expect("the command", createSQ(spare, 16, at, contiguous|uint32(priority)<<1, 1), spec.Success)
		})
	}
	return checks
}

func count(n uint32) string {
	return map[uint32]string{2: "2 entries", 3: "3 entries, no power of two", 255: "255 entries"}[n]
}

func deleteQueueChecks() (checks []Check) {
	add := func(section, rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.needSpare(); run(t) }, false})
	}
	const cq, sq = "Base 2.0, 5.6", "Base 2.0, 5.7"
	for _, k := range []struct {
		section, name string
		remove        func(uint16) *spec.SubmissionEntry
	}{{cq, "Delete I/O Completion Queue", deleteCQ}, {sq, "Delete I/O Submission Queue", deleteSQ}} {
		for _, f := range []struct {
			what string
			id   func(t *T) uint16
		}{
			{"identifier 0", func(*T) uint16 { return 0 }},
			{"a queue that does not exist", func(*T) uint16 { return spare }},
			{"an identifier beyond the number of queues", func(t *T) uint16 { a, b := t.ioQueues(); return max(a, b) + 1 }},
			{"identifier FFFFh", func(*T) uint16 { return 0xffff }},
		} {
			add(k.section, k.name+" of "+f.what+": "+describe(spec.InvalidQueueID), func(t *T) {
				t.expect("the command", k.remove(f.id(t)), never(spec.InvalidQueueID))
			})
		}
		add(k.section, k.name+" a second time: "+describe(spec.InvalidQueueID), func(t *T) {
			t.newIOQueue(spare, 16)
			t.must("the first deletion", t.do(t.admin, deleteSQ(spare)))
			t.must("the first deletion", t.do(t.admin, deleteCQ(spare)))
			t.expect("the second deletion", k.remove(spare), never(spec.InvalidQueueID))
		})
	}
	add(cq, "Delete I/O Completion Queue with a submission queue on it: "+describe(spec.InvalidQueueDeletion), func(t *T) {
		t.expect("the command", deleteCQ(1), never(spec.InvalidQueueDeletion))
		t.must("Flush", t.do(t.io, &spec.SubmissionEntry{NSID: t.namespaces[0].id}))
	})
	add(cq, "a completion queue can be deleted when the last of its submission queues is gone", func(t *T) {
		t.newIOQueue(spare, 16)
		_, at := t.alloc(pageSize)
		a, _ := t.ioQueues()
		t.need(a >= spare+1, "third I/O queue")
		t.must("Create I/O Submission Queue", t.do(t.admin, createSQ(spare+1, 16, at, contiguous, spare)))
		t.must("Delete I/O Submission Queue", t.do(t.admin, deleteSQ(spare)))
		t.expect("deletion with one left", deleteCQ(spare), never(spec.InvalidQueueDeletion))
		t.must("Delete I/O Submission Queue", t.do(t.admin, deleteSQ(spare+1)))
		t.expect("deletion with none left", deleteCQ(spare), spec.Success)
	})
	add(sq, "a queue can be created again, with another size, and works", func(t *T) {
		t.newIOQueue(spare, 16)
		t.must("Delete I/O Submission Queue", t.do(t.admin, deleteSQ(spare)))
		t.must("Delete I/O Completion Queue", t.do(t.admin, deleteCQ(spare)))
		q := t.newIOQueue(spare, 5)
		for range 12 {
			t.must("Flush", t.do(q, &spec.SubmissionEntry{NSID: t.namespaces[0].id}))
		}
	})
	add(sq, "commands that were fetched complete before the deletion does", func(t *T) {
		t.needNamespace()
		q := t.newIOQueue(spare, 32)
		for range 20 {
			cmd := t.blocksCommand(spec.NVMRead, 0, 1)
			t.with(cmd, t.ns.blockSize)
			t.place(q, cmd)
		}
		t.ringTail(q)
		t.must("Delete I/O Submission Queue", t.do(t.admin, deleteSQ(spare)))
		for c, ok := t.peek(q); ok; c, ok = t.peek(q) {
			if !c.Status.OK() && c.Status.Code() != spec.AbortSQDeletion {
				t.errorf("command %d completes with %s", c.CID, describe(c.Status))
			}
			t.take(q)
		}
		t.fence()
		_, late := t.peek(q)
		equal(t, "a completion after the deletion", late, false)
	})
	return checks
}

// queueChecks are those of how queues work.
func queueChecks() (checks []Check) {
	add := func(section, rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.needSpare(); run(t) }, false})
	}
	const cqe, sqe, rings = "Base 2.0, 3.3.3.2", "Base 2.0, 3.3.3.1", "Base 2.0, 3.3.1.2"
	flush := func(t *T) *spec.SubmissionEntry { return &spec.SubmissionEntry{NSID: t.namespaces[0].id} }
	add(cqe, "a completion names its command and its submission queue", func(t *T) {
		q := t.newIOQueue(spare, 16)
		cid := t.submit(q, flush(t))
		c := t.result(q, cid)
		equal(t, "SQID", c.SQID, spare)
		equal(t, "CID", c.CID, cid)
	})
	add(cqe, "SQ Head Pointer moves with the commands, and wraps", func(t *T) {
		q := t.newIOQueue(spare, 4)
		for i := range 10 {
			c := t.result(q, t.submit(q, flush(t)))
			equal(t, "SQ Head Pointer", c.SQHead, uint16((i+1)%4))
		}
	})
	add(cqe, "the phase tag is inverted in each round", func(t *T) {
		q := t.newIOQueue(spare, 3)
		for i := range 12 {
			c := t.result(q, t.submit(q, flush(t)))
			equal(t, "Phase Tag", c.Phase, i/3%2 == 0)
		}
	})
	add(cqe, "reserved dword 1 of a completion is 0", func(t *T) {
		equal(t, "dword 1 of an admin command", t.doIdentify(t.admin).DW1, 0)
		equal(t, "dword 1 of an I/O command", t.do(t.io, flush(t)).DW1, 0)
	})
	add(cqe, "Command Retry Delay is 0 where no delays were enabled", func(t *T) {
		c := t.do(t.io, &spec.SubmissionEntry{Opcode: spec.NVMRead, NSID: t.inactive()})
		equal(t, "CRD", c.Status.CRD(), 0)
	})
	add(sqe, "any command identifier comes back, FFFFh too", func(t *T) {
		for _, cid := range []uint16{0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff} {
			t.placeAs(t.io, flush(t), cid)
			t.ringTail(t.io)
			equal(t, "CID", t.result(t.io, cid).CID, cid)
		}
	})
	add(rings, "a full submission queue is worked off by one doorbell", func(t *T) {
		q := t.newIOQueue(spare, 16)
		seen := map[uint16]bool{}
		for range 15 {
			t.place(q, flush(t))
		}
		t.ringTail(q)
		for range 15 {
			c := t.next(q)
			equal(t, "a second completion", seen[c.CID], false)
			seen[c.CID] = true
		}
		_, more := t.poll(q)
		equal(t, "a completion too many", more, false)
	})
	add(rings, "queues of 2 entries work, round and round", func(t *T) {
		q := t.newIOQueue(spare, 2)
		for range 9 {
			t.must("Flush", t.do(q, flush(t)))
		}
	})
	add("Base 2.0, 3.3.1.2.1", "a full completion queue holds completions back and loses none", func(t *T) {
		q := t.newQueue(spare, 16, 3)
		t.must("Create I/O Completion Queue", t.do(t.admin, createCQ(spare, 3, q.cqAt, contiguous)))
		t.must("Create I/O Submission Queue", t.do(t.admin, createSQ(spare, 16, q.sqAt, contiguous, spare)))
		t.clearShadow(q)
		for range 9 {
			t.place(q, flush(t))
		}
		t.ringTail(q)
		t.fence()
		for range 9 {
			t.must("Flush", t.next(q))
		}
	})
	add("Base 2.0, 3.3.1", "two submission queues share a completion queue", func(t *T) {
		a, _ := t.ioQueues()
		t.need(a >= spare+1, "third I/O queue")
		q := t.newIOQueue(spare, 32)
		other := t.newQueue(spare+1, 16, 2)
		t.must("Create I/O Submission Queue", t.do(t.admin, createSQ(spare+1, 16, other.sqAt, contiguous, spare)))
		t.clearShadow(other)
		for range 10 {
			t.place(q, flush(t))
			t.place(other, flush(t))
		}
		t.ringTail(q)
		t.ringTail(other)
		n := map[uint16]int{}
		for range 20 {
			n[t.next(q).SQID]++
		}
		equal(t, "completions of the first queue", n[spare], 10)
		equal(t, "completions of the second queue", n[spare+1], 10)
	})
	add("Base 2.0, 3.3.1", "all queues that the controller has can be created and work", func(t *T) {
		a, b := t.ioQueues()
		n := min(a, b)
		t.do(t.admin, setFeature(spec.FeatNumberOfQueues, 0, uint32(n-1)|uint32(n-1)<<16))
		for id := uint16(spare); id <= n; id++ {
			q := t.newIOQueue(id, 4)
			t.must("Flush", t.do(q, flush(t)))
		}
	})
	add("Base 2.0, 3.3.1", "a queue of the largest size works past its end", func(t *T) {
		size := uint32(t.cap.MQES()) + 1
		t.need(size <= 4096, "queue size that the suite has memory for")
		q := t.newIOQueue(spare, size)
		for done := uint32(0); done < size+8; {
			n := min(256, size-1, size+8-done)
			for range n {
				t.place(q, flush(t))
			}
			t.ringTail(q)
			for range n {
				t.must("Flush", t.next(q))
			}
			done += n
		}
	})
	add("Base 2.0, 3.3.1", "queues hold commands while the controller works on another one", func(t *T) {
		q := t.newIOQueue(spare, 16)
		first, second := t.place(q, flush(t)), t.place(t.io, flush(t))
		t.ringTail(t.io)
		t.ringTail(q)
		t.must("Flush on the first queue", t.result(t.io, second))
		t.must("Flush on the second queue", t.result(q, first))
	})
	return checks
}

// next waits for any completion of a queue.
func (t *T) next(q *queue) (c completion) {
	t.await("a completion", func() bool {
		var ok bool
		c, ok = t.poll(q)
		return ok
	})
	return c
}
