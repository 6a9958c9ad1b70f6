// Package client is the consumer's side of vfio-user: it attaches to a device that a server offers on a unix socket,
// asks what the device has, shares memory with it, configures its interrupts, and accesses its regions by
// message or through a mapping.
//
// A Device may be used from any number of goroutines at a time; their messages are pipelined. A call that is given up (its
// context ended) leaves the session usable: the late reply is dropped. A server that breaks the protocol costs the
// session and nothing else: every call fails with the cause, Done is closed, Err tells why.
//
// Who reads a socket: a call that waits for a reply reads itself, and a reactor does while none does. Devices, and servers
// of package engine, may share one reactor (WithReactor, engine.Config.Reactor); close devices and engines before it. What
// sends a request waits, and so do Attach, Reattach, the methods of Interrupts and Close: never call them on the reactor's
// goroutine, where the callbacks of an engine's device run, or the reply that they wait for may never be read. Done, Err, the
// methods of Memory and loads and stores of a MappedRegion are for any goroutine.
//
// What a device means (registers, queues) is not here: see the drivers.
package client
