// Package pci models the configuration space of one PCI function: a type 0 header
// with its BARs, a chain of capabilities, write masks, and the MSI-X table and
// pending bits that live in a BAR.
//
// A [Space] is described once and then served byte by byte: reads return what a
// guest would see, writes go through the masks and report what they changed. What
// a change means (interrupts, reset, bus mastering) is the caller's business; there
// is no I/O, no goroutine and no lock here, and one owner for each value.
//
// [Walk], [DecodeHeader] and [AppendDump] read and print the configuration space of any
// device, trusted or not.
//
// Everything is little-endian. Section numbers in comments are those of the PCI
// Express Base Specification, revision 6.0.
package pci
