// Package report shows the results of the bench suite: as a table for a terminal.
package report
