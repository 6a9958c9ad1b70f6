package codec

import (
	"reflect"
	"testing"
)

func TestDMALoggingStart(t *testing.T) {
	ranges := func(v ...uint64) []byte {
		var b []byte
		for _, x := range v {
			b = pack(b, x)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		page   uint64
		count  uint32
		ranges []byte
		kind   error
	}{
		{"all addresses", 4096, 0, nil, nil},
		{"one range", 4096, 1, ranges(0x1000, 0x8000), nil},
		{"two ranges", 4096, 2, ranges(0x1000, 0x8000, 0, 1), nil},
		{"the page size is a hint: 0", 0, 0, nil, nil},
		{"the page size is a hint: 3", 3, 0, nil, nil},
		{"the last byte of all", 4096, 1, ranges(^uint64(0), 1), nil},
		{"up to the end of all", 4096, 1, ranges(0x1000, ^uint64(0)-0xfff), nil},
		{"all but one byte", 4096, 1, ranges(0, ^uint64(0)), nil},
		{"empty range", 4096, 1, ranges(0x1000, 0), ErrRange},
		{"range that wraps around", 4096, 1, ranges(0x1000, ^uint64(0)-0xffe), ErrRange},
		{"the second range wraps around", 4096, 2, ranges(0, 1, 2, ^uint64(0)), ErrRange},
		{"no range, but data for one", 4096, 0, ranges(0x1000, 0x8000), ErrSize},
		{"data for one more", 4096, 1, ranges(0, 1, 0, 1), ErrSize},
		{"the last one cut", 4096, 2, ranges(0, 1, 0), ErrSize},
		{"as many as can be said", 4096, ^uint32(0), ranges(0, 1), ErrSize},
		{"so many that 32 bits overflow to what is there", 4096, 1<<28 + 1, ranges(0, 1), ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := pack(tt.page, tt.count, uint32(0), tt.ranges)
			var m DMALogging
			err := m.Decode(b)
			wantError(t, err, CmdDeviceFeature, tt.kind)
			if m.PageSize != tt.page || m.Count != tt.count {
				t.Errorf("got %+v", m)
			}
			if err == nil {
				wantBytes(t, m.Append(nil), b)
			}
		})
	}
	for n := range 16 {
		wantError(t, new(DMALogging).Decode(make([]byte, n)), CmdDeviceFeature, ErrShort)
	}
}

func TestDMALoggingRanges(t *testing.T) {
	want := []IOVARange{{0x1000, 0x8000}, {^uint64(0), 1}}
	m := DMALogging{PageSize: 4096, Count: 2}
	for _, r := range want {
		m.Ranges = AppendIOVARange(m.Ranges, r)
	}
	b := pack(uint64(4096), uint32(2), uint32(0), uint64(0x1000), uint64(0x8000), ^uint64(0), uint64(1))
	wantBytes(t, m.Append(nil), b)
	b = append(b, make([]byte, 16)...)[:len(b)]
	wantError(t, m.Decode(b), CmdDeviceFeature, nil)
	if got := []IOVARange{m.Range(0), m.Range(1)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if &m.Ranges[0] != &b[16] {
		t.Error("ranges were copied")
	}
	defer func() {
		if recover() == nil {
			t.Error("there is a third range")
		}
	}()
	m.Range(2)
}

func TestDMALoggingReport(t *testing.T) {
	var m DMALoggingReport
	request, reply := m.DecodeRequest, m.DecodeReply
	for _, tt := range []struct {
		name               string
		decode             func([]byte) error
		iova, length, page uint64
		bitmap             int // bytes
		kind               error
	}{
		{"request", request, 0x1000, 0x8000, 4096, 0, nil},
		{"request, longer than its structure", request, 0x1000, 0x8000, 4096, 8, nil},
		{"request, page size 0", request, 0x1000, 0x8000, 0, 0, ErrRange},
		{"request, page size no power of two", request, 0x1000, 0x8000, 4097, 0, ErrRange},
		{"request, page size 1", request, 0x1000, 0x8000, 1, 0, nil},
		{"request, the largest page size", request, 0x1000, 0x8000, 1 << 63, 0, nil},
		{"request for nothing", request, 0x1000, 0, 4096, 0, ErrRange},
		{"request up to the end of all", request, 0x1000, ^uint64(0) - 0xfff, 4096, 0, nil},
		{"request that wraps around", request, 0x1000, ^uint64(0) - 0xffe, 4096, 0, ErrRange},
		{"reply", reply, 0x1000, 0x8000, 4096, 8, nil},
		{"reply, 64 pages", reply, 0, 64 * 4096, 4096, 8, nil},
		{"reply, 64 pages and a byte", reply, 0, 64*4096 + 1, 4096, 16, nil},
		{"reply, bitmap cut", reply, 0, 64*4096 + 1, 4096, 15, ErrSize},
		{"reply, bitmap too long", reply, 0, 64 * 4096, 4096, 9, ErrSize},
		{"reply, no bitmap", reply, 0, 4096, 4096, 0, ErrSize},
		{"reply, bitmap of 2^61 bytes", reply, 0, ^uint64(0), 1, 0, ErrSize},
		{"reply, page size 0", reply, 0, 4096, 0, 8, ErrRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.Bitmap = []byte("left from before")
			b := pack(tt.iova, tt.length, tt.page, make([]byte, tt.bitmap))
			err := tt.decode(b)
			wantError(t, err, CmdDeviceFeature, tt.kind)
			if m.IOVA != tt.iova || m.Length != tt.length || m.PageSize != tt.page {
				t.Errorf("got %+v", m)
			}
			wantBytes(t, m.AppendHead(nil), b[:24])
			if err == nil && m.Bitmap != nil {
				wantBytes(t, m.Append(nil), b)
				if &m.Bitmap[0] != &b[24] {
					t.Error("bitmap was copied")
				}
			}
		})
	}
	for n := range DMALoggingReportSize {
		wantError(t, m.DecodeRequest(make([]byte, n)), CmdDeviceFeature, ErrShort)
		wantError(t, m.DecodeReply(make([]byte, n)), CmdDeviceFeature, ErrShort)
	}
}

func TestBitmapBytes(t *testing.T) {
	for _, tt := range []struct{ length, page, want uint64 }{
		{0, 4096, 0},
		{1, 4096, 8},
		{4096, 4096, 8},
		{64 * 4096, 4096, 8},
		{64*4096 + 1, 4096, 16},
		{1 << 40, 4096, 1 << 25},
		{^uint64(0), 1, 1 << 61},
		{^uint64(0), 1 << 63, 8},
	} {
		if got := BitmapBytes(tt.length, tt.page); got != tt.want {
			t.Errorf("%d bytes in pages of %d: %d, want %d", tt.length, tt.page, got, tt.want)
		}
	}
}
