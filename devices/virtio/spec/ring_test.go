package spec

import (
	"bytes"
	"testing"
)

func TestDescriptorsOnTheWire(t *testing.T) {
	want := []byte{8, 7, 6, 5, 4, 3, 2, 1, 0xd, 0xc, 0xb, 0xa, 0x22, 0x11, 0x44, 0x33}
	b := make([]byte, DescSize)
	d := Desc{Addr: 0x0102030405060708, Len: 0x0a0b0c0d, Flags: 0x1122, Next: 0x3344}
	if d.Put(b); !bytes.Equal(b, want) {
		t.Errorf("split: % x", b)
	}
	var got Desc
	if got.Get(b); got != d {
		t.Errorf("split: %+v", got)
	}
	p := PackedDesc{Addr: 0x0102030405060708, Len: 0x0a0b0c0d, ID: 0x1122, Flags: 0x3344}
	if p.Put(b); !bytes.Equal(b, want) {
		t.Errorf("packed: % x", b)
	}
	var gotPacked PackedDesc
	if gotPacked.Get(b); gotPacked != p {
		t.Errorf("packed: %+v", gotPacked)
	}
}

// Sizes of the table in 2.7, and where the event indexes lie.
func TestSizesOfTheParts(t *testing.T) {
	if DescBytes(MaxQueueSize) != 1<<19 || AvailBytes(256) != 6+2*256 || UsedBytes(256) != 6+8*256 {
		t.Error("sizes")
	}
	if UsedEventOffset(256) != 4+2*256 || AvailEventOffset(256) != 4+8*256 {
		t.Error("event indexes")
	}
}

func TestNeedEvent(t *testing.T) {
	for _, old := range []uint16{0, 5, 0x7fff, 0xfff0, 0xffff} {
		for n := range uint16(20) {
			now := old + n
			for event := old - 3; event != now+3; event++ {
				passes := false
				for i := old; i != now; i++ {
					passes = passes || i == event
				}
				if NeedEvent(event, now, old) != passes {
					t.Errorf("from %d to %d, event %d: %v", old, now, event, !passes)
				}
			}
		}
	}
}

func TestPositionsAndEvents(t *testing.T) {
	for _, wrap := range []bool{false, true} {
		at := Position(0x7fff, wrap)
		if i, w := PositionParts(at); i != 0x7fff || w != wrap {
			t.Errorf("%#x: %d %v", at, i, w)
		}
		word := EventWord(at, EventDesc)
		if p, flags := EventParts(word | 0xfffc0000); p != at || flags != EventDesc {
			t.Errorf("%#x: %#x %d", word, p, flags)
		}
		if PackedAvail(wrap)^PackedAvail(!wrap) != DescAvail|DescUsed || PackedUsed(wrap)^PackedUsed(!wrap) != DescAvail|DescUsed {
			t.Error("flags of the two rounds")
		}
	}
	if PackedAvail(true) != DescAvail || PackedUsed(true) != DescAvail|DescUsed {
		t.Error("flags of the first round")
	}
}
