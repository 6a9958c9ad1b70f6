// Package spec holds the registers, opcodes, status codes and data structures
// of NVM Express (Base specification, NVM command set, PCIe transport) that a
// controller and its driver share.
//
// Every structure is little-endian on the wire. A structure that travels has
// a Put method, which writes its wire form into a buffer of at least its size,
// and a Get method, which reads it back; both panic on a shorter buffer, as the
// sizes are constants that callers check once. Get loads every field exactly
// once, so it may be used on memory that another party writes meanwhile.
//
// The package imports nothing but the standard library and knows no policy.
package spec
