package qtest

import (
	"slices"
	"testing"

	"vfiouser/engine"
	"vfiouser/test/card"
)

// TestWriteMultiple offers write_multiple to QEMU, which then gathers posted writes into
// REGION_WRITE_MULTI messages while the server is busy. They arrive in order, with reads
// behind them.
func TestWriteMultiple(t *testing.T) {
	c := card.New(card.Config{})
	ep := endpoint(t, engine.Config{WriteMultiple: true}, c)
	r := start(t, "q35", shared, ep.Path())
	r.program(false)
	inspect := func() engine.Inspection {
		in, ok := ep.Inspect()
		if !ok {
			t.Fatal("QEMU is not attached")
		}
		return in
	}
	if !inspect().WriteMultiple {
		t.Fatal("write_multiple was not agreed on")
	}
	const (
		stalled = 4000 // QEMU gathers writes while more than 1,024 messages wait to be sent
		n       = 5000
	)
	var want []card.Write
	before := inspect().Traffic.ReceivedMessages
	release := c.Stall()
	defer release()
	for i := range uint64(n) {
		size := []int{1, 2, 4, 8}[i%4]
		v := (i + 1) * 0x0101_0101_0101_0101 >> (64 - 8*size)
		if i == stalled { // what was gathered so far is not held back
			release()
			if got := r.register(card.RegLog); got != stalled {
				t.Errorf("%d writes have arrived, want %d", got, stalled)
			}
		}
		r.setRegister(card.RegLog, v, size)
		want = append(want, card.Write{Value: v, Size: size})
	}
	if got := r.register(card.RegLog); got != n {
		t.Errorf("%d writes have arrived, want %d", got, n)
	}
	if !slices.Equal(c.Writes(), want) {
		t.Error("the writes have not arrived as they were made")
	}
	messages := inspect().Traffic.ReceivedMessages - before
	t.Logf("%d writes and 2 reads took %d messages", n, messages)
	if messages >= n {
		t.Error("no writes were gathered")
	}
	r.copy(0x10_0000, 0x20_0000, 4096)
	if status := r.register(card.RegStatus); status != card.StatusDone {
		t.Error(c.CopyError())
	}
}
