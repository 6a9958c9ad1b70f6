package nvme

import (
	"bytes"
	"strings"
	"testing"

	"vfiouser/devices/nvme/spec"
)

func (g *guest) telemetry(id uint8, specific uint32, page uint64) (l spec.Telemetry) {
	g.t.Helper()
	st, b := g.log(id, 2*pageSize, specific, page)
	if !st.OK() {
		g.t.Fatal(st)
	}
	l.Get(bytes.Clone(b))
	l.Data = l.Data[:int(l.Areas[2])*spec.TelemetryBlockSize]
	return l
}

func TestHostTelemetry(t *testing.T) {
	g, page := adminGuest(t, rig{})
	if l := g.telemetry(spec.LogHostTelemetry, 0, page); l.Areas != [3]uint16{} || l.HostGeneration != 0 {
		t.Errorf("before it was asked for: %+v", l)
	}
	g.do(spec.SubmissionEntry{Opcode: 0x7f, NSID: 0x1234})
	first := g.telemetry(spec.LogHostTelemetry, createTelemetry, page)
	if first.HostGeneration != 1 || first.Page != spec.LogHostTelemetry || first.Available || first.Areas[0] == 0 || first.Areas[1] <= first.Areas[0] {
		t.Errorf("%+v", first)
	}
	text := string(first.Data)
	for _, want := range []string{"serial test\n", "reads 0\n", "opcode 0x7f", "nsid 0x1234", "completion queue 0: 32 entries"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	if again := g.telemetry(spec.LogHostTelemetry, 0, page); !bytes.Equal(again.Data, first.Data) || again.HostGeneration != 1 {
		t.Error("it changes although nobody asked for it")
	}
	if next := g.telemetry(spec.LogHostTelemetry, createTelemetry, page); next.HostGeneration != 2 {
		t.Errorf("generation %d", next.HostGeneration)
	}
}

func TestTelemetryComesInBlocks(t *testing.T) {
	g, page := adminGuest(t, rig{})
	for _, id := range []uint8{spec.LogHostTelemetry, spec.LogControllerTelemetry} {
		if st := g.do(getLog(id, 256, 0, page)).Status; st != badField {
			t.Errorf("half a block: %v", st)
		}
		if st := g.do(getLog(id, 512, 256, page)).Status; st != badField {
			t.Errorf("from the middle of a block: %v", st)
		}
	}
}

func TestControllerTelemetry(t *testing.T) {
	g, page := adminGuest(t, rig{})
	if l := g.telemetry(spec.LogControllerTelemetry, 0, page); l.Available || l.Areas != [3]uint16{} {
		t.Errorf("at first: %+v", l)
	}
	f := featureTester{g, page}
	f.set(spec.FeatKeepAlive, 0, 100)
	g.until("the keep alive timer to expire", func() bool { return g.csts().CFS() })
	g.reset()
	retained := getLog(spec.LogControllerTelemetry, 512, 0, page)
	retained.CDW10 |= retainEvent
	g.must(retained)
	l := g.telemetry(spec.LogControllerTelemetry, 0, page)
	if !l.Available || l.ControllerGeneration != 1 || l.Areas[2] == 0 || l.Reason != "keep alive timer expired" {
		t.Errorf("%+v", l)
	}
	if l := g.telemetry(spec.LogControllerTelemetry, 0, page); l.Available {
		t.Error("still available after it was read")
	}
}
