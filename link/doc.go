// Package link holds what stands behind a network card: a tap device, a stream socket, a
// switch between the cards of a process, a loop, nothing at all, and a tee that records.
//
// A card is attached to a link and gets a Port for what it sends; what arrives is pushed
// into the card. Frames are not queued here: a link takes them, refuses them, or drops and
// counts them.
package link
