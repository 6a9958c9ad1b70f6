// Package virtionet is a user-space driver for a virtio network card (VIRTIO 1.3, 5.1) attached with package client: no kernel, no
// virtual machine.
//
// Open brings a card up. Its queue pairs send and receive Ethernet frames. For a program with a few frames there are
// WriteFrame and ReadFrame, which copy and wait for interrupts. For speed, frames live in Buffers, memory that the device accesses
// itself: a goroutine that owns a pair takes buffers (Alloc), fills and sends them (Send), takes what has arrived (Recv) and gives
// it back (Release), each for a batch and with one notification at most; nothing is allocated, copied or locked on the way.
//
// Commands go to the control queue: promiscuous mode, address and VLAN filters, queue pairs, receive-side scaling, offloads,
// coalescing. When the session is lost every call fails with its cause; none hangs. The transport and the rings are in
// drivers/virtio, structures and codes in devices/virtio-net/spec.
package virtionet
