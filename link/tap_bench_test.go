package link_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// BenchmarkTapSend is what a frame to the kernel costs, up to where it is thrown away.
func BenchmarkTapSend(b *testing.B) {
	for _, size := range []int{60, 1514, 65000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			inNamespace(b)
			l := open(b, newSet(b), "tap:vt0,up=on")
			card, port := attach(b, l)
			port.SetOffloads(vnet.OffloadAll, 1)
			awaitCarrier(card, true)
			data := make([][]byte, 32)
			for i := range data {
				data[i] = numbered(size, i)
			}
			frames := linktest.Frames(data...)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(frames) {
				port.Send(0, frames)
			}
		})
	}
}

// BenchmarkTapPollEmpty is what a worker pays for a tap on which nothing comes, while it
// polls for something else: once it has given up to look each time, and once it sleeps in
// between.
func BenchmarkTapPollEmpty(b *testing.B) {
	inNamespace(b)
	l := open(b, newSet(b), "tap:vt0")
	port, err := l.Attach(&sink{})
	must(b, err)
	b.Cleanup(func() { must(b, port.Close()) })
	port.SetOffloads(vnet.OffloadAll, 1)
	b.Run("awake", func(b *testing.B) {
		for range b.N {
			port.Poll(0)
		}
	})
	b.Run("armed", func(b *testing.B) {
		port.Arm(0)
		for range b.N {
			port.Poll(0)
		}
	})
}

// BenchmarkTapRoundTrip is a frame from the kernel to a card that sleeps, and back.
func BenchmarkTapRoundTrip(b *testing.B) {
	inNamespace(b)
	l := open(b, newSet(b), "tap:vt0,up=on")
	card := &echo{wake: make(chan struct{}, 1)}
	port, err := l.Attach(card)
	must(b, err)
	card.port = port // nothing comes before the next line
	port.SetOffloads(vnet.OffloadAll, 1)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if port.Poll(0) > 0 || port.Arm(0) {
				continue
			}
			select {
			case <-card.wake:
			case <-stop:
				return
			}
		}
	}()
	b.Cleanup(func() {
		close(stop)
		<-done
		must(b, port.Close())
	})
	awaitRunning(b, "vt0")
	next := hostSees(b, "vt0")
	s := rawSocket(b, "vt0")
	f := numbered(60, 0)
	b.ResetTimer()
	for range b.N {
		_, err := unix.Write(s, f)
		must(b, err)
		for len(next()) != 60 {
		}
	}
}

type echo struct {
	port link.Port
	wake chan struct{}
}

func (e *echo) Receive(q int, f []vnet.Frame) int { return e.port.Send(q, f) }
func (e *echo) SetCarrier(bool)                   {}
func (e *echo) Announce()                         {}

func (e *echo) Wake(int) {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
