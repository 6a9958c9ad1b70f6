// Package virtio drives a virtio device that is attached with package client: the modern PCI transport (VIRTIO 1.3, 4.1) and the
// driver's side of split and packed virtqueues. What type of device it is does not matter here; drivers/virtio-net is one that
// is built on it.
//
// Open resets the device and tells it that there is a driver. Negotiate agrees on features, NewQueue makes queues, Ready starts the
// device. A Queue belongs to one goroutine, which adds chains, has the device told of a batch of them at once (Kick), and takes
// back what the device has used (Reap), polling or waiting for interrupts; nothing is allocated or locked on the way. Notifications
// are messages or stores to a mapped page, whichever the device offers.
//
// When the session is lost every call fails with its cause; none hangs. A device that lies in its rings costs an ErrDevice and
// nothing else. Structures and codes are in devices/virtio/spec.
package virtio
