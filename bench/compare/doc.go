// Package compare holds two runs of the bench suite against each other and says of every case
// whether it got faster or slower, or that there is no telling.
//
// A run differs from itself a minute later, so a change is claimed only when all of this holds:
//
//   - The time of an operation and its cost in terms of the limit, which was measured beside it,
//     both changed, and in the same direction. A machine that drifts changes one of them. Of runs
//     on different machines the cost in terms of the limit counts alone.
//   - The change is larger than the threshold, and larger than the one between the two halves of
//     either run.
//   - That it is larger is significant: the Mann-Whitney U test, as benchstat has it, between the
//     new samples and the old ones moved by that much, corrected for the number of cases
//     (Benjamini and Hochberg).
package compare
