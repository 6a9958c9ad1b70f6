package choice

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Environment variables that replay a program of Programs, or have it run for longer.
const (
	SeedVariable  = "VFIOUSER_SEED"  // this seed alone; "random" for one that nobody has tried
	StepsVariable = "VFIOUSER_STEPS" // operations of each program
)

// Programs runs a test with the seeds 1 to seeds, of so many operations each, as subtests whose
// names are the seeds. The environment may say otherwise. The one that fails says how to
// run it again.
func Programs(t *testing.T, seeds, steps int, run func(t *testing.T, s *Source)) {
	t.Helper()
	first, last := uint64(1), uint64(seeds)
	if v, ok := os.LookupEnv(SeedVariable); ok {
		first = rand.Uint64() >> 1 // as number takes it
		if v != "random" {
			first = number(t, SeedVariable, v)
		}
		last = first
	}
	if v, ok := os.LookupEnv(StepsVariable); ok {
		steps = int(number(t, StepsVariable, v))
	}
	for seed := first; ; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("to run it again: %s=%d %s=%d", SeedVariable, seed, StepsVariable, steps)
				}
			}()
			run(t, FromSeed(seed, steps))
		})
		if seed == last {
			return
		}
	}
}

func number(t *testing.T, name, v string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(v, 0, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
