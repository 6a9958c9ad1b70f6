package client

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/test/holdings"
)

// request is a call of the client's, for scripts that answer it wrongly.
type request struct {
	name    string
	command codec.Command
	do      func(ctx context.Context, d *Device) error
	good    func(m wire) []byte // payload of a right answer
	fds     int                 // eventfds that belong to it
	least   int                 // of a payload, bytes
	most    int
}

var requests = []request{
	{"region read", codec.CmdRegionRead,
		func(ctx context.Context, d *Device) error { _, err := d.ReadRegion32(ctx, 0, 0x10); return err },
		func(wire) []byte {
			return (&codec.RegionAccess{Offset: 0x10, Count: 4, Data: []byte{1, 2, 3, 4}}).Append(nil)
		}, 0, 16, 20},
	{"region write", codec.CmdRegionWrite,
		func(ctx context.Context, d *Device) error { return d.WriteRegion32(ctx, 0, 0x10, 1) },
		func(wire) []byte { return (&codec.RegionAccess{Offset: 0x10, Count: 4}).AppendHead(nil) }, 0, 16, 16},
	{"write multi", codec.CmdRegionWriteMulti,
		func(ctx context.Context, d *Device) error {
			_, err := d.WriteMulti(ctx, Write{Data: []byte{1}})
			return err
		},
		func(wire) []byte { return (&codec.WriteMulti{Count: 1}).AppendHead(nil) }, 0, 8, 8},
	{"region info", codec.CmdGetRegionInfo,
		func(ctx context.Context, d *Device) error { _, err := d.Region(ctx, 0); return err },
		func(wire) []byte { return (&codec.RegionInfo{Size: 4096, Flags: 3}).AppendReply(nil, 1024) }, 0, 32, firstArgsz},
	{"region io fds", codec.CmdGetRegionIOFDs,
		func(ctx context.Context, d *Device) error {
			f, err := (&Region{device: d, Size: 4096}).IOFDs(ctx)
			if err == nil {
				f.Close()
			}
			return err
		},
		func(wire) []byte {
			return (&codec.IOFDs{Regions: []codec.IOFD{{Size: 4}}}).AppendReply(nil, 1024)
		}, 1, 16, firstArgsz},
	{"irq info", codec.CmdGetIRQInfo,
		func(ctx context.Context, d *Device) error { _, err := d.IRQInfo(ctx, IRQMSIX); return err },
		func(wire) []byte { return (&codec.IRQInfo{ArgSz: 16, Index: IRQMSIX}).Append(nil) }, 0, 16, 16},
	{"set irqs", codec.CmdSetIRQs,
		func(ctx context.Context, d *Device) error { return d.MaskIRQ(ctx, IRQMSIX, 0, 1) },
		func(wire) []byte { return nil }, 0, 0, 0},
	{"dma map", codec.CmdDMAMap,
		func(ctx context.Context, d *Device) error {
			return d.MapDMA(ctx, Mapping{IOVA: 0x1000, Size: 0x1000, FD: -1, Local: make([]byte, 0x1000)})
		},
		func(wire) []byte { return nil }, 0, 0, 0},
	{"dma unmap", codec.CmdDMAUnmap,
		func(ctx context.Context, d *Device) error { return d.UnmapDMA(ctx, 0x1000, 0x1000) },
		func(m wire) []byte { return m.Payload }, 0, 24, 24},
	{"dma unmap all", codec.CmdDMAUnmap,
		func(ctx context.Context, d *Device) error { return d.UnmapAllDMA(ctx) },
		func(m wire) []byte { return m.Payload }, 0, 24, 24},
	{"dma unmap with bitmap", codec.CmdDMAUnmap,
		func(ctx context.Context, d *Device) error {
			_, err := d.UnmapDirtyDMA(ctx, 0x1000, 0x1000, 4096)
			return err
		},
		func(m wire) []byte { return append(bytes.Clone(m.Payload), make([]byte, 8)...) }, 0, 48, 48},
	{"reset", codec.CmdReset, func(ctx context.Context, d *Device) error { return d.Reset(ctx) },
		func(wire) []byte { return nil }, 0, 0, 0},
	{"get feature", codec.CmdDeviceFeature,
		func(ctx context.Context, d *Device) error { _, err := d.MigrationState(ctx); return err },
		func(m wire) []byte { return append(bytes.Clone(m.Payload), codec.MigStop.Append(nil)...) }, 0, 8, 16},
	{"set feature", codec.CmdDeviceFeature,
		func(ctx context.Context, d *Device) error { return d.SetMigrationState(ctx, codec.MigStop) },
		func(m wire) []byte { return m.Payload }, 0, 8, 16},
	{"dirty bitmap", codec.CmdDeviceFeature,
		func(ctx context.Context, d *Device) error {
			_, err := d.DirtyBitmap(ctx, 0, 0x1000, 0x1000)
			return err
		},
		func(m wire) []byte { return append(bytes.Clone(m.Payload), make([]byte, 8)...) }, 0, 40, 40},
	{"migration data read", codec.CmdMigDataRead,
		func(ctx context.Context, d *Device) error {
			_, err := d.ReadMigrationData(ctx, make([]byte, 10))
			return err
		},
		func(wire) []byte { return (&codec.MigData{ArgSz: 18, Size: 10, Data: make([]byte, 10)}).Append(nil) }, 0, 8, 18},
	{"migration data write", codec.CmdMigDataWrite,
		func(ctx context.Context, d *Device) error {
			_, err := d.WriteMigrationData(ctx, make([]byte, 10))
			return err
		},
		func(wire) []byte { return nil }, 0, 0, 8},
}

// answer is a whole reply, with its header.
func (r *request) answer(m wire, change func(*codec.Header), payload []byte) []byte {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply, Size: uint32(codec.HeaderSize + len(payload))}
	if change != nil {
		change(&h)
	}
	return append(h.Append(nil), payload...)
}

// ward is where hostile servers are kept: their devices share a reactor with a healthy one, which must not notice.
type ward struct {
	reactor *reactor.Reactor
	healthy *Device
}

func newWard(t *testing.T) *ward {
	t.Helper()
	holdings.CheckLeaks(t)
	r, err := reactor.New(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	fd := newServer(t, func(s *server) { s.Handshake(); s.ServeAccesses() })
	healthy, err := AttachFD(testContext(t), fd, WithReactor(r))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { healthy.Close() })
	return &ward{r, healthy}
}

func mappings(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "memfd:")
}

// run attaches to a server that follows the script, and then refuses whatever comes. It checks what is left.
func (w *ward) run(t *testing.T, name string, script func(*server), check func(t *testing.T, ctx context.Context, d *Device)) {
	t.Run(name, func(t *testing.T) {
		before, mapped, goroutines := holdings.Descriptors(t), mappings(t), goleak.IgnoreCurrent()
		t.Cleanup(func() {
			goleak.VerifyNone(t, goleak.IgnoreTopFunction("vfiouser/engine/reactor.(*Reactor).loop"), goroutines)
			if n := holdings.Descriptors(t); n != before {
				t.Errorf("%d descriptors were open, %d are now", before, n)
			}
			if n := mappings(t); n != mapped {
				t.Errorf("%d mappings of memory before, %d now", mapped, n)
			}
		})
		attached := make(chan struct{})
		fd := newServer(t, func(s *server) {
			s.Caps.WriteMultiple = true
			s.Handshake()
			<-attached
			script(s)
			for !s.Closed() {
				m, ok := s.Next()
				if !ok {
					return
				}
				if !m.IsReply() {
					s.Refuse(m, unix.ENOENT)
				}
			}
		})
		d, err := AttachFD(testContext(t), fd, WithReactor(w.reactor))
		close(attached)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		check(t, testContext(t), d)
		if v, err := w.healthy.ReadRegion32(testContext(t), 0, 0x20); err != nil || v != 0x23222120 {
			t.Errorf("the healthy device: %#x, %v", v, err)
		}
	})
}

// eventfds are descriptors to send, which close closes.
func eventfds(n int) (fds []int, closeAll func()) {
	for range n {
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds, func() { reactor.CloseFDs(fds) }
}

// TestEveryRequestAnsweredWrongly answers every request of the client in every way that is wrong for all of them.
func TestEveryRequestAnsweredWrongly(t *testing.T) {
	w := newWard(t)
	const ends = true
	for i := range requests {
		r := &requests[i]
		change := func(do func(*codec.Header)) func(m wire) [][]byte {
			return func(m wire) [][]byte { return [][]byte{r.answer(m, do, r.good(m))} }
		}
		refusal := func(errno uint32) func(m wire) [][]byte {
			return func(m wire) [][]byte {
				return [][]byte{r.answer(m, func(h *codec.Header) { h.Flags |= codec.FlagError; h.Errno = errno }, nil)}
			}
		}
		for _, wrong := range []struct {
			name string
			send func(m wire) [][]byte // nothing: hang up
			fds  int
			want error // nil: the call succeeds
			ends bool
		}{
			{"right", change(nil), r.fds, nil, !ends},
			{"another id", change(func(h *codec.Header) { h.ID++ }), r.fds, ErrProtocol, ends},
			{"an id far away", change(func(h *codec.Header) { h.ID ^= 0x8000 }), r.fds, ErrProtocol, ends},
			{"the id of the slot's last use", change(func(h *codec.Header) { h.ID -= maxCalls }), r.fds, ErrProtocol, ends},
			{"another command", change(func(h *codec.Header) { h.Command = h.Command%13 + 1 }), r.fds, ErrProtocol, ends},
			{"an unknown command", change(func(h *codec.Header) { h.Command = 0xffff }), r.fds, ErrProtocol, ends},
			{"command 0", change(func(h *codec.Header) { h.Command = 0 }), r.fds, ErrProtocol, ends},
			{"neither command nor reply", change(func(h *codec.Header) { h.Flags = 7 }), r.fds, ErrProtocol, ends},
			{"a size below the header's", change(func(h *codec.Header) { h.Size = 15 }), r.fds, ErrProtocol, ends},
			{"size 0", change(func(h *codec.Header) { h.Size = 0 }), r.fds, ErrProtocol, ends},
			{"a size of 2 GiB", change(func(h *codec.Header) { h.Size = 1 << 31 }), r.fds, ErrProtocol, ends},
			{"a size of 4 GiB", change(func(h *codec.Header) { h.Size = 1<<32 - 1 }), r.fds, ErrProtocol, ends},
			{"a byte too many", func(m wire) [][]byte { return [][]byte{r.answer(m, nil, make([]byte, r.most+1))} }, r.fds, ErrProtocol, ends},
			{"a megabyte too many", func(m wire) [][]byte { return [][]byte{r.answer(m, nil, make([]byte, 1<<20))} }, r.fds, ErrProtocol, ends},
			{"an errno of 0", refusal(0), 0, unix.EINVAL, !ends},
			{"an errno", refusal(uint32(unix.ENOSPC)), 0, unix.ENOSPC, !ends},
			{"the largest errno", refusal(4095), 0, unix.Errno(4095), !ends},
			{"an errno that Linux has not", refusal(4096), 0, unix.EINVAL, !ends},
			{"a negative errno", refusal(1<<32 - 1), 0, unix.EINVAL, !ends},
			{"an error with a payload", func(m wire) [][]byte {
				return [][]byte{r.answer(m, func(h *codec.Header) { h.Flags |= codec.FlagError; h.Errno = 28 }, make([]byte, 100))}
			}, 0, unix.ENOSPC, !ends},
			{"an error with descriptors", refusal(uint32(unix.ENOSPC)), 3, unix.ENOSPC, !ends},
			{"too many descriptors", change(nil), maxFDs + 1, ErrProtocol, ends},
			{"nothing", func(wire) [][]byte { return nil }, 0, ErrDisconnected, ends},
			{"twice", func(m wire) [][]byte { b := r.answer(m, nil, r.good(m)); return [][]byte{b, b} }, r.fds, nil, ends},
			{"an error after the answer", func(m wire) [][]byte {
				return [][]byte{r.answer(m, nil, r.good(m)), refusal(5)(m)[0]}
			}, r.fds, nil, ends},
			{"nothing in it", func(m wire) [][]byte { return [][]byte{r.answer(m, nil, nil)} }, r.fds, ErrProtocol, ends},
			{"a byte too few", func(m wire) [][]byte { return [][]byte{r.answer(m, nil, make([]byte, max(r.least-1, 0)))} }, r.fds, ErrProtocol, ends},
			{"ones", func(m wire) [][]byte { return [][]byte{r.answer(m, nil, bytes.Repeat([]byte{0xff}, r.most))} }, r.fds, ErrProtocol, ends},
		} {
			if r.least == 0 && (wrong.name == "nothing in it" || wrong.name == "a byte too few" || wrong.name == "ones") {
				continue // that is right
			}
			w.run(t, r.name+"/"+wrong.name, func(s *server) {
				m := s.Want(r.command)
				fds, closeAll := eventfds(wrong.fds)
				defer closeAll()
				pieces := wrong.send(m)
				for _, b := range pieces {
					s.Send(b, fds...)
					fds = nil
				}
				if len(pieces) == 0 {
					s.Close()
				}
			}, func(t *testing.T, ctx context.Context, d *Device) {
				err := r.do(ctx, d)
				// The second of two replies may have come with the first.
				if !errors.Is(err, wrong.want) && !(wrong.want == nil && wrong.ends && errors.Is(err, ErrProtocol)) {
					t.Errorf("error %v, want %v", err, wrong.want)
				}
				if wrong.ends {
					want := wrong.want
					if want == nil {
						want = ErrProtocol
					}
					ended(t, d, want)
				} else if d.Err() != nil {
					t.Errorf("the session has ended: %v", d.Err())
				}
			})
		}
	}
}

// TestEveryReplyEndsAtEveryByte hangs up after each byte of the right answer to each request.
func TestEveryReplyEndsAtEveryByte(t *testing.T) {
	w := newWard(t)
	for i := range requests {
		r := &requests[i]
		sizes := 64 // at most, of an answer
		for n := range sizes {
			short, succeeded := false, false
			w.run(t, r.name+"/"+strconv.Itoa(n), func(s *server) {
				m := s.Want(r.command)
				fds, closeAll := eventfds(r.fds)
				defer closeAll()
				b := r.answer(m, nil, r.good(m))
				if short = n < len(b); short {
					s.Send(b[:n], fds...)
					s.Close()
				} else {
					s.Send(b, fds...)
				}
			}, func(t *testing.T, ctx context.Context, d *Device) {
				err := r.do(ctx, d)
				if succeeded = err == nil; succeeded {
					return
				}
				if !errors.Is(err, ErrDisconnected) {
					t.Error(err)
				}
				ended(t, d, ErrDisconnected)
			})
			if succeeded == short {
				t.Errorf("%s: %d bytes are a reply: %v", r.name, n, succeeded)
			}
			if !short {
				break
			}
		}
	}
}

// TestAttachEndsAtEveryByte hangs up after each byte of the replies to VERSION and GET_INFO.
func TestAttachEndsAtEveryByte(t *testing.T) {
	caps := codec.Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 8192, MaxDMAMaps: 10, PgSizes: 4096, WriteMultiple: true,
		TwinSocket: &codec.TwinSocket{}, Migration: &codec.MigrationCaps{PgSize: 4096, MaxBitmapSize: 1 << 20}}
	version := (&codec.VersionMsg{Minor: 1, Caps: caps}).Append(nil)
	info := (&codec.DeviceInfo{ArgSz: 16, Flags: 3, NumRegions: 9, NumIRQs: 5}).Append(nil)
	whole := codec.HeaderSize + len(version)
	for n := range whole + codec.HeaderSize + len(info) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			holdings.CheckLeaks(t)
			fd := newServer(t, func(s *server) {
				r := request{}
				s.Send(r.answer(s.Want(codec.CmdVersion), nil, version)[:min(n, whole)])
				if n >= whole {
					s.Send(r.answer(s.Want(codec.CmdGetInfo), nil, info)[:n-whole])
				}
			})
			if _, err := AttachFD(testContext(t), fd); !errors.Is(err, ErrDisconnected) {
				t.Error(err)
			}
		})
	}
}

// TestVersionReplies answers VERSION with data of all kinds.
func TestVersionReplies(t *testing.T) {
	caps := func(s string) string { return `{"capabilities":{` + s + "}}\x00" }
	for name, test := range map[string]struct {
		data string
		want error // nil: the server is accepted
	}{
		"no data":                       {"", nil},
		"no capabilities":               {"{}\x00", nil},
		"empty capabilities":            {caps(""), nil},
		"unknown members":               {`{"a":1,"capabilities":{"b":[1,{}],"c":null}}` + "\x00", nil},
		"white space":                   {" {\n\t\"capabilities\" : { } } \x00", nil},
		"something behind the NUL":      {"{}\x00garbage\x00", nil},
		"nothing but a NUL":             {"\x00", codec.ErrJSON},
		"an array":                      {"[]\x00", codec.ErrJSON},
		"a number":                      {"1\x00", codec.ErrJSON},
		"null":                          {"null\x00", codec.ErrJSON},
		"a string":                      {"\"{}\"\x00", codec.ErrJSON},
		"cut":                           {"{\"capabilities\":{\x00", codec.ErrJSON},
		"no NUL":                        {"{}", codec.ErrJSON},
		"garbage":                       {"\xff\xfe\x80\x00", codec.ErrJSON},
		"objects in objects":            {strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000) + "\x00", nil},
		"arrays that never end":         {strings.Repeat("[", 8000) + "\x00", codec.ErrJSON},
		"capabilities that are a list":  {`{"capabilities":[]}` + "\x00", codec.ErrJSON},
		"capabilities that are null":    {`{"capabilities":null}` + "\x00", codec.ErrJSON},
		"a negative number":             {caps(`"max_msg_fds":-1`), codec.ErrJSON},
		"a fraction":                    {caps(`"max_msg_fds":1.5`), codec.ErrJSON},
		"an exponent":                   {caps(`"max_msg_fds":1e3`), codec.ErrJSON},
		"a number in quotes":            {caps(`"max_msg_fds":"1"`), codec.ErrJSON},
		"a number of 65 bits":           {caps(`"max_data_xfer_size":36893488147419103232`), codec.ErrJSON},
		"null for a number":             {caps(`"max_dma_maps":null`), codec.ErrJSON},
		"a number for a boolean":        {caps(`"write_multiple":1`), codec.ErrJSON},
		"null for a boolean":            {caps(`"write_multiple":null`), codec.ErrJSON},
		"a boolean for an object":       {caps(`"twin_socket":true`), codec.ErrJSON},
		"migration that is a number":    {caps(`"migration":4096`), codec.ErrJSON},
		"a page size that is a string":  {caps(`"migration":{"pgsize":"4096"}`), codec.ErrJSON},
		"fd_index that is negative":     {caps(`"twin_socket":{"supported":true,"fd_index":-1}`), codec.ErrJSON},
		"no descriptors in a message":   {caps(`"max_msg_fds":0`), nil},
		"descriptors without end":       {caps(`"max_msg_fds":18446744073709551615`), nil},
		"no data in a message":          {caps(`"max_data_xfer_size":0`), ErrProtocol},
		"less than a register":          {caps(`"max_data_xfer_size":7`), ErrProtocol},
		"a register":                    {caps(`"max_data_xfer_size":8`), nil},
		"data without end":              {caps(`"max_data_xfer_size":18446744073709551615`), nil},
		"no DMA regions":                {caps(`"max_dma_maps":0`), nil},
		"no page sizes":                 {caps(`"pgsizes":0`), nil},
		"bitmaps of nothing":            {caps(`"migration":{"pgsize":0,"max_bitmap_size":1}`), nil},
		"a member twice":                {caps(`"max_msg_fds":1,"max_msg_fds":2`), nil},
		"a twin socket that none asked": {caps(`"twin_socket":{"supported":true,"fd_index":0}`), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			fd := newServer(t, func(s *server) {
				s.Reply(s.Want(codec.CmdVersion), append([]byte{0, 0, 1, 0}, test.data...))
				if m, ok := s.Next(); ok {
					s.Reply(m, s.Info.Append(nil))
					s.ServeAccesses()
				}
			})
			d, err := AttachFD(testContext(t), fd)
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if test.want != nil && !errors.Is(err, ErrProtocol) {
				t.Errorf("%v is no protocol error", err)
			}
			if err != nil {
				return
			}
			defer d.Close()
			p := make([]byte, 100)
			if err := d.ReadRegion(testContext(t), 0, 0, p); err != nil || p[99] != 99 {
				t.Error(err)
			}
			if _, err := d.ReadRegion64(testContext(t), 0, 0); err != nil {
				t.Error(err)
			}
		})
	}
}
