package hostile

import (
	"math/rand/v2"
	"testing"

	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// reservation is one of the commands with its data where the address says.
func reservation(opcode uint8, cdw10 uint32, data uint64) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: opcode, NSID: memNS, CDW10: cdw10, PRP1: data}
}

// identifyAs makes the rig's controller one of another host.
func (g *rig) identifyAs(n uint64) {
	g.a.Helper()
	const page = 7 << 20
	g.ram.write64(page, n, n)
	g.do(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostIdentifier, CDW11: spec.HostIDExtended, PRP1: ramBase + page})
}

// forget unregisters a host, which releases what it holds.
func (g *rig) forget(p *pair, n uint64) {
	g.a.Helper()
	g.identifyAs(n)
	p.status(reservation(spec.NVMReservationRegister, spec.UnregisterKey|spec.ReservationIgnoreKey, ramBase+8<<20))
}

// Data structures of reservations that are not there, or only in part.
func TestReservationData(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const end = ramBase + 16<<20
	for _, c := range []struct {
		name   string
		prp1   uint64
		prp2   uint64
		status spec.Status
	}{
		{"nowhere", nowhere, 0, spec.DataTransferError},
		{"in the last bytes of the address space", 1<<64 - 8, 0, spec.DataTransferError},
		{"across the end of the memory", end - 4, end, spec.DataTransferError},
		{"cut short by the end of the page", end - 4, 0, spec.DataTransferError},
		{"at an odd address", ramBase + 1, 0, spec.InvalidPRPOffset},
		{"second page not aligned", ramBase + 2*pageSize - 4, ramBase + 8, spec.InvalidPRPOffset},
	} {
		l.attack(t, c.name, func(a *attack) {
			_, p := a.started(64)
			for _, opcode := range []uint8{spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease, spec.NVMReservationReport} {
				cdw10 := uint32(spec.WriteExclusive) << spec.ReservationTypeShift
				if opcode == spec.NVMReservationReport {
					cdw10 = 5
				}
				e := reservation(opcode, cdw10, c.prp1)
				e.PRP2 = c.prp2
				if st := p.status(e); st&^(spec.StatusDNR|spec.StatusMore) != c.status {
					a.Errorf("opcode %#x: %v, want %v", opcode, st, c.status)
				}
			}
			for _, dwords := range []uint32{1<<18 + 1, 1 << 30, 1<<32 - 1} {
				if st := p.status(reservation(spec.NVMReservationReport, dwords, ramBase+8<<20)); st.Code() != spec.InvalidField {
					a.Errorf("a report of %d dwords: %v", dwords, st)
				}
			}
		})
	}
}

// A host that registers under ever new names, with keys that come to mind, and reserves.
func TestManyRegistrants(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "hosts and keys", func(a *attack) {
		g, p := a.started(256)
		const keys, names = ramBase + 8<<20, 200
		g.ram.write64(8<<20, 5, 5)
		refused := 0
		for n := range uint64(names) {
			g.identifyAs(n + 1)
			if !p.status(reservation(spec.NVMReservationRegister, spec.RegisterKey, keys)).OK() {
				refused++
			}
		}
		if refused == 0 || refused == names {
			a.Errorf("%d of %d hosts were refused", refused, names)
		}
		if st := p.status(reservation(spec.NVMReservationReport, 1023, ramBase+9<<20)); st.Code() != spec.HostIDInconsistent {
			a.Error(st)
		}
		for n := range uint64(names) {
			g.forget(p, n+1)
		}
	})
	l.attack(t, "garbage", func(a *attack) {
		r := a.random()
		g, p := a.started(1024)
		const names = 6
		for range 40 {
			g.identifyAs(r.Uint64N(names))
			const batch = 100
			for i := range batch {
				g.ram.write64(8<<20+uint64(i)*64, r.Uint64N(3), r.Uint64N(3))
				p.put(randomReservation(r, i))
			}
			p.ring()
			p.wait(batch)
		}
		for n := range uint64(names) {
			g.forget(p, n)
		}
		if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, ramBase+9<<20, 0)); !st.OK() {
			a.Errorf("a good command afterwards: %v", st)
		}
	})
}

// randomReservation is a reservation command, a part of a fused pair, or something that a
// reservation may forbid.
func randomReservation(r *rand.Rand, i int) spec.SubmissionEntry {
	e := randomEntry(r)
	e.Opcode = []uint8{
		spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease, spec.NVMReservationReport,
		spec.NVMWrite, spec.NVMCompare, spec.NVMFlush,
	}[r.IntN(7)]
	e.NSID, e.Flags = memNS, uint8(r.IntN(6)/3*r.IntN(4))
	e.PRP1, e.PRP2 = ramBase+8<<20+uint64(i*64), ramBase+9<<20
	switch e.Opcode {
	case spec.NVMReservationReport:
		e.CDW10 = r.Uint32N(2048)
	case spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease:
		e.CDW10 = r.Uint32N(4) | r.Uint32N(8)<<spec.ReservationTypeShift | r.Uint32N(8)/7<<3
	default:
		e.SetLBA(0)
		e.CDW12 = r.Uint32N(4)
	}
	return e
}
