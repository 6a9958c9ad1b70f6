// Package spec holds what every virtio device and every virtio driver share:
// feature bits, the structures of the PCI transport and the layout of split and
// packed virtqueues (Virtual I/O Device version 1.3). What belongs to one type of
// device lives beside that device.
//
// Everything in guest memory is little-endian. A structure that travels has a Put
// and a Get method, which panic on a shorter buffer, as the sizes are constants
// that callers check once. Get loads every field exactly once.
//
// The package imports nothing but the standard library and knows no policy.
package spec
