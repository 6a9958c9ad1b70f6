package hostile

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
)

// header is the header of a GET_INFO of the given size.
func header(size uint32, flags codec.Flags) []byte {
	return codec.Header{ID: 1, Command: codec.CmdGetInfo, Size: size, Flags: flags}.Append(nil)
}

func TestBrokenFrames(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"a header that claims 4 GiB", header(1<<32-1, 0)},
		{"a header that claims 2 MiB", header(2<<20, 0)},
		{"size 0", header(0, 0)},
		{"size 15", header(15, 0)},
		{"a reply without request", header(16, codec.FlagReply)},
		{"an error reply without request", header(16, codec.FlagReply|codec.FlagError)},
		{"a reply that claims 4 GiB", header(1<<32-1, codec.FlagReply)},
		{"type 2", header(16, 2)},
		{"type 15", header(16, 15)},
	} {
		l.attack(t, c.name+", before VERSION", func(a *attack) {
			s := a.dial()
			s.must(c.bytes)
			s.ended()
		})
		l.attack(t, c.name, func(a *attack) {
			s := a.session()
			s.must(c.bytes)
			s.ended()
		})
		l.attack(t, c.name+", byte by byte", func(a *attack) {
			s := a.session()
			for i := range c.bytes {
				s.must(c.bytes[i : i+1])
			}
			s.ended()
		})
	}
}

func TestSilence(t *testing.T) {
	l := newImpatientLab(t, nvme.Trap, impatience)
	whole := (&raw{}).message(codec.CmdGetInfo, 0, make([]byte, codec.DeviceInfoSize))
	for _, c := range []struct {
		name   string
		bytes  []byte
		before bool // try it before VERSION, too, which takes the time-out
	}{
		{"a silent connection", nil, true},
		{"one byte", whole[:1], false},
		{"half a header", whole[:8], true},
		{"a header", whole[:codec.HeaderSize], false},
		{"half a payload", whole[:codec.HeaderSize+codec.DeviceInfoSize/2], true},
	} {
		if c.before {
			l.attack(t, c.name+", before VERSION", func(a *attack) {
				s := a.dial()
				s.must(c.bytes)
				s.ended()
			})
		}
		l.attack(t, c.name, func(a *attack) {
			s := a.session()
			s.must(c.bytes)
		})
		l.attack(t, c.name+", then nothing more to come", func(a *attack) {
			s := a.session()
			s.must(c.bytes)
			if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
				a.Fatal(err)
			}
			s.ended()
		})
	}
}

func TestCommandsOutOfPlace(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "commands before VERSION", func(a *attack) {
		s := a.dial()
		for cmd := codec.Command(2); cmd < 25; cmd++ {
			s.refused(unix.EINVAL, cmd, make([]byte, 64))
		}
		s.negotiate().alive()
	})
	l.attack(t, "commands that do not exist", func(a *attack) {
		s := a.session()
		for _, cmd := range []codec.Command{0, 14, 19, 255, 1 << 15, 1<<16 - 1} {
			s.refused(unix.EINVAL, cmd, nil)
			s.refused(unix.EINVAL, cmd, make([]byte, 1<<20))
		}
		s.alive()
	})
	l.attack(t, "commands that are the server's", func(a *attack) {
		s := a.session()
		s.refused(unix.EINVAL, codec.CmdDMARead, make([]byte, codec.DMAAccessSize))
		s.refused(unix.EINVAL, codec.CmdDMAWrite, make([]byte, codec.DMAAccessSize))
		s.alive()
	})
	l.attack(t, "payloads of every length", func(a *attack) {
		s := a.session()
		for cmd := codec.CmdDMAMap; cmd < codec.NumCommands; cmd++ {
			op, known := codec.Lookup(cmd)
			for n := range 48 {
				_, err := s.try(cmd, make([]byte, n))
				errno, _ := err.(unix.Errno)
				if err != nil && errno == 0 {
					a.Fatalf("%v with %d bytes: %v", cmd, n, err)
				}
				if known && op.Direction == codec.ToServer && n < op.RequestSize && err == nil {
					a.Errorf("%v with %d bytes is served", cmd, n)
				}
			}
		}
		s.alive()
	})
	l.attack(t, "a payload of 1 MiB", func(a *attack) {
		s := a.session()
		for cmd := codec.CmdDMAMap; cmd < codec.NumCommands; cmd++ {
			_, err := s.try(cmd, bytes.Repeat([]byte{0xff}, 1<<20))
			if harmless := cmd == codec.CmdGetInfo || cmd == codec.CmdReset; err == nil && !harmless {
				a.Errorf("%v of all ones is served", cmd)
			}
		}
		s.alive()
	})
}

func TestVersion(t *testing.T) {
	l := newLab(t, nvme.Trap)
	good := codec.VersionMsg{Minor: 1}
	for _, c := range []struct {
		name    string
		payload []byte
	}{
		{"no payload", nil},
		{"half a version", []byte{0, 0, 1}},
		{"major version 1", (&codec.VersionMsg{Major: 1}).Append(nil)},
		{"not JSON", append(good.Append(nil)[:4], "nonsense\x00"...)},
		{"JSON without end", append(good.Append(nil)[:4], `{"capabilities":{`+"\x00"...)},
		{"no NUL", append(good.Append(nil)[:4], `{}`...)},
		{"a deep list", append(good.Append(nil)[:4], append(bytes.Repeat([]byte{'['}, 1<<20-100), 0)...)},
		{"a negative size", append(good.Append(nil)[:4], `{"capabilities":{"max_data_xfer_size":-1}}`+"\x00"...)},
		{"no data at all", append(good.Append(nil)[:4], `{"capabilities":{"max_data_xfer_size":0}}`+"\x00"...)},
		{"no page size", append(good.Append(nil)[:4], `{"capabilities":{"pgsizes":0}}`+"\x00"...)},
	} {
		l.attack(t, c.name, func(a *attack) {
			s := a.dial()
			s.refused(unix.EINVAL, codec.CmdVersion, c.payload)
			s.ended()
			a.session().alive()
		})
	}
	l.attack(t, "VERSION twice", func(a *attack) {
		s := a.session()
		s.refused(unix.EINVAL, codec.CmdVersion, good.Append(nil))
		s.alive()
	})
}

// TestNoise sends what is no protocol at all, and what only looks like it.
func TestNoise(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "random bytes", func(a *attack) {
		r := a.random()
		b := make([]byte, 64<<10)
		for range 50 {
			garbage(r, b)
			s := a.dial()
			_ = s.send(b)
			s.close()
			s = a.session()
			_ = s.send(b)
			s.close()
		}
	})
	l.attack(t, "random commands", func(a *attack) {
		r := a.random()
		ram := a.newRAM(1 << 20)
		s := a.session()
		for range 20_000 {
			payload := make([]byte, r.IntN(80))
			if r.IntN(2) == 0 {
				garbage(r, payload)
			} else { // small numbers, which mean something
				for i := 0; i < len(payload); i += 4 {
					payload[i] = byte(r.Uint32N(40))
				}
			}
			var fds []int
			if r.IntN(8) == 0 {
				fds = append(fds, ram.fd)
			}
			flags := codec.Flags(0)
			if r.IntN(4) > 0 {
				flags = codec.FlagNoReply
			}
			s.must(s.message(codec.Command(r.Uint32N(codec.NumCommands+1)), flags, payload), fds...)
			if flags == 0 {
				if _, _, err := s.reply(); err != nil {
					a.Fatal(err)
				}
			}
		}
		s.alive()
	})
}
