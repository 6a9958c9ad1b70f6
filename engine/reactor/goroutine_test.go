package reactor

import (
	"testing"

	"vfiouser/test/holdings"
)

func TestOnLoop(t *testing.T) {
	holdings.CheckLeaks(t)
	r, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.OnLoop() {
		t.Error("a test is not the loop")
	}
	if err := r.Do(func() {
		if !r.OnLoop() {
			t.Error("a task is on the loop")
		}
		elsewhere := make(chan bool)
		go func() { elsewhere <- r.OnLoop() }()
		if <-elsewhere {
			t.Error("a goroutine that a task has started is not the loop")
		}
	}); err != nil {
		t.Fatal(err)
	}
}
