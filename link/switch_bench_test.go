package link_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// quiet is a card that only counts.
type quiet struct {
	linktest.Card
	frames int
}

func (c *quiet) Receive(_ int, frames []vnet.Frame) int {
	c.frames += len(frames)
	return len(frames)
}

// full is n cards on a switch, all known to it, and frames from the first to the others.
func full(tb testing.TB, n, batch, run int) (link.Port, []vnet.Frame) {
	sw := link.NewSwitch(link.SwitchConfig{})
	var ports []link.Port
	for i := range uint32(n) {
		port, err := sw.Attach(&quiet{})
		must(tb, err)
		port.SetOffloads(vnet.OffloadAll, 1)
		port.Send(0, linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(i), nil)))
		ports = append(ports, port)
		tb.Cleanup(func() { must(tb, port.Close()) })
	}
	var frames []vnet.Frame
	for i := range batch {
		to := linktest.Station(uint32(1 + i/run%(n-1)))
		frames = append(frames, linktest.Frames(linktest.Ethernet(to, linktest.Station(0), make([]byte, 50)))...)
	}
	return ports[0], frames
}

func TestSwitchDoesNotAllocate(t *testing.T) {
	for _, run := range []int{1, 32} {
		port, frames := full(t, 8, 64, run)
		frames = append(frames, linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(0), nil))...)
		if n := testing.AllocsPerRun(100, func() { port.Send(0, frames) }); n != 0 {
			t.Errorf("runs of %d: %v allocations", run, n)
		}
	}
}

func BenchmarkSwitch(b *testing.B) {
	for _, c := range []struct{ cards, batch, run int }{{2, 1, 1}, {2, 32, 32}, {8, 32, 32}, {8, 32, 8}, {8, 32, 1}} {
		b.Run(fmt.Sprintf("%d cards, batches of %d, runs of %d", c.cards, c.batch, c.run), func(b *testing.B) {
			port, frames := full(b, c.cards, c.batch, c.run)
			b.ReportAllocs()
			for b.Loop() {
				port.Send(0, frames)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.batch), "ns/frame")
		})
	}
}

// Frames that are in no cache, as those of a driver on another core.
func BenchmarkSwitchColdFrames(b *testing.B) {
	port, frames := full(b, 2, 32, 32)
	memory := make([]byte, 1<<28)
	cold := make([][]vnet.Frame, 4096)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range cold {
		for _, f := range frames {
			at := rnd.IntN(len(memory)/2048) * 2048
			copy(memory[at:], f.Parts[0])
			cold[i] = append(cold[i], vnet.Frame{Parts: [][]byte{memory[at:][:f.Len]}, Len: f.Len})
		}
	}
	for i := 0; b.Loop(); i++ {
		port.Send(0, cold[i%len(cold)])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*32), "ns/frame")
}

// What a card that invents addresses costs itself.
func BenchmarkSwitchNewAddresses(b *testing.B) {
	port, frames := full(b, 2, 32, 32)
	for n := uint64(0); b.Loop(); {
		for i := range frames {
			n++
			binary.BigEndian.PutUint32(frames[i].Parts[0][8:], uint32(n))
		}
		port.Send(0, frames)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*32), "ns/frame")
}
