// Package conformance is a suite of cases for vfio-user servers. It is an independent
// witness: it has packers and a socket of its own, and imports nothing of this module.
//
// A case is a few lines of text in testdata: what is sent, what must come back byte by
// byte, with which errno and which descriptors, and which rule of the specification says
// so. README.md describes the language. Load parses the cases, Survey asks a server what
// its device has, and Case.Run runs one on a connection of its own; a case that needs
// what the device has not is skipped with the reason.
//
// The tests of this package run all cases against the device of package dut. The program
// in vfio-user-conformance runs them against any server.
package conformance
