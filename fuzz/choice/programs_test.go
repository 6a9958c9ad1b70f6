package choice

import (
	"slices"
	"testing"
)

func TestProgramsHaveSeedsThatCanBeReplayed(t *testing.T) {
	programs := func(seeds, steps int) (first []uint64, operations int) {
		Programs(t, seeds, steps, func(_ *testing.T, s *Source) {
			first = append(first, s.Uint64())
			for s.More() {
				operations++
			}
		})
		return first, operations
	}
	want := []uint64{FromSeed(1, 0).Uint64(), FromSeed(2, 0).Uint64(), FromSeed(3, 0).Uint64()}
	if got, n := programs(3, 5); !slices.Equal(got, want) || n != 15 {
		t.Errorf("programs that begin with %x, %d operations; want %x, 15", got, n, want)
	}
	t.Setenv(SeedVariable, "2")
	t.Setenv(StepsVariable, "7")
	if got, n := programs(3, 5); !slices.Equal(got, want[1:2]) || n != 7 {
		t.Errorf("a program that begins with %x, %d operations; want %x, 7", got, n, want[1:2])
	}
	t.Setenv(SeedVariable, "random")
	once, n := programs(3, 5)
	if again, _ := programs(3, 5); n != 7 || slices.Equal(once, again) {
		t.Errorf("random programs begin with %x and %x, and have %d operations", once, again, n)
	}
}
