//go:build !race

package hostile

const manyDoorbells = 1_000_000
