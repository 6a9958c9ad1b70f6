// Package virtio is the modern PCI transport of VIRTIO 1.3 (section 4.1) on the engine,
// for any type of virtio device. A Device says what the device itself does; the Function
// around it is an engine.Device: configuration space and capabilities, registers, feature
// negotiation, status, reset of device and queues, notifications and interrupts.
//
// Register accesses arrive on the reactor and only change the register file. One control
// goroutine for each client then makes the device what the registers say: it starts and
// stops the Device and its queues, one call at a time. What serves a queue is up to the
// Device: an engine.Source on a worker, or a goroutine (Serve). The rings themselves are in
// virtqueue, constants that drivers share in spec. Nothing here knows a device type.
package virtio
