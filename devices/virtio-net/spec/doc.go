// Package spec holds the feature bits, configuration layout, control commands and hash
// values of the network device (VIRTIO 1.3, section 5.1) that a card and its driver share.
// What all virtio devices have in common is in devices/virtio/spec; the header in front of a
// frame is vnet.Header.
//
// Every structure is little-endian. One of a fixed size has a Put method, which writes its
// wire form into a buffer of at least its size, and a Get method, which reads it back; both
// panic on a shorter buffer. One of variable size has Append and Parse, which takes what a
// hostile driver sent. The package imports nothing but the standard library.
package spec
