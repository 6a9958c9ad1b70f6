package spec

import (
	"bytes"
	"testing"
)

func TestCopyRangeLayout(t *testing.T) {
	r := CopyRange{LBA: 0x1122334455667788, Blocks: 0x10000}
	b := bytes.Repeat([]byte{0xee}, CopyRangeSize)
	r.Put(b)
	want := make([]byte, CopyRangeSize)
	copy(want[8:], []byte{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff})
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
