// Package nvme is a user-space NVMe driver for a controller attached with package client: no kernel, no virtual
// machine.
//
// Open brings a controller up. Its namespaces are io.ReaderAt and io.WriterAt for any number of goroutines, with
// everything copied through the driver's memory. For speed there is Queue: one goroutine owns a queue pair, fills data buffers
// that the device accesses itself, submits, rings the doorbell once for a batch, and polls or waits for
// interrupts; nothing is allocated or locked on the way.
//
// Doorbells are mapped, shadowed (Doorbell Buffer Config) or messages, whichever the device offers. When the session is
// lost every call fails with its cause; none hangs. Structures and codes are in devices/nvme/spec.
package nvme
