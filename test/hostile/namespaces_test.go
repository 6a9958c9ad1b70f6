package hostile

import (
	"math/rand/v2"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// TestNamespacesInRandomOrder has an attacker make, format, attach and delete namespaces at
// random while he reads and writes them. At the end he can delete all, and the pool has
// everything back.
func TestNamespacesInRandomOrder(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const poolSize = 32 << 20
	pool, err := block.OpenPool("mem:32M")
	if err != nil {
		t.Fatal(err)
	}
	s, err := nvme.NewSubsystem(nvme.SubsystemConfig{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	l.victim = l.serve(t, nvme.Config{Subsystem: s})
	l.serve(t, nvme.Config{Subsystem: s}) // another controller to attach to
	l.serves = func(t *testing.T) {
		if total, free := pool.Capacity(); total != poolSize || free != poolSize {
			t.Errorf("the pool has %d of %d bytes", free, total)
		}
	}
	l.attack(t, "600 commands", func(a *attack) {
		r := a.random()
		g, p := a.started(64)
		inflight := 0
		for range 600 {
			if e, onAdmin := randomManagement(r, g); onAdmin {
				g.admin.status(e)
				continue
			}
			for range r.IntN(8) {
				e := randomIO(r)
				e.NSID = r.Uint32N(5)
				p.put(e)
				inflight++
			}
			p.ring()
			if r.IntN(4) == 0 {
				p.wait(inflight)
				inflight = 0
			}
			if inflight > 40 {
				p.wait(inflight)
				inflight = 0
			}
		}
		p.wait(inflight)
		g.do(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: spec.BroadcastNSID})
	})
}

// randomManagement is an admin command on one of a few namespaces; false means that it is the
// turn of I/O.
func randomManagement(r *rand.Rand, g *rig) (e spec.SubmissionEntry, onAdmin bool) {
	const data = 12 << 20
	e = spec.SubmissionEntry{NSID: r.Uint32N(5), PRP1: ramBase + data}
	b := make([]byte, spec.IdentifySize)
	switch r.IntN(8) {
	case 0:
		e.Opcode, e.NSID = spec.AdminNamespaceManagement, 0
		n := r.Uint64N(20_000)
		(&spec.IdentifyNamespace{Size: n, Capacity: n, FLBAS: uint8(r.Uint32N(16)), DPS: uint8(r.Uint32N(4)), NMIC: uint8(r.Uint32N(2))}).Put(b)
	case 1:
		e.Opcode, e.CDW10 = spec.AdminNamespaceManagement, spec.NamespaceDelete
	case 2, 3:
		e.Opcode, e.CDW10 = spec.AdminNamespaceAttachment, r.Uint32N(2)
		spec.PutControllerList(b, []uint16{1, 2}[r.IntN(2):][:1])
	case 4:
		e.Opcode = spec.AdminFormatNVM
		f := spec.FormatNVM{Format: uint8(r.Uint32N(16)), Protection: uint8(r.Uint32N(4)), Extended: r.IntN(2) == 0, Erase: uint8(r.Uint32N(3))}
		e.CDW10 = f.Word()
	default:
		return e, false
	}
	if r.IntN(8) == 0 {
		garbage(r, b)
	}
	g.ram.write(data, b)
	return e, true
}
