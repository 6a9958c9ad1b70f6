// Package dut is the device that the conformance suite runs against: a PCI function with
// a region of each kind, interrupts of each type, and registers with which a client has it
// raise interrupts and access client memory.
package dut
