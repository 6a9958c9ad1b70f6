package bench

import "testing"

// The driver counts what went through the cards: n operations are n frames, of the right size.
func TestTrafficIsWhatItIsAskedFor(t *testing.T) {
	for _, c := range []traffic{
		{way: "null", size: 64, batch: 32},
		{way: "rx", packed: true, size: 1518, batch: 8},
		{way: "loop", size: 512, batch: 1},
		{way: "loop", packed: true, size: segment, batch: 32},
		{way: "switch", packed: true, size: 64, batch: 32},
	} {
		t.Run(c.String(), func(t *testing.T) {
			cards, s, err := newTraffic(newEnv(t), c)
			if err != nil {
				t.Fatal(err)
			}
			from, to := cards[0].q, cards[len(cards)-1].q
			for _, n := range []int{1, 33, 700} {
				sent, received := from.Stats(), to.Stats()
				if err := s.Run(n); err != nil {
					t.Fatal(n, err)
				}
				if got := from.Stats().Sent - sent.Sent; c.way != "rx" && got != uint64(n) {
					t.Errorf("%d frames of %d are sent", got, n)
				}
				if got := to.Stats().Received - received.Received; c.way != "null" && got != uint64(n) {
					t.Errorf("%d frames of %d are received", got, n)
				}
				if got := to.Stats().ReceivedBytes - received.ReceivedBytes; c.way != "null" && got != uint64(n*c.size) {
					t.Errorf("%d bytes for %d frames of %d are received", got, n, c.size)
				}
			}
		})
	}
}
