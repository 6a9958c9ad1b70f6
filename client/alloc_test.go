package client

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// echoServer answers region accesses without allocating: it turns the request into its reply.
func echoServer(s *server) {
	b, reply := make([]byte, 4096), make([]byte, 128)
	for have := 0; ; {
		for have < codec.HeaderSize || have < int(header(b).Size) {
			n, err := unix.Read(s.FD(), b[have:])
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			have += n
		}
		h := header(b)
		size := int(h.Size)
		if !h.NoReply() {
			data := int(b[codec.HeaderSize+12])
			h.Flags = codec.FlagReply
			h.Size = codec.HeaderSize + codec.RegionAccessSize
			if h.Command == codec.CmdRegionRead {
				h.Size += uint32(data)
			}
			out := reply[:h.Size]
			copy(out, b)
			h.Put(out)
			if _, err := unix.Write(s.FD(), out); err != nil {
				return
			}
		}
		have = copy(b, b[size:have])
	}
}

func header(b []byte) codec.Header {
	h, _ := codec.DecodeHeader(b)
	return h
}

func TestRegionAccessDoesNotAllocate(t *testing.T) {
	d := attach(t, echoServer)
	ctx := context.Background()
	p := make([]byte, 8)
	for name, access := range map[string]func() error{
		"ReadRegion":    func() error { return d.ReadRegion(ctx, 0, 0x1000, p) },
		"WriteRegion":   func() error { return d.WriteRegion(ctx, 0, 0x1000, p) },
		"PostRegion":    func() error { return d.PostRegion(ctx, 0, 0x1000, p) },
		"ReadRegion32":  func() error { _, err := d.ReadRegion32(ctx, 0, 0x1000); return err },
		"ReadRegion64":  func() error { _, err := d.ReadRegion64(ctx, 0, 0x1000); return err },
		"WriteRegion32": func() error { return d.WriteRegion32(ctx, 0, 0x1000, 1) },
		"WriteRegion64": func() error { return d.WriteRegion64(ctx, 0, 0x1000, 1) },
		"PostRegion32":  func() error { return d.PostRegion32(ctx, 0, 0x1000, 1) },
	} {
		n := testing.AllocsPerRun(200, func() {
			if err := access(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
