package nvmeconformance

import (
	"encoding/binary"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// hostID is the extended host identifier that the suite has.
const hostID = "vfiouser-conform"

const reservationConflict spec.Status = 0x83

// reservation issues reservation commands of the namespace under test.
type reservation struct{ t *T }

func (r reservation) run(opcode uint8, cdw10 uint32, keys ...uint64) completion {
	t := r.t
	cmd := &spec.SubmissionEntry{Opcode: opcode, NSID: t.ns.id, CDW10: cdw10}
	data := t.with(cmd, 16)
	for i, k := range keys {
		binary.LittleEndian.PutUint64(data[8*i:], k)
	}
	return t.do(t.io, cmd)
}

// register has the action in bits 2:0: 0 register, 1 unregister, 2 replace.
func (r reservation) register(cdw10 uint32, current, next uint64) completion {
	return r.run(reservationRegister, cdw10, current, next)
}

// acquire has the action (0 acquire, 1 preempt, 2 preempt and abort) and the type.
func (r reservation) acquire(action, kind uint32, current, preempt uint64) completion {
	return r.run(reservationAcquire, action|kind<<8, current, preempt)
}

// release has the action (0 release, 1 clear) and the type.
func (r reservation) release(action, kind uint32, current uint64) completion {
	return r.run(reservationRelease, action|kind<<8, current)
}

// report is the extended data structure.
func (r reservation) report() []byte {
	t := r.t
	cmd := &spec.SubmissionEntry{Opcode: reservationReport, NSID: t.ns.id, CDW10: 4096/4 - 1, CDW11: 1}
	data := t.with(cmd, 4096)
	t.must("Reservation Report", t.do(t.io, cmd))
	return append([]byte(nil), data...)
}

func (r reservation) registrants() int   { return int(binary.LittleEndian.Uint16(r.report()[5:])) }
func (r reservation) kind() uint8        { return r.report()[4] }
func (r reservation) generation() uint32 { return binary.LittleEndian.Uint32(r.report()) }
func (r reservation) registrant() []byte { return r.report()[64:128] }
func (r reservation) must(c completion)  { r.t.must("the reservation command", c) }
func (r reservation) conflict(c completion) {
	equal(r.t, "status", c.Status.Code(), reservationConflict)
}

// reservationChecks are those of reservations, as far as one host sees them.
func reservationChecks() (checks []Check) {
	const register, acquire, release, report = "Base 2.0, 7.3", "Base 2.0, 7.2", "Base 2.0, 7.5", "Base 2.0, 7.4"
	const key, other = 0x1122334455667788, 0x99aabbccddeeff00
	add := func(section, rule string, run func(t *T, r reservation)) {
		checks = append(checks, Check{section, rule, func(t *T) {
			t.needNamespace()
			t.need(t.oncs(5), "reservations")
			cmd := setFeature(featureHostIdentifier, 0, 1)
			copy(t.with(cmd, 16), hostID)
			t.must("Set Features, host identifier", t.do(t.admin, cmd))
			r := reservation{t}
			forget := func() { r.register(1|1<<3, 0, 0) } // whatever the key is, if there is one
			defer forget()
			run(t, r)
		}, false})
	}
	add(register, "a registered host is in the report, with its key", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		equal(t, "registrants", r.registrants(), 1)
		equal(t, "key", t.u64(r.registrant(), 8), key)
	})
	add(register, "a registered host is in the report, with its identifier", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		equal(t, "host identifier", string(r.registrant()[16:32]), hostID)
	})
	add(report, "the controller in the report is this one", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		equal(t, "CNTLID", t.u16(r.registrant(), 0), t.u16(t.identity, 78))
	})
	add(register, "to register again with the same key succeeds", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.register(0, 0, key))
		equal(t, "registrants", r.registrants(), 1)
	})
	add(register, "to register again with another key: Reservation Conflict", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.conflict(r.register(0, 0, other))
		equal(t, "key", t.u64(r.registrant(), 8), key)
	})
	add(register, "to unregister", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.register(1, key, 0))
		equal(t, "registrants", r.registrants(), 0)
	})
	add(register, "to unregister with another key: Reservation Conflict", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.conflict(r.register(1, other, 0))
		equal(t, "registrants", r.registrants(), 1)
	})
	add(register, "to unregister where there is no registration: Reservation Conflict", func(_ *T, r reservation) {
		r.conflict(r.register(1, key, 0))
	})
	add(register, "to replace the key", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.register(2, key, other))
		equal(t, "key", t.u64(r.registrant(), 8), other)
	})
	add(register, "to replace the key with another current one: Reservation Conflict", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.conflict(r.register(2, other, 1))
	})
	add(register, "to replace the key ignoring the current one (IEKEY)", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.register(2|1<<3, 5, other))
		equal(t, "key", t.u64(r.registrant(), 8), other)
	})
	for action := uint32(3); action < 8; action++ {
		add(register, fmt.Sprintf("the reserved action %d of Register: %s", action, describe(spec.InvalidField)), func(t *T, r reservation) {
			t.status("it", r.register(action, 0, key), never(spec.InvalidField))
		})
		add(acquire, fmt.Sprintf("the reserved action %d of Acquire: %s", action, describe(spec.InvalidField)), func(t *T, r reservation) {
			r.must(r.register(0, 0, key))
			t.status("it", r.acquire(action, 1, key, 0), never(spec.InvalidField))
		})
		add(release, fmt.Sprintf("the reserved action %d of Release: %s", action, describe(spec.InvalidField)), func(t *T, r reservation) {
			r.must(r.register(0, 0, key))
			t.status("it", r.release(action, 1, key), never(spec.InvalidField))
		})
	}
	for kind := uint32(1); kind <= 6; kind++ {
		add(acquire, fmt.Sprintf("to acquire, see in the report and release type %d, if RESCAP has it", kind), func(t *T, r reservation) {
			t.need(t.ns.data[31]>>kind&1 != 0, "this type in RESCAP")
			r.must(r.register(0, 0, key))
			r.must(r.acquire(0, kind, key, 0))
			equal(t, "type", r.kind(), uint8(kind))
			equal(t, "holder", t.u16(r.registrant(), 2)&1, 1)
			r.must(r.release(0, kind, key))
			equal(t, "type", r.kind(), 0)
			equal(t, "registrants", r.registrants(), 1)
		})
		add(acquire, fmt.Sprintf("the holder of type %d writes and reads", kind), func(t *T, r reservation) {
			t.need(t.ns.data[31]>>kind&1 != 0, "this type in RESCAP")
			r.must(r.register(0, 0, key))
			r.must(r.acquire(0, kind, key, 0))
			want := t.write(0, 1, byte(kind))
			equal(t, "the same data", string(t.read(0, 1)) == string(want), true)
		})
	}
	for _, kind := range []uint32{0, 7, 0xff} {
		add(acquire, fmt.Sprintf("to acquire the reserved type %d: %s", kind, describe(spec.InvalidField)), func(t *T, r reservation) {
			r.must(r.register(0, 0, key))
			t.status("it", r.acquire(0, kind, key, 0), never(spec.InvalidField))
		})
	}
	add(acquire, "to acquire without registration: Reservation Conflict", func(_ *T, r reservation) { r.conflict(r.acquire(0, 1, key, 0)) })
	add(acquire, "to acquire with another key: Reservation Conflict", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.conflict(r.acquire(0, 1, other, 0))
	})
	add(acquire, "to acquire what is held already, of the same type, succeeds", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		r.must(r.acquire(0, 1, key, 0))
	})
	add(acquire, "to acquire what is held already, of another type: Reservation Conflict", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		r.conflict(r.acquire(0, 2, key, 0))
	})
	add(release, "to release another type than is held: "+describe(spec.InvalidField), func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		t.status("it", r.release(0, 2, key), never(spec.InvalidField))
		equal(t, "type", r.kind(), 1)
	})
	add(release, "to release what nobody holds succeeds", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.release(0, 1, key))
	})
	add(release, "to release without registration: Reservation Conflict", func(_ *T, r reservation) { r.conflict(r.release(0, 1, key)) })
	add(release, "to release with another key: Reservation Conflict", func(_ *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		r.conflict(r.release(0, 1, other))
	})
	add(release, "to clear takes the reservation and all registrations away", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		r.must(r.release(1, 0, key))
		equal(t, "type", r.kind(), 0)
		equal(t, "registrants", r.registrants(), 0)
	})
	add(register, "to unregister releases what is held", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		r.must(r.acquire(0, 1, key, 0))
		r.must(r.register(1, key, 0))
		equal(t, "type", r.kind(), 0)
	})
	add(report, "the generation goes up with Register and Clear, not with Acquire and Release", func(t *T, r reservation) {
		g := r.generation()
		r.must(r.register(0, 0, key))
		equal(t, "after Register", r.generation(), g+1)
		r.must(r.acquire(0, 1, key, 0))
		r.must(r.release(0, 1, key))
		equal(t, "after Acquire and Release", r.generation(), g+1)
		r.must(r.release(1, 0, key))
		equal(t, "after Clear", r.generation(), g+2)
	})
	add(report, "the report of 64-bit identifiers, with one of 128 bits set: Host Identifier Inconsistent Format", func(t *T, _ reservation) {
		cmd := &spec.SubmissionEntry{Opcode: reservationReport, NSID: t.ns.id, CDW10: 1023}
		t.with(cmd, 4096)
		equal(t, "status", t.do(t.io, cmd).Status.Code(), spec.HostIDInconsistent)
	})
	add(report, "a short report is the beginning of the whole", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		cmd := &spec.SubmissionEntry{Opcode: reservationReport, NSID: t.ns.id, CDW10: 7, CDW11: 1}
		data := t.with(cmd, 32)
		t.must("Reservation Report", t.do(t.io, cmd))
		equal(t, "the same", string(data) == string(r.report()[:32]), true)
	})
	add(report, "reserved bytes are 0", func(t *T, r reservation) {
		r.must(r.register(0, 0, key))
		b := r.report()
		t.zero("report", b, 7, 9)
		t.zero("report", b, 10, 64)
		t.zero("registrant", b[64:], 3, 8)
		t.zero("registrant", b[64:], 32, 64)
	})
	for _, f := range refusedNamespaces {
		for _, op := range []struct {
			section, name string
			opcode        uint8
		}{{register, "Register", reservationRegister}, {acquire, "Acquire", reservationAcquire}, {release, "Release", reservationRelease}, {report, "Report", reservationReport}} {
			add(op.section, "Reservation "+op.name+" of "+f.what+": "+describe(spec.InvalidNamespaceOrFormat), func(t *T, _ reservation) {
				cmd := &spec.SubmissionEntry{Opcode: op.opcode, NSID: f.id(t), CDW11: 1}
				t.with(cmd, 4096)
				t.expectIO("it", cmd, never(spec.InvalidNamespaceOrFormat))
			})
		}
	}
	return checks
}
