package nvme

import (
	"bytes"
	"testing"

	"vfiouser/devices/nvme/spec"
)

// log reads a page of n bytes with a log specific parameter.
func (g *guest) log(id uint8, n int, specific uint32, page uint64) (spec.Status, []byte) {
	g.t.Helper()
	e := getLog(id, n, 0, page)
	e.CDW10 |= specific << 8
	if n > pageSize {
		e.PRP2 = page + pageSize
	}
	return g.do(e).Status, g.bytes(page, n)
}

func (g *guest) events(page uint64) spec.PersistentEventLog {
	g.t.Helper()
	st, b := g.log(spec.LogPersistentEvents, pageSize, establishContext, page)
	if !st.OK() {
		g.t.Fatal(st)
	}
	var l spec.PersistentEventLog
	l.Get(b)
	if st, _ := g.log(spec.LogPersistentEvents, 512, releaseContext, page); !st.OK() {
		g.t.Fatal(st)
	}
	return l
}

func TestPersistentEventLogContext(t *testing.T) {
	g, page := adminGuest(t, rig{})
	sequence := spec.CommandSequenceError | spec.StatusDNR
	for _, c := range []struct {
		name     string
		specific uint32
		want     spec.Status
	}{
		{"read without a context", readContext, sequence},
		{"release without a context", releaseContext, spec.Success},
		{"establish", establishContext, spec.Success},
		{"establish twice", establishContext, sequence},
		{"read", readContext, spec.Success},
		{"reserved", 4, badField},
		{"release", releaseContext, spec.Success},
		{"read after the release", readContext, sequence},
		{"establish again", establishContext, spec.Success},
	} {
		if st, _ := g.log(spec.LogPersistentEvents, 512, c.specific, page); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	g.reset()
	if st, _ := g.log(spec.LogPersistentEvents, 512, readContext, page); st != sequence {
		t.Errorf("read after a reset: %v", st)
	}
}

func TestPersistentEvents(t *testing.T) {
	g, page := adminGuest(t, rig{})
	featureTester{g, page}.set(spec.FeatTimestamp, 0, 0, 1, 2, 3, 4, 5, 6)
	g.reset()
	l := g.events(page)
	if l.Serial != "test" || l.Model != defaultModel || l.PowerCycles != 1 || l.Supported != recorded || l.SubNQN != nqn("test") {
		t.Errorf("%+v", l)
	}
	var kinds []byte
	for _, e := range l.Events {
		kinds = append(kinds, e.Type)
		if e.Controller != 1 {
			t.Errorf("event of controller %d", e.Controller)
		}
	}
	want := []byte{spec.EventPowerOn, spec.EventTimestamp, spec.EventSmart, spec.EventPowerOn}
	if !bytes.Equal(kinds, want) {
		t.Fatalf("events % x, want % x", kinds, want)
	}
	var on spec.PowerOnEvent
	on.Get(l.Events[0].Data)
	if on.Firmware != defaultFW || on.Controller != 1 {
		t.Errorf("%+v", on)
	}
	if len(l.Events[1].Data) != spec.TimestampEventSize || len(l.Events[2].Data) != spec.SmartSize {
		t.Error("sizes of the data")
	}
}

func TestJournalForgetsTheOldest(t *testing.T) {
	var j journal
	for i := range 1000 {
		j.add(spec.PersistentEvent{Type: spec.EventSmart, Time: uint64(i), Data: make([]byte, spec.SmartSize)})
	}
	list := j.list()
	l := spec.PersistentEventLog{Events: list}
	if l.Size() > journalSize || l.Size() < journalSize-spec.SmartSize-spec.PersistentEventHeader || list[0].Time != 999 {
		t.Errorf("%d events of %d bytes, the newest %d", len(list), l.Size(), list[0].Time)
	}
	if !possibleEvents(list) || possibleEvents(append(list, list...)) || possibleEvents([]spec.PersistentEvent{{Type: 0xff}}) {
		t.Error("possible events")
	}
	var k journal
	k.load(list)
	if again := k.list(); len(again) != len(list) || again[0].Time != 999 {
		t.Error("not the same after loading")
	}
}

func TestLogsMove(t *testing.T) {
	g, page := adminGuest(t, rig{})
	if st, _ := g.log(spec.LogHostTelemetry, 512, createTelemetry, page); !st.OK() {
		t.Fatal(st)
	}
	if st, _ := g.log(spec.LogPersistentEvents, 512, establishContext, page); !st.OK() {
		t.Fatal(st)
	}
	_, b := g.log(spec.LogHostTelemetry, pageSize, 0, page)
	telemetry := bytes.Clone(b)
	_, b = g.log(spec.LogPersistentEvents, 1024, readContext, page)
	events := bytes.Clone(b)
	n := g.move(rig{})
	if st, b := n.log(spec.LogHostTelemetry, pageSize, 0, page); !st.OK() || !bytes.Equal(b, telemetry) {
		t.Errorf("telemetry: %v", st)
	}
	if st, b := n.log(spec.LogPersistentEvents, 1024, readContext, page); !st.OK() || !bytes.Equal(b, events) {
		t.Errorf("persistent events: %v", st)
	}
}
