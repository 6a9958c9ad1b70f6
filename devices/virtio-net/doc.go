// Package virtionet is a virtio network card (VIRTIO 1.3, section 5.1), a device of the
// engine: an unmodified guest, or a user-space driver, sees a network interface behind which
// stands a link.
//
// A queue pair is polled by one of the engine's workers, which hands frames from the transmit
// ring to the link without a copy. What comes from the link is pushed into the card by
// whichever goroutine has it, and copied once into the receive ring. Pairs whose memory is
// reached by message only run on a goroutine of their own. Commands of the control queue run
// on the transport's control goroutine, and take effect by publishing what the data path reads.
//
// Rings are in devices/virtio/virtqueue, the PCI transport is in devices/virtio, checksums and
// segmentation in link/vnet.
package virtionet
