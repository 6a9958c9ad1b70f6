package spec

import (
	"bytes"
	"reflect"
	"testing"
)

func TestReservationReportLayout(t *testing.T) {
	s := ReservationStatus{Generation: 0x44332211, Type: ExclusiveAccess, Persistent: true, Controllers: []RegisteredController{
		{Controller: 0x0201, Holder: true, Host: HostID{1, 2, 3, 4, 5, 6, 7, 8}, Key: 0x1817161514131211},
		{Controller: NoController, Host: HostID{9}, Key: 5},
	}}
	short := make([]byte, 24+2*24)
	copy(short, []byte{0x11, 0x22, 0x33, 0x44, 2, 2, 0, 0, 0, 1})
	copy(short[24:], []byte{1, 2, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18})
	copy(short[48:], []byte{0xff, 0xff, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5})
	long := make([]byte, 64+2*64)
	copy(long, short[:24])
	copy(long[64:], []byte{1, 2, 1, 0, 0, 0, 0, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 1, 2, 3, 4, 5, 6, 7, 8})
	copy(long[128:], []byte{0xff, 0xff, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9})
	for _, c := range []struct {
		extended bool
		want     []byte
	}{{false, short}, {true, long}} {
		b := bytes.Repeat([]byte{0xee}, s.Size(c.extended))
		if s.Put(b, c.extended); !bytes.Equal(b, c.want) {
			t.Errorf("extended %v: % x, want % x", c.extended, b, c.want)
		}
		var back ReservationStatus
		if n := back.Get(b, c.extended); n != 2 || !reflect.DeepEqual(back, s) {
			t.Errorf("extended %v: read back %d, %+v", c.extended, n, back)
		}
		if n := back.Get(b[:len(b)-1], c.extended); n != 2 || len(back.Controllers) != 1 {
			t.Errorf("cut short: %d, %+v", n, back)
		}
		if n := back.Get(b[:20], c.extended); n != 0 || len(back.Controllers) != 0 {
			t.Errorf("cut in the header: %d, %+v", n, back)
		}
	}
}

func TestReservationDataLayout(t *testing.T) {
	k := ReservationKeys{Current: 0x0807060504030201, Other: 0x18}
	b := make([]byte, ReservationKeysSize)
	k.Put(b)
	if want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 0x18, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(b, want) {
		t.Errorf("% x", b)
	}
	var back ReservationKeys
	if back.Get(b); back != k {
		t.Errorf("%+v", back)
	}
	if back.Get(b[:ReservationKeySize]); back != (ReservationKeys{Current: k.Current}) {
		t.Errorf("half: %+v", back)
	}
	n := ReservationNotice{Count: 0x0102, Type: NoticeReservationReleased, Available: 7, NSID: 0x0a0b0c0d}
	page := bytes.Repeat([]byte{0xee}, ReservationLogSize)
	n.Put(page)
	want := make([]byte, ReservationLogSize)
	copy(want, []byte{2, 1, 0, 0, 0, 0, 0, 0, 2, 7, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a})
	if !bytes.Equal(page, want) {
		t.Errorf("% x", page)
	}
	var read ReservationNotice
	if read.Get(page); read != n {
		t.Errorf("%+v", read)
	}
}
