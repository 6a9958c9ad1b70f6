package nvmemodel

import "vfiouser/devices/nvme/spec"

// Limits of a program.
const (
	MaxTransfer = 64 << 10 // bytes of a command, which the controllers have to be configured for
	PoolSize    = 1 << 20  // bytes for the namespaces that hosts make
	Queues      = 3        // of each host
	QueueDepth  = 16       // commands under way in each
)

// Config is the subsystem that a program begins with.
type Config struct {
	Hosts      int // each has a controller of its own: 1 or 2
	Namespaces []Namespace
}

// Namespace is a namespace in a format without metadata.
type Namespace struct {
	ID        uint32
	Bytes     int64
	BlockSize int
}

// Command is an I/O command on its way.
type Command struct {
	Entry spec.SubmissionEntry // without CID and data pointers
	Data  []byte               // to the controller, or from it if that is what the opcode says
	// Done: it has completed, with Status.
	Done   bool
	Status spec.Status
}

// Restart is a way in which a controller begins anew, without queues.
type Restart uint8

// Ways to begin anew.
const (
	Reset          Restart = iota // CC.EN
	Shutdown                      // in order, by CC.SHN
	Disconnect                    // the client is gone, and another one comes
	SubsystemReset                // of all controllers
	restarts
)

// Failure is what the storage of a namespace is told to fail.
type Failure uint8

// What can fail.
const (
	FailRead Failure = iota
	FailWrite
	FailErase // zeroes are written, or a range is given back
)

// Drive is a subsystem and the hosts of its controllers. Hosts count from 0, and so do queues. A
// drive fails its test if something takes too long.
type Drive interface {
	// Admin carries out an admin command with up to a page of data, in the direction that the
	// opcode says.
	Admin(host int, e spec.SubmissionEntry, data []byte) (st spec.Status, dw0 uint32)
	// CreateQueue makes an I/O queue pair with QueueDepth, and DeleteQueue deletes it. Commands
	// that are under way may be lost with it.
	CreateQueue(host, queue int)
	DeleteQueue(host, queue int)
	// Start submits commands with one doorbell.
	Start(host, queue int, list []*Command)
	// Wait waits for the commands of a host that are under way.
	Wait(host int)
	// Abort executes Abort for a command that was started. It tells whether the command was
	// aborted, as the result of Abort says.
	Abort(host int, c *Command) bool

	// Restart restarts the controller of a host. Commands that are under way are lost.
	Restart(host int, how Restart)
	// Unmap takes away the memory that the data of commands is in, Map gives it back. Commands
	// that are under way go on.
	Unmap(host int)
	Map(host int)
	// Migrate moves the only host to another subsystem that has the same namespaces. Commands
	// that are under way go on there.
	Migrate(list []Namespace)
	// Fail has the storage of a namespace fail all requests of a kind, or not any more. It
	// tells whether it can.
	Fail(nsid uint32, what Failure, on bool) bool

	// The owner's view: namespaces are added for all controllers, resized and removed.
	Add(n Namespace) (nsid uint32)
	Resize(nsid uint32, bytes int64)
	Remove(nsid uint32)
}
