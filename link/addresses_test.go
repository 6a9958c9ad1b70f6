package link

import (
	"math/rand/v2"
	"testing"
	"time"

	"vfiouser/link/vnet"
)

func newTable(n, share int) *addresses {
	t := &addresses{}
	t.init(n, share, 300)
	t.secret = 0x9e3779b97f4a7c15 // the same collisions in every run
	return t
}

func TestAPortThatInventsAddressesForgetsItsOwn(t *testing.T) {
	table := newTable(1024, 128)
	const good, bad, others = 0, 1, 40
	for a := range address(others) {
		table.learn(a<<8|2, good, 0)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		table.learn(address(rnd.Uint64()&(1<<addressBits-1)), bad, 1)
	}
	for a := range address(others) {
		if slot := table.lookup(a<<8 | 2); slot != good {
			t.Fatalf("address %d of the good port is at %d", a, slot)
		}
	}
	if n := table.count(bad); n > 128 {
		t.Errorf("the bad port holds %d addresses", n)
	}
	if n := table.count(good); n != others {
		t.Errorf("the good port holds %d addresses", n)
	}
}

func TestInATableFilledByOthersThereIsRoomForTheFirstOfAPort(t *testing.T) {
	table := newTable(64, 64)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 100000 {
		table.learn(address(rnd.Uint64()&(1<<addressBits-1)), 1+i%4, 0)
	}
	const late = address(0x020202020202)
	table.learn(late, 9, 0)
	if slot := table.lookup(late); slot != 9 {
		t.Errorf("it is at %d", slot)
	}
	total := 0
	for slot := range maxPorts {
		total += table.count(slot)
	}
	if total > 64 {
		t.Errorf("%d addresses in a table of 64", total)
	}
}

func TestAPortWithItsShareTakesNobodysAddress(t *testing.T) {
	table := newTable(1024, 2)
	table.learn(1<<8, 0, 0)
	table.learn(2<<8, 1, 0)
	table.learn(3<<8, 1, 0)
	table.learn(1<<8, 1, 0)
	if slot := table.lookup(1 << 8); slot != 0 {
		t.Errorf("it is at %d", slot)
	}
}

func TestAddressesAge(t *testing.T) {
	s := NewSwitch(SwitchConfig{Age: 80 * time.Second})
	var clock time.Duration
	s.now = func(time.Time) time.Duration { return clock }
	p, err := s.Attach(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	send := func(from byte) {
		p.Send(0, []vnet.Frame{{Parts: [][]byte{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, from, 0x88, 0xb5}}, Len: 14}})
	}
	at := func(from byte) int { return s.table.lookup(2 | address(from)<<40) }
	send(1)
	send(2)
	for clock = time.Second; clock < 80*time.Second; clock += time.Second {
		send(1)
	}
	if at(1) < 0 || at(2) < 0 {
		t.Error("forgotten too early")
	}
	for ; clock < 92*time.Second; clock += time.Second {
		send(1)
	}
	if at(1) < 0 || at(2) >= 0 {
		t.Errorf("the one in use is at %d, the other one at %d", at(1), at(2))
	}
	if n := s.table.count(0); n != 1 {
		t.Errorf("%d addresses are counted", n)
	}
}
