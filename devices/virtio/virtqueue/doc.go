// Package virtqueue is the device side of split and packed virtqueues (VIRTIO 1.3,
// 2.6 to 2.8): it takes chains of buffers that a driver made available, gives the
// memory behind them, and hands them back used. It knows nothing of what is in the
// buffers, nor of how notifications and interrupts travel.
//
// A Queue works straight in mapped guest memory (Translate), or by message
// (SetRemote) where memory has no descriptor; the methods are the same. Everything
// that the driver writes is read once and then checked: a driver that breaks the
// rules costs its queue, with an error that says which rule it was.
//
// The order of a round on mapped memory, on one goroutine:
//
//	reader.Enter()
//	if g := reader.Generation(); g != last { err = q.Translate(reader) … }
//	n, err := q.Take(chains)     // then use chains[:n]
//	q.Push(&chains[i], written)  // each
//	if q.Publish() { … }         // interrupt
//	reader.Exit()
//
// Before the goroutine sleeps it calls Arm and goes on if there is something.
package virtqueue
