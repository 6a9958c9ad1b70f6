// Package report shows the results of the bench suite, and what became of them, as tables for
// a terminal, and as a page with charts that needs nothing but itself.
package report
