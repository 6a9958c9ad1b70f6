// Package holdings counts what a process holds of the kernel's, descriptors and mappings
// of guest memory, so that a test can check that a server gives all of it back.
package holdings
