package nvmeconformance

import (
	"vfiouser/devices/nvme/spec"
)

// adminQueueChecks are those of the admin queues' attributes.
func adminQueueChecks() (checks []Check) {
	for _, size := range []struct {
		name   string
		sq, cq uint32
	}{
		{"queues of 2 entries", 2, 2},
		{"a submission queue of 2 entries and a completion queue of 64", 2, 64},
		{"a submission queue of 64 entries and a completion queue of 2", 64, 2},
		{"queues of 3 and 5 entries, no powers of two", 3, 5},
		{"queues of 256 entries (AQA 00FF00FFh)", 256, 256},
		{"queues of 4,096 entries", 4096, 4096},
	} {
		checks = append(checks, Check{"Base 2.0, 3.1.3.8", "admin " + size.name + " work, round and round", func(t *T) {
			q := t.newQueue(0, size.sq, size.cq)
			t.admin = q
			t.enable(q)
			for range 9 {
				t.must("Get Features", t.do(q, getFeature(spec.FeatNumberOfQueues, 0, 0)))
			}
		}, true})
	}
	for _, f := range []struct {
		what string
		aqa  spec.AQA
	}{{"submission queue", spec.NewAQA(0, 31)}, {"completion queue", spec.NewAQA(31, 0)}} {
		checks = append(checks, Check{"Base 2.0, 3.1.3.8", "an admin " + f.what + " of one entry does not work", func(t *T) {
			t.setAdmin(t.newQueue(0, 32, 32))
			t.write32(spec.RegAQA, uint32(f.aqa))
			t.refused(enableValue())
		}, true})
	}
	return append(checks,
		Check{"Base 2.0, 3.3.1.2.1", "a full admin completion queue holds completions back until its head moves", func(t *T) {
			q := t.newQueue(0, 32, 2)
			t.admin = q
			t.enable(q)
			first := t.place(q, getFeature(spec.FeatNumberOfQueues, 0, 0))
			second := t.place(q, getFeature(spec.FeatTemperature, 0, 0))
			t.ringTail(q)
			t.await("the first completion", func() bool { _, ok := t.peek(q); return ok })
			c, _ := t.peek(q)
			equal(t, "CID of the first completion", c.CID, first)
			t.take(q)
			if _, ok := t.peek(q); ok {
				t.errorf("a second completion although the queue is full")
			}
			t.ringHead(q)
			equal(t, "CID of the second completion", t.result(q, second).CID, second)
		}, true},
	)
}

// refused checks that CC with this value does not bring the controller up.
func (t *T) refused(cc uint32) {
	t.write32(spec.RegCC, cc)
	t.await("CSTS to tell what became of CC.EN", func() bool { return t.csts()&3 != 0 })
	equal(t, "CSTS.RDY", t.csts().RDY(), false)
	equal(t, "CSTS.CFS", t.csts().CFS(), true)
}

// freshAdmin enables the controller with new admin queues.
func (t *T) freshAdmin() {
	t.admin = t.newQueue(0, adminEntries, adminEntries)
	t.enable(t.admin)
}

// stateChecks are those of enabling, disabling and resetting.
func stateChecks() (checks []Check) {
	raw := func(section, rule string, run func(*T)) { checks = append(checks, Check{section, rule, run, true}) }
	running := func(section, rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.dirty = true; run(t) }, false})
	}
	const enable, reset = "Base 2.0, 3.5.1", "Base 2.0, 3.7.2"
	raw(enable, "CSTS.RDY follows CC.EN in both directions", func(t *T) {
		for range 3 {
			t.freshAdmin()
			equal(t, "CSTS.RDY", t.csts().RDY(), true)
			t.down(&T{rig: t.rig})
			equal(t, "CSTS", t.csts()&0xf, 0)
		}
	})
	for _, f := range []struct {
		what string
		cc   func(t *T) uint32
	}{
		{"a page size above CAP.MPSMAX", func(t *T) uint32 { return enableValue() | uint32(t.cap.MPSMax()+1)<<7 }},
		{"a reserved command set (CC.CSS 2)", func(*T) uint32 { return enableValue() | 2<<4 }},
		{"a reserved arbitration (CC.AMS 3)", func(*T) uint32 { return enableValue() | 3<<11 }},
	} {
		raw("Base 2.0, 3.1.3.5", "the controller does not come up with "+f.what, func(t *T) {
			t.setAdmin(t.newQueue(0, adminEntries, adminEntries))
			t.refused(f.cc(t))
		})
	}
	for _, f := range []struct {
		what  string
		has   func(c spec.Cap) bool
		value uint32
	}{
		{"all command sets (CC.CSS 6)", func(c spec.Cap) bool { return c&spec.CapCSSAll != 0 }, 6 << 4},
		{"admin commands only (CC.CSS 7)", func(c spec.Cap) bool { return c&spec.CapCSSNone != 0 }, 7 << 4},
		{"weighted round robin (CC.AMS 1)", func(c spec.Cap) bool { return c>>17&1 != 0 }, 1 << 11},
	} {
		raw("Base 2.0, 3.1.3.5", f.what+": the controller comes up if CAP announces it, and only then", func(t *T) {
			q := t.newQueue(0, adminEntries, adminEntries)
			t.setAdmin(q)
			if !f.has(t.cap) {
				t.refused(enableValue() | f.value)
				return
			}
			t.write32(spec.RegCC, enableValue()|f.value)
			t.await("CSTS.RDY", func() bool { return t.csts()&3 != 0 })
			equal(t, "CSTS", t.csts(), spec.CSTSReady)
			t.must("Identify", t.doIdentify(q))
		})
	}
	raw("Base 2.0, 3.1.3.6", "a reset clears CSTS.CFS, and the controller can be enabled", func(t *T) {
		t.setAdmin(t.newQueue(0, adminEntries, adminEntries))
		t.refused(enableValue() | 2<<4)
		t.down(t)
		t.freshAdmin()
		t.must("Identify", t.doIdentify(t.admin))
	})
	raw(enable, "CC.IOSQES and CC.IOCQES may be set after the controller is ready", func(t *T) {
		t.admin = t.newQueue(0, adminEntries, adminEntries)
		t.setAdmin(t.admin)
		t.write32(spec.RegCC, 1)
		t.await("CSTS.RDY", func() bool { return t.csts().RDY() })
		t.write32(spec.RegCC, enableValue())
		t.newIOQueue(1, ioEntries)
	})
	running(enable, "to write CC again with CC.EN set changes nothing", func(t *T) {
		t.write32(spec.RegCC, enableValue())
		t.must("Identify", t.doIdentify(t.admin))
		t.must("Flush", t.do(t.io, &spec.SubmissionEntry{NSID: t.namespaces[0].id}))
	})
	raw(enable, "doorbells of a disabled controller do nothing", func(t *T) {
		q := t.newQueue(0, adminEntries, adminEntries)
		t.setAdmin(q)
		t.place(q, identifyCommand(1, 0))
		t.write32(spec.RegDoorbells, 1)
		t.admin = t.newQueue(0, adminEntries, adminEntries)
		t.enable(t.admin)
		t.fence()
		_, ok := t.peek(q)
		equal(t, "a completion in the queue of before", ok, false)
	})
	running(reset, "AQA, ASQ and ACQ survive a controller reset", func(t *T) {
		before := t.readBytes(spec.RegAQA, spec.RegCMBLOC-spec.RegAQA)
		t.down(t)
		after := t.readBytes(spec.RegAQA, spec.RegCMBLOC-spec.RegAQA)
		equal(t, "AQA, ASQ and ACQ", string(after), string(before))
	})
	running(reset, "a controller reset deletes the I/O queues", func(t *T) {
		t.down(t)
		t.freshAdmin()
		t.expect("Delete I/O Submission Queue", deleteSQ(1), never(spec.InvalidQueueID))
		t.expect("Delete I/O Completion Queue", deleteCQ(1), never(spec.InvalidQueueID))
	})
	running(reset, "after a controller reset the queues begin at 0", func(t *T) {
		t.down(t)
		t.freshAdmin()
		c := t.must("Identify", t.doIdentify(t.admin))
		equal(t, "SQ Head Pointer", c.SQHead, 1)
		equal(t, "Phase Tag", c.Phase, true)
	})
	running(reset, "a controller reset forgets Asynchronous Event Requests", func(t *T) {
		limit := int(t.identity[259]) + 1
		for range limit {
			t.submit(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		}
		t.down(t)
		t.freshAdmin()
		for range limit {
			t.submit(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		}
		t.fence()
		equal(t, "completed requests", len(t.admin.early), 0)
	})
	running(reset, "a controller reset brings features back to their defaults", func(t *T) {
		t.must("Set Features", t.do(t.admin, setFeature(spec.FeatAsyncEvents, 0, 0x1f)))
		want := t.must("Get Features", t.do(t.admin, getFeature(spec.FeatAsyncEvents, 1, 0))).DW0
		t.down(t)
		t.freshAdmin()
		got := t.must("Get Features", t.do(t.admin, getFeature(spec.FeatAsyncEvents, 0, 0))).DW0
		equal(t, "asynchronous event configuration", got, want)
	})
	running(reset, "a reset with commands under way ends, and the controller comes back", func(t *T) {
		t.needNamespace()
		for range 32 {
			cmd := t.blocksCommand(spec.NVMWrite, 0, 8)
			t.with(cmd, 8*t.ns.blockSize)
			t.place(t.io, cmd)
		}
		t.ringTail(t.io)
		t.down(t)
		t.dirty = true
		t.up(t)
		t.write(0, 1, 1)
	})
	raw(reset, "to clear CC.EN before CSTS.RDY is set ends with CSTS.RDY 0", func(t *T) {
		t.setAdmin(t.newQueue(0, adminEntries, adminEntries))
		for range 5 {
			t.write32(spec.RegCC, enableValue())
			t.write32(spec.RegCC, 0)
		}
		t.await("CSTS.RDY to be 0", func() bool { return !t.csts().RDY() })
		t.freshAdmin()
		t.must("Identify", t.doIdentify(t.admin))
	})
	running("vfio-user, VFIO_USER_DEVICE_RESET", "a function reset disables a running controller", func(t *T) {
		t.functionReset()
		equal(t, "CC", t.read32(spec.RegCC), 0)
		t.await("CSTS to be 0", func() bool { return t.csts()&^spec.CSTSNSSRO == 0 })
	})
	return append(checks, subsystemResetChecks()...)
}

func (t *T) doIdentify(q *queue) completion {
	cmd := identifyCommand(1, 0)
	t.with(cmd, 4096)
	return t.do(q, cmd)
}

// subsystemResetChecks are those of NSSR.
func subsystemResetChecks() (checks []Check) {
	const section = "Base 2.0, 3.7.1"
	running := func(rule string, has bool, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			if (t.cap&spec.CapNSSRS != 0) != has {
				t.skipf("CAP.NSSRS is %v", !has)
			}
			t.dirty = true
			run(t)
		}, false})
	}
	running("without CAP.NSSRS a write to NSSR does nothing", false, func(t *T) {
		t.write32(spec.RegNSSR, spec.NSSRReset)
		equal(t, "CSTS", t.csts(), spec.CSTSReady)
	})
	reset := func(t *T) {
		t.write32(spec.RegNSSR, spec.NSSRReset)
		t.await("the reset", func() bool { return t.csts() == spec.CSTSNSSRO })
	}
	running("\"NVMe\" written to NSSR disables the controller and sets CSTS.NSSRO", true, func(t *T) {
		reset(t)
		equal(t, "CC", t.read32(spec.RegCC), 0)
	})
	running("any other value written to NSSR does nothing", true, func(t *T) {
		for _, v := range []uint32{0, 1, 0x4e564d66, 0x654d564e} {
			t.write32(spec.RegNSSR, v)
		}
		equal(t, "CSTS but for NSSRO", t.csts()&^spec.CSTSNSSRO, spec.CSTSReady)
	})
	running("AQA, ASQ and ACQ do not survive a subsystem reset", true, func(t *T) {
		reset(t)
		b := t.readBytes(spec.RegAQA, spec.RegCMBLOC-spec.RegAQA)
		t.zero("from AQA to ACQ", b, 0, len(b))
	})
	running("CSTS.NSSRO stays over a controller reset", true, func(t *T) {
		reset(t)
		t.freshAdmin()
		t.down(t)
		equal(t, "CSTS", t.csts(), spec.CSTSNSSRO)
	})
	running("CSTS.NSSRO is cleared by writing 1, and by nothing else", true, func(t *T) {
		reset(t)
		t.write32(spec.RegCSTS, 0)
		equal(t, "CSTS", t.csts(), spec.CSTSNSSRO)
		t.write32(spec.RegCSTS, uint32(spec.CSTSNSSRO))
		equal(t, "CSTS", t.csts(), 0)
	})
	running("the controller comes up after a subsystem reset, without its I/O queues", true, func(t *T) {
		reset(t)
		t.freshAdmin()
		t.expect("Delete I/O Submission Queue", deleteSQ(1), never(spec.InvalidQueueID))
	})
	running("data written before a subsystem reset are there after it", true, func(t *T) {
		t.needNamespace()
		want := t.write(8, 4, 0x5a)
		t.must("Flush", t.do(t.io, &spec.SubmissionEntry{NSID: t.ns.id}))
		reset(t)
		t.up(t)
		equal(t, "data", string(t.read(8, 4)) == string(want), true)
	})
	return checks
}

// shutdownChecks are those of CC.SHN.
func shutdownChecks() (checks []Check) {
	const section = "Base 2.0, 3.6.1"
	add := func(rule string, run func(*T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.dirty = true; run(t) }, false})
	}
	shutdown := func(t *T, shn uint8) {
		t.write32(spec.RegCC, uint32(spec.CC(enableValue()).WithSHN(shn)))
		t.await("CSTS.SHST to say that the shutdown is complete", func() bool { return t.csts().SHST() == spec.ShutComplete })
	}
	for _, kind := range []struct {
		name string
		shn  uint8
	}{{"a normal", spec.ShutdownNormal}, {"an abrupt", spec.ShutdownAbrupt}} {
		add(kind.name+" shutdown completes", func(t *T) { shutdown(t, kind.shn) })
		add("CSTS.RDY stays set after "+kind.name+" shutdown", func(t *T) {
			shutdown(t, kind.shn)
			equal(t, "CSTS.RDY", t.csts().RDY(), true)
			equal(t, "CSTS.CFS", t.csts().CFS(), false)
		})
		add("a controller reset after "+kind.name+" shutdown clears CSTS.SHST", func(t *T) {
			shutdown(t, kind.shn)
			t.down(t)
			equal(t, "CSTS but for NSSRO", t.csts()&^spec.CSTSNSSRO, 0)
		})
		add("the controller can be used again after "+kind.name+" shutdown and a reset", func(t *T) {
			shutdown(t, kind.shn)
			t.up(t)
			t.fence()
		})
		add("what was written and flushed is there after "+kind.name+" shutdown", func(t *T) {
			t.needNamespace()
			want := t.write(16, 2, 0x77)
			t.must("Flush", t.do(t.io, &spec.SubmissionEntry{NSID: t.ns.id}))
			shutdown(t, kind.shn)
			t.up(t)
			equal(t, "the same data", string(t.read(16, 2)) == string(want), true)
		})
	}
	add("what was written, not flushed, is there after a normal shutdown", func(t *T) {
		t.needNamespace()
		want := t.write(24, 2, 0x78)
		shutdown(t, spec.ShutdownNormal)
		t.up(t)
		equal(t, "the same data", string(t.read(24, 2)) == string(want), true)
	})
	add("CC.SHN written as 0 afterwards changes nothing", func(t *T) {
		shutdown(t, spec.ShutdownNormal)
		t.write32(spec.RegCC, enableValue())
		equal(t, "CSTS.SHST", t.csts().SHST(), spec.ShutComplete)
	})
	add("a shutdown with an Asynchronous Event Request outstanding completes", func(t *T) {
		t.submit(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		shutdown(t, spec.ShutdownNormal)
	})
	add("a disabled controller that is shut down says so", func(t *T) {
		t.down(t)
		t.write32(spec.RegCC, uint32(spec.CC(0).WithSHN(spec.ShutdownNormal)))
		t.await("CSTS.SHST", func() bool { return t.csts().SHST() == spec.ShutComplete })
		equal(t, "CSTS.RDY", t.csts().RDY(), false)
	})
	return checks
}
