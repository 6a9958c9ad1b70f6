package spec

import (
	"bytes"
	"testing"
)

func TestProtectionLayout(t *testing.T) {
	for _, c := range []struct {
		guard Guard
		p     Protection
		want  []byte
	}{
		{Guard16, Protection{0x0102, 0x0304, 0x05060708}, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{Guard64, Protection{0x0102030405060708, 0x090a, 0x0b0c0d0e0f10}, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
	} {
		b := make([]byte, c.guard.Size())
		c.p.Put(b, c.guard)
		if !bytes.Equal(b, c.want) {
			t.Errorf("% x, want % x", b, c.want)
		}
		var back Protection
		if back.Get(b, c.guard); back != c.p {
			t.Errorf("read back %+v, want %+v", back, c.p)
		}
	}
}

func TestReferenceSpaceOfACommand(t *testing.T) {
	var e SubmissionEntry
	e.SetReferenceSpace(0x112233445566)
	e.SetAppTag(0x7788, 0x99aa)
	if e.CDW3 != 0x1122 || e.CDW14 != 0x33445566 || e.CDW15 != 0x99aa7788 {
		t.Errorf("%+v", e)
	}
	e.CDW3 |= 0xffff0000 // ignored
	if v := e.ReferenceSpace(Guard64); v != 0x112233445566 {
		t.Errorf("%#x", v)
	}
	if v := e.ReferenceSpace(Guard16); v != 0x33445566 {
		t.Errorf("%#x", v)
	}
	if tag, mask := e.AppTag(); tag != 0x7788 || mask != 0x99aa {
		t.Errorf("%#x, %#x", tag, mask)
	}
}

func TestIdentifyNamespaceNVMLayout(t *testing.T) {
	n := IdentifyNamespaceNVM{StorageTagMask: 0x0102, PIC: 7, PIFA: 1}
	n.Formats[1] = ExtendedFormat{Guard64, 48}
	n.Formats[63] = ExtendedFormat{Guard16, 32}
	b := make([]byte, IdentifySize)
	n.Put(b)
	for at, want := range map[int]byte{0: 2, 1: 1, 8: 7, 9: 1, 16: 48, 17: 1, 264: 32, 265: 0} {
		if b[at] != want {
			t.Errorf("byte %d is %#x, want %#x", at, b[at], want)
		}
	}
	var back IdentifyNamespaceNVM
	if back.Get(b); back != n {
		t.Errorf("read back %+v", back)
	}
}
