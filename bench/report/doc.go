// Package report shows the results of the bench suite, and what became of them, as tables for
// a terminal.
package report
