package link_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// station is a card on a switch and what a test knows of it.
type station struct {
	card *linktest.Card
	port link.Port
	mac  linktest.MAC
}

func stations(t testing.TB, l link.Link, n int) []station {
	t.Helper()
	all := make([]station, n)
	for i := range all {
		all[i].card, all[i].port = attach(t, l)
		all[i].mac = linktest.Station(uint32(i + 1))
		all[i].port.SetOffloads(vnet.OffloadAll, 2)
	}
	return all
}

// send sends one frame with a number from a station.
func (s station) send(t testing.TB, to linktest.MAC, number byte) {
	t.Helper()
	if n := s.port.Send(0, linktest.Frames(linktest.Ethernet(to, s.mac, []byte{number}))); n != 1 {
		t.Fatalf("frame %d was not taken", number)
	}
}

// got is the numbers of the frames that a station has received.
func (s station) got() (numbers []byte) {
	for _, f := range s.card.Take() {
		numbers = append(numbers, f.Data[14])
	}
	return numbers
}

func TestSwitchLearnsWhereAnAddressIs(t *testing.T) {
	sw := link.NewSwitch(link.SwitchConfig{})
	s := stations(t, sw, 3)
	expect := func(what string, want ...string) {
		t.Helper()
		for i := range s {
			if got := string(s[i].got()); got != want[i] {
				t.Errorf("%s: station %d received %q, want %q", what, i, got, want[i])
			}
		}
	}
	s[0].send(t, s[1].mac, 'a')
	expect("an unknown address is everywhere but here", "", "a", "a")
	s[1].send(t, s[0].mac, 'b')
	expect("a source is known", "b", "", "")
	s[0].send(t, s[1].mac, 'c')
	expect("both are known", "", "c", "")
	s[2].send(t, linktest.Broadcast, 'd')
	expect("broadcast", "d", "d", "")
	s[2].send(t, linktest.MAC{0x33, 0x33, 0, 0, 0, 1}, 'e')
	expect("multicast", "e", "e", "")
	s[0].send(t, s[0].mac, 'f')
	expect("never back to the sender", "", "", "")
	s[2].send(t, s[2].mac, 'g')
	moved := station{s[2].card, s[2].port, s[1].mac}
	moved.send(t, s[0].mac, 'h')
	s[0].send(t, s[1].mac, 'i')
	expect("an address moves", "h", "", "i")
	if st := sw.Stats(); st != (link.SwitchStats{Cards: 3, Addresses: 3}) {
		t.Errorf("switch: %+v", st)
	}
	must(t, s[2].port.Close())
	if st := sw.Stats(); st != (link.SwitchStats{Cards: 2, Addresses: 1}) {
		t.Errorf("switch: %+v", st)
	}
	s[0].send(t, s[1].mac, 'j')
	expect("with a card its addresses go", "", "j", "")
	s[0].port.Send(0, linktest.Frames(linktest.Ethernet(s[1].mac, linktest.Broadcast, []byte{'k'}), []byte("short")))
	expect("what comes from nobody goes nowhere", "", "", "")
	if st := s[0].port.(link.Counter).Stats(); st.Sent != 7 || st.SendDropped != 3 || st.SentBytes != 6*15+5 {
		t.Errorf("counted %+v", st)
	}
}

func TestSwitchPutsFramesIntoAQueueThatTheReceiverUses(t *testing.T) {
	s := stations(t, link.NewSwitch(link.SwitchConfig{}), 2)
	for _, c := range []struct{ pairs, from, want int }{{2, 0, 0}, {2, 1, 1}, {2, 5, 1}, {1, 5, 0}, {64, 5, 5}, {0, 5, 0}} {
		s[1].port.SetOffloads(vnet.OffloadNone, c.pairs)
		s[0].port.Send(c.from, linktest.Frames(linktest.Ethernet(s[1].mac, s[0].mac, nil)))
		if got := s[1].card.Take(); len(got) != 1 || got[0].Queue != c.want {
			t.Errorf("from queue %d to a card of %d: %v, want queue %d", c.from, c.pairs, got, c.want)
		}
	}
}

func TestASlowReceiverLosesItsOwnFramesOnly(t *testing.T) {
	s := stations(t, link.NewSwitch(link.SwitchConfig{}), 3)
	s[1].card.OnReceive = func(_ int, frames []vnet.Frame) int { return min(1, len(frames)) }
	var frames [][]byte
	for i := range 3 {
		frames = append(frames, linktest.Ethernet(linktest.Broadcast, s[0].mac, []byte{byte(i)}))
	}
	if n := s[0].port.Send(0, linktest.Frames(frames...)); n != 3 {
		t.Errorf("%d taken", n)
	}
	if a, b := s[1].got(), s[2].got(); len(a) != 1 || len(b) != 3 {
		t.Errorf("the slow one received %v, the other one %v", a, b)
	}
	slow, other := s[1].port.(link.Counter).Stats(), s[2].port.(link.Counter).Stats()
	if slow.Received != 1 || slow.ReceiveDropped != 2 || other.Received != 3 || other.ReceiveDropped != 0 || other.ReceivedBytes != 3*15 {
		t.Errorf("counted %+v and %+v", slow, other)
	}
}

func TestARunOfFramesIsHandedOverAtOnce(t *testing.T) {
	s := stations(t, link.NewSwitch(link.SwitchConfig{}), 4)
	for _, x := range s {
		x.send(t, linktest.Broadcast, 0)
	}
	calls := make([]int, len(s))
	for i, x := range s {
		x.card.Take()
		x.card.OnReceive = func(_ int, frames []vnet.Frame) int { calls[i]++; return len(frames) }
	}
	var mixed [][]byte
	for i := range 48 {
		mixed = append(mixed, linktest.Ethernet(s[1+i%3].mac, s[0].mac, []byte{byte(i)}))
	}
	s[0].port.Send(0, linktest.Frames(mixed...))
	if !slices.Equal(calls, []int{0, 1, 1, 1}) {
		t.Errorf("calls of Receive: %v", calls)
	}
	for i, x := range s[1:] {
		if got := x.got(); len(got) != 16 || !slices.IsSorted(got) || int(got[0]) != i {
			t.Errorf("station %d received %v", i+1, got)
		}
	}
}

func TestSwitchesOfOneNameAreOne(t *testing.T) {
	var set, other link.Set
	open := func(s *link.Set, spec string) link.Link {
		t.Helper()
		l, err := s.Open(spec)
		must(t, err)
		return l
	}
	a, b := open(&set, "switch:lan"), open(&set, "switch:lan")
	links := []link.Link{a, b, open(&set, "switch:wan"), open(&other, "switch:lan")}
	var s []station
	for _, l := range links {
		s = append(s, stations(t, l, 1)...)
	}
	s[0].send(t, linktest.Broadcast, 'x')
	for i, want := range []string{"", "x", "", ""} {
		if got := string(s[i].got()); got != want {
			t.Errorf("station %d received %q, want %q", i, got, want)
		}
	}
	must(t, s[0].port.Close())
	must(t, a.Close())
	must(t, a.Close()) // gives back one share only
	if _, err := b.Attach(&linktest.Card{}); err != nil {
		t.Errorf("the other holder closed it: %v", err)
	}
	must(t, b.Close())
	if _, err := b.Attach(&linktest.Card{}); !errors.Is(err, link.ErrClosed) {
		t.Errorf("after the last holder: %v", err)
	}
	if c := stations(t, open(&set, "switch:lan"), 1); len(c) != 1 {
		t.Error("a name cannot be used again")
	}
	if _, err := set.Open("switch"); !errors.Is(err, link.ErrSpec) {
		t.Errorf("no name: %v", err)
	}
}

func TestASwitchIsFullAtSomeTime(t *testing.T) {
	s := link.NewSwitch(link.SwitchConfig{})
	var ports []link.Port
	for {
		p, err := s.Attach(&linktest.Card{})
		if err != nil {
			if !errors.Is(err, link.ErrFull) || len(ports) != 1024 {
				t.Errorf("card %d: %v", len(ports), err)
			}
			break
		}
		ports = append(ports, p)
	}
	must(t, ports[500].Close())
	p, err := s.Attach(&linktest.Card{})
	must(t, err)
	must(t, p.Close())
}

// Random frames among cards that come and go, against a plain map.
func TestSwitchAgainstAModel(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		sw := link.NewSwitch(link.SwitchConfig{})
		const places, macs = 8, 40
		var here [places]*station
		behind := map[linktest.MAC]int{}
		for step := range 1000 {
			i := rnd.IntN(places)
			if here[i] == nil || rnd.IntN(100) == 0 {
				if here[i] == nil {
					card := &linktest.Card{}
					port, err := sw.Attach(card)
					must(t, err)
					here[i] = &station{card: card, port: port}
					continue
				}
				must(t, here[i].port.Close())
				here[i] = nil
				for m, at := range behind {
					if at == i {
						delete(behind, m)
					}
				}
				continue
			}
			var frames [][]byte
			want := [places][]uint32{}
			for n := range uint32(rnd.IntN(150)) {
				from, to := linktest.Station(uint32(rnd.IntN(macs))), linktest.Station(uint32(rnd.IntN(macs)))
				if rnd.IntN(3) > 0 { // mostly one's own address, for runs
					from, to = linktest.Station(uint32(i)), linktest.Station(uint32(step%macs))
				}
				switch rnd.IntN(12) {
				case 0:
					to = linktest.Broadcast
				case 1:
					from = linktest.MAC{}
				}
				frames = append(frames, linktest.Ethernet(to, from, binary.LittleEndian.AppendUint32(nil, n)))
				if from == (linktest.MAC{}) {
					continue
				}
				behind[from] = i
				at, known := behind[to]
				for j := range here {
					if here[j] != nil && j != i && (!known || at == j) {
						want[j] = append(want[j], n)
					}
				}
			}
			here[i].port.Send(rnd.IntN(link.MaxPairs), linktest.Frames(frames...))
			for j, h := range here {
				if h == nil {
					continue
				}
				var got []uint32
				for _, f := range h.card.Take() {
					got = append(got, binary.LittleEndian.Uint32(f.Data[14:]))
				}
				if !slices.Equal(got, want[j]) {
					t.Fatalf("seed %d, step %d, from %d: station %d received\n%v, want\n%v", seed, step, i, j, got, want[j])
				}
			}
		}
		for _, h := range here {
			if h != nil {
				must(t, h.port.Close())
			}
		}
	}
}

// leaving is a card that must not be called any more once it has left.
type leaving struct {
	linktest.Card
	gone  atomic.Bool
	after *atomic.Int64
}

func (c *leaving) Receive(_ int, frames []vnet.Frame) int {
	if c.gone.Load() {
		c.after.Add(1)
	}
	return len(frames)
}

func TestCardsComeAndGoUnderTraffic(t *testing.T) {
	sw := link.NewSwitch(link.SwitchConfig{})
	var after, sent atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for worker := range 2 {
		card := &leaving{after: &after}
		port, err := sw.Attach(card)
		must(t, err)
		all.Go(func() {
			frames := linktest.Frames()
			for i := range uint32(32) {
				to := linktest.Station(i % 4)
				if i%8 == 7 {
					to = linktest.Broadcast
				}
				frames = append(frames, linktest.Frames(linktest.Ethernet(to, linktest.Station(uint32(worker)), nil))...)
			}
			for !stop.Load() {
				port.Send(worker, frames)
				sent.Add(1)
			}
			must(t, port.Close())
		})
	}
	for i := range uint32(40) {
		card := &leaving{after: &after}
		port, err := sw.Attach(card)
		must(t, err)
		for before := sent.Load(); sent.Load() < before+2; {
			port.Send(0, linktest.Frames(linktest.Ethernet(linktest.Station(0), linktest.Station(2+i%2), nil)))
		}
		must(t, port.Close())
		card.gone.Store(true)
	}
	stop.Store(true)
	all.Wait()
	if after.Load() != 0 {
		t.Errorf("%d calls of Receive after Close", after.Load())
	}
}

// A fault in the sender's memory passes through, and leaves nothing locked behind it.
func TestAFaultOfTheSenderIsTheSenders(t *testing.T) {
	s := stations(t, link.NewSwitch(link.SwitchConfig{}), 2)
	fault := fmt.Errorf("fault")
	s[1].card.OnReceive = func(int, []vnet.Frame) int { panic(fault) }
	func() {
		defer func() {
			if recover() != fault {
				t.Error("the fault did not come to the sender")
			}
		}()
		s[0].send(t, s[1].mac, 1)
	}()
	s[1].card.OnReceive = nil
	s[0].send(t, s[1].mac, 2)
	if got := s[1].got(); len(got) != 1 || got[0] != 2 {
		t.Errorf("received %v", got)
	}
	must(t, s[1].port.Close()) // does not wait for who has left by a fault
}
