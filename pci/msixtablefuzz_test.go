package pci

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzMSIXTable: a table of any size holds what the model says after accesses of any width
// anywhere, tells each change of a mask bit and nothing else, and shows the pending bits.
//
//fuzz:covers pci/msixtable.go
func FuzzMSIXTable(f *testing.F) {
	choice.Fuzz(f, 16, 300, runMSIXTable)
}

func TestMSIXTablePrograms(t *testing.T) {
	choice.Programs(t, 200, 60, runMSIXTable)
}

type maskEvent struct {
	vector int
	masked bool
}

func runMSIXTable(t *testing.T, s *choice.Source) {
	t.Helper()
	vectors := choice.Pick(s, 3, 1, 8, 9, 64, 65, 2048)
	table, err := NewMSIXTable(vectors)
	if err != nil {
		t.Error(err)
		return
	}
	fresh := bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, vectors)
	stored := []byte{0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}
	model, saved, pending := slices.Clone(fresh), table.Save(), map[int]bool{}
	var events, want []maskEvent
	table.OnMask = func(v int, masked bool) { events = append(events, maskEvent{v, masked}) }
	table.Pending = func(v int) bool {
		if v < 0 || v >= vectors {
			t.Errorf("asked for vector %d of %d", v, vectors)
		}
		return pending[v]
	}
	for step := 0; s.More() && !t.Failed(); step++ {
		events, want = events[:0], want[:0]
		off := s.Edge(uint64(len(model)))
		if s.Bool() { // an entry's control
			off = uint64(16*s.Intn(vectors) + 12)
		}
		p := s.Bytes(choice.Pick(s, 4, 8, 1, 2, 16, 5, 40))
		switch s.Intn(12) {
		case 0:
			table.Reset()
			copy(model, fresh)
		case 1:
			saved = table.Save()
		case 2:
			if s.Odds(4) {
				if table.Restore(saved[1:]) == nil {
					t.Error("a table was restored from one byte less")
				}
				break
			}
			dirty := slices.Clone(saved)
			for i := range dirty {
				dirty[i] |= ^stored[i%16] // bits without a meaning
			}
			if err := table.Restore(dirty); err != nil {
				t.Error(err)
			}
			copy(model, saved)
		case 3:
			pending[s.Intn(vectors)] = s.Bool()
		case 4:
			checkPBA(t, table, pending, s.Edge(uint64(vectors+7)/8), len(p))
		case 5:
			v := s.Intn(vectors)
			e := model[16*v:]
			address, data := table.Message(v)
			if address != binary.LittleEndian.Uint64(e) || data != binary.LittleEndian.Uint32(e[8:]) || table.Masked(v) != (e[12] == 1) {
				t.Errorf("vector %d: message %#x to %#x, masked %v", v, data, address, table.Masked(v))
			}
		case 6:
			wantBytes := make([]byte, len(p))
			if off < uint64(len(model)) {
				copy(wantBytes, model[off:])
			}
			if err := table.Read(off, p); err != nil || !bytes.Equal(p, wantBytes) {
				t.Errorf("read % x at %#x, want % x; %v", p, off, wantBytes, err)
			}
		default:
			if err := table.Write(off, p); err != nil {
				t.Error(err)
			}
			for i, v := range p {
				at := off + uint64(i)
				if at < off || at >= uint64(len(model)) {
					break
				}
				v &= stored[at%16]
				if at%16 == 12 && v != model[at] {
					want = append(want, maskEvent{int(at / 16), v == 1})
				}
				model[at] = v
			}
		}
		if !slices.Equal(events, want) {
			t.Errorf("step %d: told %v, want %v", step, events, want)
		}
		if !bytes.Equal(table.Save(), model) {
			t.Errorf("step %d: the table is not what was written", step)
		}
	}
}

func checkPBA(t *testing.T, table *MSIXTable, pending map[int]bool, off uint64, n int) {
	t.Helper()
	p := bytes.Repeat([]byte{0xaa}, n)
	if err := table.ReadPBA(off, p); err != nil {
		t.Error(err)
	}
	for i := range 8 * n {
		v := off*8 + uint64(i)
		want := off < 1<<32 && v < uint64(table.Vectors()) && pending[int(v)]
		if got := p[i/8]>>(i%8)&1 == 1; got != want {
			t.Errorf("pending bit of vector %d is %v", v, got)
		}
	}
}
