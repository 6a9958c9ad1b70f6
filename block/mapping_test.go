package block

import (
	"runtime/debug"
	"testing"
)

// A host that creates and deletes namespaces without end must not use up the addresses of the
// process, which the collector alone gives back.
func TestRemovedMemoryGivesAddressesBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a large heap is collected as rarely
	p, err := OpenPool("mem:1G")
	must(t, err)
	defer p.Close()
	for i := range 4000 { // of 64 GiB of addresses each
		b, err := p.Create("a", 1<<20)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		if size := int64(len(b.(*memory).data)); size < roomToGrow {
			t.Fatalf("after %d there are addresses for %d bytes only", i, size)
		}
		must(t, b.Close())
		must(t, p.Remove("a"))
	}
}
