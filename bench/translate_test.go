package bench

import "testing"

func TestSearchFindsEveryNumber(t *testing.T) {
	for _, n := range []int{1, 2, 3, 16, 100, 4096} {
		tree := newSearchTree(n)
		for v := range uint64(n) {
			if got := tree.find(v); got != v {
				t.Fatalf("%d of %d numbers is found at %d", v, n, got)
			}
		}
	}
}
