package pci

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

func restoreSpace(t *testing.T, c Config) *Space {
	t.Helper()
	s, err := NewSpace(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.AddPM(PM{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRestoreTakesWhatCanBeWritten(t *testing.T) {
	c := Config{Vendor: 1, Device: 2, BARs: [6]BAR{{Size: 4096, Type: Mem32}}}
	from, to := restoreSpace(t, c), restoreSpace(t, c)
	if from.Layout() != to.Layout() {
		t.Error("equal spaces have different layouts")
	}
	for off, p := range map[int][]byte{offCommand: {6, 0}, offBAR0: {0, 0, 0x10, 0xfe}, offIntLine: {11}, from.pm + pmControl: {D3hot}} {
		if _, err := from.Write(off, p); err != nil {
			t.Fatal(err)
		}
	}
	p := from.Snapshot()
	changed, err := to.Restore(p)
	if err != nil || changed != ChangedCommand|ChangedBAR|ChangedPM {
		t.Errorf("changed %#x, %v", changed, err)
	}
	if !bytes.Equal(to.now, from.now) {
		t.Error("the spaces differ")
	}
	if changed, err = to.Restore(p); changed != 0 || err != nil {
		t.Errorf("the same once more changed %#x, %v", changed, err)
	}
}

// Whoever wrote the snapshot cannot make the function another one.
func TestRestoreKeepsWhatCannotBeWritten(t *testing.T) {
	s := restoreSpace(t, Config{Vendor: 1, Device: 2, BARs: [6]BAR{{Size: 4096, Type: Mem32}}})
	p := s.Snapshot()
	for i := range p {
		p[i] = ^p[i]
	}
	p[s.pm+pmControl] = D0
	if _, err := s.Restore(p); err != nil {
		t.Fatal(err)
	}
	for i := range s.now {
		if fixed := ^(s.writable[i] | s.clear[i]); (s.now[i]^s.initial[i])&fixed != 0 {
			t.Errorf("byte %#x was %#x and is %#x", i, s.initial[i], s.now[i])
		}
	}
}

func TestBadSnapshotsAreRefused(t *testing.T) {
	s := restoreSpace(t, Config{})
	before := s.Snapshot()
	short, power := s.Snapshot()[1:], s.Snapshot()
	power[s.pm+pmControl], power[offIntLine] = 1, 7
	for _, c := range []struct {
		p    []byte
		kind error
	}{{nil, ErrRange}, {short, ErrRange}, {power, ErrConfig}} {
		_, err := s.Restore(c.p)
		if !errors.Is(err, c.kind) || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%v, want %v with EINVAL", err, c.kind)
		}
	}
	if !bytes.Equal(s.now, before) {
		t.Error("a snapshot that was refused has changed the space")
	}
}

func TestLayoutTellsSpacesApart(t *testing.T) {
	seen := map[uint64]string{}
	for name, c := range map[string]Config{
		"plain": {}, "vendor": {Vendor: 1}, "BAR": {BARs: [6]BAR{{Size: 4096, Type: Mem32}}}, "larger BAR": {BARs: [6]BAR{{Size: 8192, Type: Mem32}}}, "Express": {Express: true},
	} {
		l := restoreSpace(t, c).Layout()
		if other, ok := seen[l]; ok {
			t.Errorf("%s and %s have the same layout", name, other)
		}
		seen[l] = name
	}
}
