// Package irq holds the interrupt vectors of one session: the eventfds that the
// client assigned with VFIO_USER_DEVICE_SET_IRQS, their mask and pending bits, and
// the trigger that the data path calls.
//
// A Set is configured by the control plane; Vector.Trigger may be called by any
// goroutine at the same time, takes no lock, allocates nothing and costs the
// write(2). A descriptor is closed by its last user, so that a write never reaches
// a file that reused its number. A client that lets a write block, which the
// shared file description allows it, is found out and loses its interrupts, not the
// goroutine that wrote (stuck.go).
package irq
