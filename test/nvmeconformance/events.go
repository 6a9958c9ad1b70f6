package nvmeconformance

import (
	"vfiouser/devices/nvme/spec"
)

var asyncRequest = spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}

// pending says whether a request still waits, after everything that was to happen has.
func (t *T) pending(cid uint16) bool {
	t.fence()
	_, done := t.arrived(t.admin, cid)
	return !done
}

// heat makes the temperature event happen: the threshold falls below the temperature.
func (t *T) heat() {
	t.dirty = true
	t.must("Set Features", t.do(t.admin, setFeature(spec.FeatTemperature, 0, 1)))
}

func (t *T) cool() {
	t.must("Set Features", t.do(t.admin, setFeature(spec.FeatTemperature, 0, 0xffff)))
}

func (t *T) enableEvents(bits uint32) {
	t.must("Set Features", t.do(t.admin, setFeature(spec.FeatAsyncEvents, 0, bits)))
}

var temperatureEvent = spec.NewAsyncResult(spec.AsyncHealth, spec.AsyncTemperature, spec.LogSmart)

// eventChecks are those of Asynchronous Event Request.
func eventChecks() (checks []Check) {
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"Base 2.0, 5.2", rule, func(t *T) { t.dirty = true; run(t) }, false})
	}
	add("AERL + 1 requests wait", func(t *T) {
		for range int(t.identity[259]) + 1 {
			t.submit(t.admin, &asyncRequest)
		}
		t.fence()
		equal(t, "completions", len(t.admin.early), 0)
	})
	add("one request more than AERL + 1: Asynchronous Event Request Limit Exceeded", func(t *T) {
		for range int(t.identity[259]) + 1 {
			t.submit(t.admin, &asyncRequest)
		}
		equal(t, "status", t.do(t.admin, &asyncRequest).Status.Code(), spec.AsyncEventLimitExceeded)
	})
	add("a temperature above the threshold raises the SMART event", func(t *T) {
		cid := t.submit(t.admin, &asyncRequest)
		t.enableEvents(0x1f)
		t.heat()
		equal(t, "event", spec.AsyncResult(t.result(t.admin, cid).DW0), temperatureEvent)
	})
	add("a temperature below the under threshold raises the SMART event", func(t *T) {
		cid := t.submit(t.admin, &asyncRequest)
		t.enableEvents(0x1f)
		t.must("Set Features", t.do(t.admin, setFeature(spec.FeatTemperature, 0, 1<<20|0xfffe)))
		equal(t, "event", spec.AsyncResult(t.result(t.admin, cid).DW0), temperatureEvent)
	})
	add("an event that the configuration does not ask for does not come", func(t *T) {
		cid := t.submit(t.admin, &asyncRequest)
		t.enableEvents(0x1d) // all but the temperature
		t.heat()
		equal(t, "pending", t.pending(cid), true)
	})
	add("an event waits for a request", func(t *T) {
		t.enableEvents(2)
		t.heat()
		t.fence()
		equal(t, "event", spec.AsyncResult(t.do(t.admin, &asyncRequest).DW0), temperatureEvent)
	})
	add("an event is reported by one request only", func(t *T) {
		first, second := t.submit(t.admin, &asyncRequest), t.submit(t.admin, &asyncRequest)
		t.enableEvents(2)
		t.heat()
		t.await("the event", func() bool {
			_, a := t.arrived(t.admin, first)
			return a
		})
		equal(t, "pending", t.pending(second), true)
	})
	add("events of a type that was reported are masked until its log is read", func(t *T) {
		t.enableEvents(2)
		t.heat()
		t.must("Asynchronous Event Request", t.do(t.admin, &asyncRequest))
		cid := t.submit(t.admin, &asyncRequest)
		t.cool()
		t.heat()
		equal(t, "pending", t.pending(cid), true)
		t.cool()
		t.log(spec.LogSmart, spec.BroadcastNSID, 0, 512)
		t.heat()
		equal(t, "event", spec.AsyncResult(t.result(t.admin, cid).DW0), temperatureEvent)
	})
	add("a log read with RAE leaves the event masked", func(t *T) {
		t.enableEvents(2)
		t.heat()
		t.must("Asynchronous Event Request", t.do(t.admin, &asyncRequest))
		cid := t.submit(t.admin, &asyncRequest)
		cmd := logCommand(spec.LogSmart, spec.BroadcastNSID, 0, 512)
		cmd.CDW10 |= 1 << 15
		t.with(cmd, 512)
		t.must("Get Log Page", t.do(t.admin, cmd))
		t.cool()
		t.heat()
		equal(t, "pending", t.pending(cid), true)
	})
	add("another log read leaves the event masked", func(t *T) {
		t.enableEvents(2)
		t.heat()
		t.must("Asynchronous Event Request", t.do(t.admin, &asyncRequest))
		cid := t.submit(t.admin, &asyncRequest)
		t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64)
		t.cool()
		t.heat()
		equal(t, "pending", t.pending(cid), true)
	})
	add("events of one type do not mask those of another", func(t *T) {
		t.need(t.bell == nil, "doorbell that is noticed when it is written through a mapping")
		t.enableEvents(2)
		t.heat()
		t.must("Asynchronous Event Request", t.do(t.admin, &asyncRequest))
		cid := t.submit(t.admin, &asyncRequest)
		t.ringRegister(2*spare*t.cap.DoorbellStride(), 1)
		equal(t, "type", spec.AsyncResult(t.result(t.admin, cid).DW0).Type(), uint8(spec.AsyncError))
	})
	add("the SMART log shows the critical warning while the temperature is beyond a threshold", func(t *T) {
		t.heat()
		equal(t, "critical warning bit 1", t.log(spec.LogSmart, spec.BroadcastNSID, 0, 512)[0]>>1&1, 1)
		t.cool()
		equal(t, "critical warning bit 1", t.log(spec.LogSmart, spec.BroadcastNSID, 0, 512)[0]>>1&1, 0)
	})
	add("reserved bits of the result are 0", func(t *T) {
		t.enableEvents(2)
		t.heat()
		c := t.must("Asynchronous Event Request", t.do(t.admin, &asyncRequest))
		equal(t, "bits 7:3 and 31:24", c.DW0&0xff0000f8, 0)
	})
	return checks
}

// adminChecks are those of Abort and Keep Alive.
func adminChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) {
		checks = append(checks, Check{section, rule, func(t *T) { t.dirty = true; run(t) }, false})
	}
	abort := func(sqid, cid uint16) *spec.SubmissionEntry {
		return &spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: uint32(sqid) | uint32(cid)<<16}
	}
	const section = "Base 2.0, 5.1"
	add(section, "Abort of an Asynchronous Event Request: it completes with Command Abort Requested", func(t *T) {
		cid := t.submit(t.admin, &asyncRequest)
		t.fence()
		c := t.expect("Abort", abort(0, cid), spec.Success)
		equal(t, "not aborted", c.DW0&1, 0)
		equal(t, "status", t.result(t.admin, cid).Status.Code(), spec.AbortRequested)
	})
	add(section, "an aborted Asynchronous Event Request is in the error log, and has the More bit", func(t *T) {
		cid := t.submit(t.admin, &asyncRequest)
		t.fence()
		t.must("Abort", t.do(t.admin, abort(0, cid)))
		c := t.result(t.admin, cid)
		equal(t, "More", c.Status.More(), true)
		e := t.log(spec.LogErrors, spec.BroadcastNSID, 0, 64)
		equal(t, "CID", t.u16(e, 10), cid)
		equal(t, "status", spec.Status(t.u16(e, 12)>>1), c.Status)
	})
	add(section, "an aborted Asynchronous Event Request makes room for another one", func(t *T) {
		var cid uint16
		for range int(t.identity[259]) + 1 {
			cid = t.submit(t.admin, &asyncRequest)
		}
		t.fence()
		t.must("Abort", t.do(t.admin, abort(0, cid)))
		t.result(t.admin, cid)
		equal(t, "pending", t.pending(t.submit(t.admin, &asyncRequest)), true)
	})
	for _, f := range []struct {
		what      string
		sqid, cid uint16
	}{{"an admin command that is not under way", 0, 0x7abc}, {"an I/O command that is not under way", 1, 0x7abc}} {
		add(section, "Abort of "+f.what+" succeeds and says that it was not aborted", func(t *T) {
			c := t.expect("Abort", abort(f.sqid, f.cid), spec.Success)
			equal(t, "bit 0", c.DW0&1, 1)
		})
	}
	add(section, "Abort of a command of a queue that does not exist aborts nothing", func(t *T) {
		c := t.do(t.admin, abort(0x1234, 1))
		if c.Status.OK() {
			equal(t, "bit 0", c.DW0&1, 1)
		} else {
			t.status("Abort", c, never(spec.InvalidField))
		}
	})
	add(section, "reserved bits of the result are 0", func(t *T) {
		equal(t, "bits 31:1", t.must("Abort", t.do(t.admin, abort(1, 0x7abc))).DW0>>1, 0)
	})
	const keepAlive = "Base 2.0, 5.18"
	add(keepAlive, "Keep Alive is accepted if KAS announces it, else Invalid Command Opcode", func(t *T) {
		t.announced(t.u16(t.identity, 320) != 0, t.do(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminKeepAlive}))
	})
	add(keepAlive, "the Keep Alive Timer is off by default", func(t *T) {
		t.need(t.u16(t.identity, 320) != 0, "Keep Alive")
		equal(t, "KATO", t.must("Get Features", t.do(t.admin, getFeature(featureKeepAlive, 0, 0))).DW0, 0)
	})
	add(keepAlive, "the Keep Alive Timer keeps at least what was set", func(t *T) {
		t.need(t.u16(t.identity, 320) != 0, "Keep Alive")
		t.must("Set Features", t.do(t.admin, setFeature(featureKeepAlive, 0, 120000)))
		if v := t.must("Get Features", t.do(t.admin, getFeature(featureKeepAlive, 0, 0))).DW0; v < 120000 {
			t.errorf("KATO is %d", v)
		}
		t.must("Keep Alive", t.do(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminKeepAlive}))
		t.must("Set Features", t.do(t.admin, setFeature(featureKeepAlive, 0, 0)))
	})
	return checks
}
