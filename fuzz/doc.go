// Package fuzz is for fuzzing: of the protocol, of the devices of this project, and of a device
// of one's own that is built on the engine.
//
// The targets that need nothing but public interfaces are its tests; others are beside what
// they fuzz. README.md tells how to run them.
package fuzz
