//go:build race

package dma

// invariants turns on checks of the caller that are too dear for every build.
const invariants = true
