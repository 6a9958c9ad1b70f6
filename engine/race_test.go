//go:build race

package engine

// raceEnabled: the race detector makes sync.Pool forget at random, which allocates.
const raceEnabled = true
