package nvme

import (
	"os"
	"path/filepath"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
)

// life is a drive with a state directory, from its begin to its end.
func life(t *testing.T, dir string, use func(g *guest, page uint64)) {
	t.Helper()
	s, err := NewSubsystem(SubsystemConfig{Serial: "test", StateDir: dir, Namespaces: []Namespace{{Backend: memory(t, 1<<20)}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Subsystem: s, Queues: 4})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	g := attachGuest(t, c, false, func() worker { return e.PickWorker() })
	g.enable()
	use(g, g.alloc(3))
	g.leave()
	for _, close := range []func() error{c.Close, s.Close, e.Close} {
		if err := close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	life(t, dir, func(g *guest, page uint64) {
		f := featureTester{g, page}
		if st := f.setStatus(spec.FeatArbitration, 0, 0x01020301, true); !st.OK() {
			t.Fatal(st)
		}
		f.set(spec.FeatProgressMarker, 0, 3)
		f.set(spec.FeatInterruptCoalescing, 0, 0x1234) // not saved
		if st := g.install(page, "7.0", 3, spec.CommitReplaceActivate); !st.OK() {
			t.Fatal(st)
		}
		g.must(selfTestCommand(spec.SelfTestShort, 0))
		g.must(selfTestCommand(spec.SelfTestAbort, 0))
		g.log(spec.LogHostTelemetry, 512, createTelemetry, page)
		g.do(spec.SubmissionEntry{Opcode: 0x7f})
		g.must(selfTestCommand(spec.SelfTestExtended, 0)) // and then the process ends
	})
	life(t, dir, func(g *guest, page uint64) {
		f := featureTester{g, page}
		for _, c := range []struct {
			id   uint8
			want uint32
		}{{spec.FeatArbitration, 0x01020301}, {spec.FeatProgressMarker, 3}, {spec.FeatInterruptCoalescing, 0}} {
			if v := f.get(c.id, spec.SelectCurrent, 0, 0); v != c.want {
				t.Errorf("feature %#x: %#x, want %#x", c.id, v, c.want)
			}
		}
		if l := g.slots(page); l.ActiveSlot != 3 || l.NextSlot != 0 || g.revision(page) != "7.0" {
			t.Errorf("firmware %+v", l)
		}
		l := g.selfTests(page)
		if len(l.Results) != 2 || l.Results[0].Result != spec.SelfTestUnknown || l.Results[1].Result != spec.SelfTestAborted {
			t.Errorf("self-tests %+v", l)
		}
		if l := g.telemetry(spec.LogHostTelemetry, 0, page); l.HostGeneration != 1 || l.Areas[2] == 0 {
			t.Errorf("telemetry %+v", l)
		}
		if n := len(g.events(page).Events); n < 4 { // two power-ons, the firmware, SMART
			t.Errorf("%d persistent events", n)
		}
		g.must(getLog(spec.LogSmart, spec.SmartSize, 0, page))
		var s spec.Smart
		if s.Get(g.bytes(page, spec.SmartSize)); s.PowerCycles != 2 || s.UnsafeShutdowns != 1 || s.ErrorEntries != 1 {
			t.Errorf("SMART %+v", s)
		}
		if e := g.lastError(); e.Status != spec.InvalidOpcode|spec.StatusDNR {
			t.Errorf("error log %+v", e)
		}
	})
}

func TestImpossibleRecordsAreRefused(t *testing.T) {
	for name, content := range map[string]string{
		keptFirmware:        `{"Active":2,"Next":0,"Revisions":["","",""]}`,
		keptSelfTest:        `{"Code":9,"Results":null}`,
		keptEvents:          `[{"Type":255}]`,
		keptHealth + "-1":   `{"Health":{"Powered":-1}}`,
		keptFeatures + "-1": `[{"ID":2,"Number":31}]`,
		keptPages + "-1":    `{"Host":{"Areas":[1,2,3]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text := []byte(`{"Version":1,"Content":` + content + `}`)
			if err := os.WriteFile(filepath.Join(dir, name+stateSuffix), text, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := NewSubsystem(SubsystemConfig{Serial: "test", StateDir: dir})
			if err == nil {
				_, err = New(Config{Subsystem: s})
				s.Close()
			}
			if err == nil {
				t.Error("it was taken")
			}
		})
	}
}

// Saved values of what is not there any more are forgotten, the other ones stay.
func TestSavedValuesOfARemovedNamespace(t *testing.T) {
	dir := t.TempDir()
	life(t, dir, func(g *guest, page uint64) {
		f := featureTester{g, page}
		for _, id := range []uint8{spec.FeatErrorRecovery, spec.FeatArbitration} {
			nsid := uint32(1)
			if id == spec.FeatArbitration {
				nsid = 0
			}
			if st := f.setStatus(id, nsid, 1, true); !st.OK() {
				t.Fatal(st)
			}
		}
	})
	s, err := NewSubsystem(SubsystemConfig{Serial: "test", StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := New(Config{Subsystem: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.saved) != 1 || c.saved[featureKey{ID: spec.FeatArbitration}].Number != 1 {
		t.Errorf("%v", c.saved)
	}
}
