package bench

import "slices"

// Cases lists all cases, layer by layer from the bottom up.
func Cases() []Case {
	return slices.Concat(interruptCases())
}

// Limits lists all limits.
func Limits() []Limit {
	return slices.Concat(interruptLimits())
}
