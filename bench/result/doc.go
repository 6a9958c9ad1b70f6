// Package result is what a run of the bench suite comes to: the samples of every case and of
// its limit, their statistics, the environment and the noise; and the JSON that keeps it.
// What is read is checked: it may be anybody's.
package result
