// Package link holds what stands behind a network card: a tap device, a stream socket, a
// switch between the cards of a process, a loop, nothing at all; and what can be put in front
// of any of them: a tee that records, and faults. Set.Open makes a link out of a short text.
//
// A card is attached to a link and gets a Port for what it sends; what arrives is pushed
// into the card. Frames are not queued here, unless a fault delays them: a link takes them,
// refuses them, or drops and counts them. They may be guest memory, and what has to be done to
// them for a receiver that knows less than its sender is in package vnet.
//
// Package linktest has a card and a link for tests.
package link
