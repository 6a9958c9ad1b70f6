// Package vnet holds what network cards and links hand to each other: frames, the header
// with which a frame asks for what its sender left undone (struct virtio_net_hdr, VIRTIO
// 1.3, 5.1.6; the tap device's vnet_hdr is the same), and the software that does it:
// checksums and segmentation. It does no I/O.
package vnet
