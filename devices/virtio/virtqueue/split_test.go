package virtqueue

import (
	"testing"

	"vfiouser/devices/virtio/spec"
)

func take(t *testing.T, q *Queue, chains []Chain, want int) []Chain {
	t.Helper()
	n, err := q.Take(chains)
	must(t, err)
	if n != want {
		t.Fatalf("took %d chains, want %d", n, want)
	}
	return chains[:n]
}

func TestChainOfReadableAndWritable(t *testing.T) {
	modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
		copy(s.g.at(dataAt, 6), "abcdef")
		s.desc(3, spec.Desc{Addr: dataAt, Len: 2, Flags: spec.DescNext, Next: 0})
		s.desc(0, spec.Desc{Addr: dataAt + 2, Len: 4, Flags: spec.DescNext, Next: 7})
		s.desc(7, spec.Desc{Addr: dataAt + 100, Len: 10, Flags: spec.DescNext | spec.DescWrite, Next: 1})
		s.desc(1, spec.Desc{Addr: dataAt + 200, Len: 10, Flags: spec.DescWrite})
		s.offer(3)
		if q.Available() != 1 {
			t.Errorf("%d available", q.Available())
		}
		c := &take(t, q, make([]Chain, 4), 1)[0]
		if len(c.Readable) != 2 || string(c.Readable[0])+string(c.Readable[1]) != "abcdef" || c.ReadableLen != 6 {
			t.Errorf("readable %q, %d bytes", c.Readable, c.ReadableLen)
		}
		if len(c.Writable) != 2 || c.WritableLen != 20 {
			t.Errorf("writable %d buffers, %d bytes", len(c.Writable), c.WritableLen)
		}
		copy(c.Writable[0], "0123456789")
		copy(c.Writable[1], "xyz")
		q.Push(c, 13)
		if s.used16(spec.UsedIndex) != 0 {
			t.Error("visible before Publish")
		}
		if !q.Publish() {
			t.Error("no interrupt")
		}
		if id, n := s.used(0); id != 3 || n != 13 || s.used16(spec.UsedIndex) != 1 {
			t.Errorf("used: head %d, %d bytes, index %d", id, n, s.used16(spec.UsedIndex))
		}
		if a, b := string(s.g.at(dataAt+100, 10)), string(s.g.at(dataAt+200, 3)); a != "0123456789" || b != "xyz" {
			t.Errorf("wrote %q and %q", a, b)
		}
		if q.Publish() {
			t.Error("an interrupt for nothing")
		}
	})
}

func TestUntakeMakesAvailableAgain(t *testing.T) {
	modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
		for i := range 5 {
			s.desc(i, spec.Desc{Addr: dataAt + uint64(i), Len: 1})
			s.g.at(dataAt+uint64(i), 1)[0] = byte(i)
		}
		s.offer(0, 1, 2, 3, 4)
		chains := make([]Chain, 8)
		take(t, q, chains, 5)
		q.Untake(3)
		if q.Available() != 3 {
			t.Errorf("%d available", q.Available())
		}
		again := take(t, q, make([]Chain, 2), 2)
		if again[0].Readable[0][0] != 2 || again[1].Readable[0][0] != 3 {
			t.Error("not the same chains")
		}
	})
}

func TestNotificationsAndInterrupts(t *testing.T) {
	for _, event := range []bool{false, true} {
		name := map[bool]string{false: "flags", true: "event index"}[event]
		t.Run(name, func(t *testing.T) {
			modes(t, Config{Size: 4, EventIdx: event}, func(t *testing.T, s *rawSplit, q *Queue) {
				s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
				chains := make([]Chain, 4)
				turn := func() bool {
					s.offer(0)
					take(t, q, chains, 1)
					q.Push(&chains[0], 0)
					return q.Publish()
				}
				avail := s.g.at(s.cfg.Driver, int(spec.AvailBytes(4)))
				if event {
					avail[spec.UsedEventOffset(4)] = 1 // the second
				} else {
					avail[spec.AvailFlags] = spec.AvailNoInterrupt
				}
				if turn() {
					t.Error("interrupt that was not wanted")
				}
				avail[spec.AvailFlags] = 0
				if !turn() {
					t.Error("no interrupt")
				}
				q.Disarm()
				if !event && s.used16(spec.UsedFlags) != spec.UsedNoNotify {
					t.Error("Disarm did not set the flag")
				}
				if q.Arm() {
					t.Error("pending with nothing there")
				}
				if event && s.used16(spec.AvailEventOffset(4)) != 2 || s.used16(spec.UsedFlags) != 0 {
					t.Error("Arm did not ask for a notification")
				}
				s.offer(0)
				if !q.Arm() {
					t.Error("not pending with one there")
				}
			})
		})
	}
}

func TestIndirectTable(t *testing.T) {
	modes(t, Config{Size: 4, Indirect: true}, func(t *testing.T, s *rawSplit, q *Queue) {
		copy(s.g.at(dataAt, 3), "abc")
		s.g.desc(tablesAt, 0, spec.Desc{Addr: dataAt + 1, Len: 1, Flags: spec.DescNext, Next: 2})
		s.g.desc(tablesAt, 2, spec.Desc{Addr: dataAt + 2, Len: 1, Flags: spec.DescNext, Next: 1})
		s.g.desc(tablesAt, 1, spec.Desc{Addr: dataAt + 3, Len: 7, Flags: spec.DescWrite})
		s.desc(0, spec.Desc{Addr: dataAt, Len: 1, Flags: spec.DescNext, Next: 1})
		s.desc(1, spec.Desc{Addr: tablesAt, Len: 3 * spec.DescSize, Flags: spec.DescIndirect | spec.DescWrite})
		s.offer(0)
		c := take(t, q, make([]Chain, 1), 1)[0]
		if len(c.Readable) != 3 || string(c.Readable[0])+string(c.Readable[1])+string(c.Readable[2]) != "abc" || c.WritableLen != 7 {
			t.Errorf("%q, %d bytes to write", c.Readable, c.WritableLen)
		}
	})
}
