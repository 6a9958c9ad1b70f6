// Package card is a small PCI card for tests with real clients: registers, memory, an I/O
// port range, interrupts of every type, and an engine that copies guest memory. It takes
// down what its client did, so that a test can check the device's end as well.
package card
