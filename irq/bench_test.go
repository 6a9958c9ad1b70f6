package irq

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkTrigger is to be compared with BenchmarkBareWrite: the difference is
// what mask, pending state and ownership cost.
func BenchmarkTrigger(b *testing.B) {
	s := newSet(b, counts)
	must(b, s.SetEventfds(MSIX, 0, []int{dup(b, newEventfd(b))}))
	v := s.Vector(MSIX, 0)
	for b.Loop() {
		if err := v.Trigger(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBareWrite(b *testing.B) {
	fd := newEventfd(b)
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	for b.Loop() {
		if _, err := unix.Write(fd, one); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTriggerMasked(b *testing.B) {
	s := newSet(b, counts)
	must(b, s.Mask(MSIX, 0, 1, nil))
	v := s.Vector(MSIX, 0)
	for b.Loop() {
		if err := v.Trigger(); err != nil {
			b.Fatal(err)
		}
	}
}
