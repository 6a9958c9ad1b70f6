package bench

import "slices"

// Cases lists all cases, layer by layer from the bottom up.
func Cases() []Case {
	return slices.Concat(codecCases(), translateCases(), mapCases(), interruptCases(),
		messageCases(), guestMessageCases(), guestClientCases(), sessionCases(), regionCases(),
		nvmeCases(), trafficCases(),
		idleCases(), memoryCases())
}

// Limits lists all limits.
func Limits() []Limit {
	return slices.Concat(codecLimits(), translateLimits(), mapLimits(), interruptLimits(),
		messageLimits(), sessionLimits(),
		handoverLimits(), directLimits(), nbdLimits(), frameLimits())
}
