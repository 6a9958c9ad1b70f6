package nvme

import (
	"testing"

	"vfiouser/devices/nvme/spec"
)

// A subsystem reset resets all controllers (Base 2.0, 3.7.1), whoever asks for it.
func TestSubsystemReset(t *testing.T) {
	guests, _ := sharing(t, 3, rig{})
	for _, g := range guests {
		g.write32(spec.RegINTMS, 1)
	}
	guests[1].write32(spec.RegNSSR, spec.NSSRReset+1) // no reset
	if s := guests[1].csts(); s != spec.CSTSReady {
		t.Fatalf("CSTS %#x after another value was written", s)
	}
	guests[1].write32(spec.RegNSSR, spec.NSSRReset)
	for i, g := range guests {
		g.until("the reset", func() bool { return g.csts() == spec.CSTSNSSRO })
		for _, off := range []uint64{spec.RegCC, spec.RegAQA, spec.RegASQ, spec.RegACQ, spec.RegINTMS} {
			if v := g.read32(off); v != 0 {
				t.Errorf("controller %d: register %#x is %#x", i, off, v)
			}
		}
		g.enable()
		if s := g.csts(); s != spec.CSTSReady|spec.CSTSNSSRO {
			t.Errorf("controller %d: CSTS %#x after it was enabled", i, s)
		}
		if n := g.c.host.queues.Load(); n != 0 {
			t.Errorf("controller %d has %d queues", i, n)
		}
		g.createQueue(1, 64)
	}
}

// Base 2.0, 3.1.3.6: NSSRO does not tell of a reset that activated firmware.
func TestSubsystemResetThatActivatesFirmware(t *testing.T) {
	guests, _ := sharing(t, 1, rig{})
	g := guests[0]
	f := &g.c.subsystem.firmware
	s := f.state()
	s.Revisions[1], s.Next = "2.0", 2
	f.load(s)
	g.write32(spec.RegNSSR, spec.NSSRReset)
	g.until("the reset", func() bool { return g.csts() == 0 && f.running() == "2.0" })
}
