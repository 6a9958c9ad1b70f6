//go:build amd64 || arm64

package dma

// PrefetchWrite has the processor fetch the cache line of p for writing, which takes some
// hundred cycles if another core has it, and does not wait: stores that follow one another,
// each to a line of its own, would wait for every line in turn. It is a hint; it never faults.
//
//go:noescape
func PrefetchWrite(p *byte)
