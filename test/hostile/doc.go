// Package hostile attacks an engine the way a client without manners would, and
// checks that nobody else notices.
//
// One engine with one worker and two NVMe devices runs in the test process, each on a
// unix socket. The healthy device does verified I/O all the time; the victim is
// attacked. While an attack lasts the healthy device must go on, without an error and
// without a long pause. After it the victim must serve a well-behaved client, and
// goroutines, descriptors and mappings must be as many as before.
//
// The tests of virtio-net do the same with network cards: one on a loop and two on the
// switch that the victim is on, whose frames must all come, and unharmed.
//
// Everything is in test files. Random attacks print their seed; -seed sets it.
package hostile
