package fuzz

import "testing"

func TestPatience(t *testing.T) {
	c := make(chan int, 1)
	if _, ok := await(3*moment, c); ok {
		t.Error("what is not sent has come")
	}
	c <- 7
	if v, ok := await(3*moment, c); !ok || v != 7 {
		t.Errorf("%d has come: %v", v, ok)
	}
	p := newPace(3 * moment)
	<-p.Done()
	if !p.hangs() {
		t.Error("a call that does not end does not hang")
	}
	p.stop()
	p = newPace(1000 * moment)
	p.stop()
	if <-p.Done(); p.hangs() {
		t.Error("what is stopped hangs")
	}
}
