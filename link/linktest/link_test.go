package linktest_test

import (
	"errors"
	"testing"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

func TestLinkIsBothSidesOfAWire(t *testing.T) {
	var l linktest.Link
	var card linktest.Card
	port, err := l.Attach(&card)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Attach(&card); !errors.Is(err, link.ErrBusy) {
		t.Errorf("a second card: %v", err)
	}
	hello := linktest.Ethernet(linktest.Broadcast, linktest.Station(1), []byte("hello"))
	if n := port.Send(2, linktest.Frames(hello)); n != 1 {
		t.Errorf("%d taken", n)
	}
	if sent := l.Sent(); len(sent) != 1 || sent[0].Queue != 2 || string(sent[0].Data) != string(hello) {
		t.Errorf("sent %v", sent)
	}

	if port.Poll(1) != 0 || port.Arm(1) {
		t.Error("something has arrived")
	}
	l.Arrive(linktest.Frame{Queue: 1, Data: hello}, linktest.Frame{Queue: 1, Data: hello})
	card.Await(func() bool { return card.Wakes(1) == 1 })
	if !port.Arm(1) {
		t.Error("nothing has arrived")
	}
	card.OnReceive = func(int, []vnet.Frame) int { return 1 }
	if a, b, c := port.Poll(1), port.Poll(1), port.Poll(1); a != 1 || b != 1 || c != 0 {
		t.Errorf("polled %d, %d and %d, for a card that takes one at a time", a, b, c)
	}
	if got := card.Take(); len(got) != 2 || got[1].Queue != 1 || string(got[1].Data) != string(hello) {
		t.Errorf("received %v", got)
	}

	port.SetOffloads(vnet.OffloadChecksum, 3)
	if o, pairs := l.Offloads(); o != vnet.OffloadChecksum || pairs != 3 {
		t.Errorf("offloads %b, %d pairs", o, pairs)
	}
	l.Card().SetCarrier(false)
	l.Card().Announce()
	if up := card.Carrier(); len(up) != 1 || up[0] || card.Announced() != 1 {
		t.Errorf("carrier %v, announced %d times", up, card.Announced())
	}
	if err := port.Close(); err != nil || l.Card() != nil {
		t.Errorf("Close: %v", err)
	}
}
