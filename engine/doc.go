// Package engine is the server side of vfio-user: it lets a program emulate PCI
// devices for a virtual machine monitor or any other client.
//
// An Engine owns one reactor goroutine, which drives the sockets of all devices, and
// a few workers, which poll the queues of devices that have such. A Device is
// registered on a socket path, giving an Endpoint; a client that connects to it gets
// a Session, through which the device reaches guest memory (dma) and interrupts (irq).
//
// The package knows the protocol (with codec) and nothing of any particular device.
package engine
