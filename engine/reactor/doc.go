// Package reactor is the one epoll loop that drives every socket, eventfd and timer of the process, on top of
// gnet's pkg/netpoll.Poller. It knows nothing of the vfio-user protocol.
//
// One goroutine runs the loop; it is called "the loop" here. Handlers, tasks and timer functions run on it, one at a
// time, and must not block. Post, PostFunc, Do, Done and Close are for any goroutine; everything else (Add, Quiet, the
// methods of FD and Timer, Stats) belongs to the loop. Memory faults on the loop are panics, and panics are contained.
//
// The package also holds what both ends of the protocol need to talk through a unix socket: RecvMsg and SendMsg,
// which carry descriptors and never block, and Eventfd.
package reactor
