package spec

import (
	"bytes"
	"testing"
)

func TestCopyRangeLayout(t *testing.T) {
	r := CopyRange{LBA: 0x1122334455667788, Blocks: 0x10000, Space: 0x99aabbcc, AppTag: 0x0102, AppMask: 0x0304}
	b := bytes.Repeat([]byte{0xee}, CopyRangeSize)
	r.Put(b)
	want := make([]byte, CopyRangeSize)
	copy(want[8:], []byte{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff})
	copy(want[24:], []byte{0xcc, 0xbb, 0xaa, 0x99, 2, 1, 4, 3})
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	var back CopyRange
	if back.Get(b); back != r {
		t.Errorf("read back %+v", back)
	}
	e := SubmissionEntry{CDW12: 0xf<<28 | 3<<8 | 0xff}
	if e.CopyRanges() != 256 || e.CopyFormat() != 3 {
		t.Errorf("%d ranges of format %d", e.CopyRanges(), e.CopyFormat())
	}
}

func TestCopyRange64Layout(t *testing.T) {
	r := CopyRange{LBA: 0x11, Blocks: 2, Space: 0x112233445566, AppTag: 0x0102, AppMask: 0x0304}
	b := bytes.Repeat([]byte{0xee}, CopyRange64Size)
	r.Put64(b)
	want := make([]byte, CopyRange64Size)
	want[8], want[16] = 0x11, 1
	copy(want[30:], []byte{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 2, 1, 4, 3})
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	b[26], b[29] = 0xff, 0xff // of no guard here
	var back CopyRange
	if back.Get64(b); back != r {
		t.Errorf("read back %+v", back)
	}
}
