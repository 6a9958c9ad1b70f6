package fuzz_test

import (
	"testing"

	"vfiouser/fuzz"
	"vfiouser/test/holdings"
)

// Lives that are drawn from seeds: what fuzzing finds quickly is found by every test run.
func TestReplay(t *testing.T) {
	const seeds, steps = 8, 150
	t.Run("scratch", func(t *testing.T) {
		holdings.CheckLeaks(t)
		fuzz.Replay(t, func() (*scratch, error) { return new(scratch), nil }, seeds, steps)
	})
	t.Run("nvme", func(t *testing.T) {
		holdings.CheckLeaks(t)
		fuzz.Replay(t, newController, seeds, steps)
	})
	t.Run("virtio-net", func(t *testing.T) {
		holdings.CheckLeaks(t)
		fuzz.Replay(t, newCard, seeds, steps)
	})
}
