package hostile

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
)

func TestConnections(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "1,000 at once", func(a *attack) {
		for range 1000 {
			a.dial()
		}
	})
	l.attack(t, "1,000 beside a session", func(a *attack) {
		s := a.session()
		for range 1000 {
			a.dial().ended()
		}
		s.alive()
	})
	l.attack(t, "1,000 one after the other", func(a *attack) {
		for range 1000 {
			a.dial().close()
		}
	})
	l.attack(t, "200 sessions one after the other", func(a *attack) {
		for i := range 200 {
			s := a.session()
			if i%2 == 0 {
				s.alive()
			}
			s.close()
		}
	})
}

func TestRepliesThatNobodyReads(t *testing.T) {
	l := newImpatientLab(t, nvme.Trap, impatience)
	for _, c := range []struct {
		name string
		size int
	}{
		{"small ones", 8},
		{"large ones", 16 << 10},
	} {
		l.attack(t, c.name, func(a *attack) {
			s := a.session()
			ask := (&codec.RegionAccess{Count: uint32(c.size)}).AppendHead(nil)
			if err := unix.SetNonblock(s.fd, true); err != nil {
				a.Fatal(err)
			}
			var err error
			for err == nil {
				err = s.send(s.message(codec.CmdRegionRead, 0, ask))
			}
			if err != unix.EAGAIN {
				a.Fatal(err)
			}
			l.healthy.goesOn(a.T, l.healthy.mark())
			if err := unix.SetNonblock(s.fd, false); err != nil {
				a.Fatal(err)
			}
			// The server hangs up in the end; until then it may be written to.
			for err == unix.EAGAIN || err == nil {
				err = s.send(s.message(codec.CmdRegionRead, 0, ask))
			}
			if err != unix.EPIPE && err != unix.ECONNRESET {
				a.Fatal(err)
			}
		})
	}
	l.attack(t, "but the first of many", func(a *attack) {
		s := a.session()
		ask := s.message(codec.CmdRegionRead, 0, readCAP)
		var b []byte
		for range 1000 {
			b = append(b, ask...)
		}
		s.must(b)
		if _, _, err := s.reply(); err != nil {
			a.Fatal(err)
		}
	})
}
