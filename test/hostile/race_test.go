//go:build race

package hostile

// manyDoorbells is how many doorbells are written in a row. The race detector makes each
// five times as slow.
const manyDoorbells = 100_000
