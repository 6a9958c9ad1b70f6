// Package transcript keeps what a process prints, for tests that look at it while it runs.
package transcript
