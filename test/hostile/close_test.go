package hostile

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/irq"
)

// Whatever its client does, an endpoint can be closed for good.
func TestCloseUnderAttack(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(a *attack)
	}{
		{"a message that does not end", func(a *attack) { a.session().must(header(100, 0)) }},
		{"replies that nobody reads", func(a *attack) {
			s := a.session()
			if err := unix.SetNonblock(s.fd, true); err != nil {
				a.Fatal(err)
			}
			for s.send(s.message(codec.CmdRegionRead, 0, readCAP)) == nil { // as much as fits
			}
		}},
		{"a descriptor that takes long to close", func(a *attack) {
			s := a.session()
			b := s.message(codec.CmdRegionRead, 0, readCAP)
			s.sendLingering(b[:20], 1)
			s.must(b[20:])
			if _, _, err := s.reply(); err != nil {
				a.Fatal(err)
			}
		}},
		{"messages that are not answered", func(a *attack) {
			g := a.newMessageRig(16 << 20)
			g.fillQueues(reads(memNS))
		}},
		{"full queues", func(a *attack) { a.newRig(16 << 20).fillQueues(reads(fileNS)) }},
		{"memory that is gone", func(a *attack) {
			g := a.newRig(16 << 20)
			g.fillQueues(reads(fileNS))
			g.ram.truncate(0)
		}},
		{"an eventfd that blocks", func(a *attack) {
			g, p := a.started(1024)
			fd := a.eventfd()
			g.call(codec.CmdSetIRQs, setIRQs(assign, irq.MSIX, 1, 1), fd)
			a.block(fd)
			p.flood(memNS, ramBase+g.ram.alloc(pageSize))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nvme.Trap)
			a := &attack{T: t, lab: l}
			defer a.over()
			mark := l.healthy.mark()
			c.run(a)
			begin := time.Now()
			if err := l.victim.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > 2*longestPause {
				t.Errorf("that took %v", took)
			}
			l.healthy.goesOn(t, mark)
		})
	}
}
