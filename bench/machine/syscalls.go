package machine

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// syscallCounter has an event of raw_syscalls:sys_enter for each thread of the process.
// Threads that begin meanwhile are counted with the one that began them.
type syscallCounter struct{ events []int }

// newSyscallCounter makes one that does not count yet. The calling thread's event is the last,
// so that it begins to count last and ends first: what starting and stopping costs is not
// counted, but for the call that stops it.
func newSyscallCounter() (*syscallCounter, error) {
	id, err := tracepoint()
	if err != nil {
		return nil, err
	}
	tids, err := threads()
	if err != nil {
		return nil, err
	}
	self := unix.Gettid()
	tids = append(slices.DeleteFunc(tids, func(tid int) bool { return tid == self }), self)
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_TRACEPOINT,
		Size:   unix.PERF_ATTR_SIZE_VER5,
		Config: id,
		Bits:   unix.PerfBitInherit | unix.PerfBitDisabled,
	}
	c := new(syscallCounter)
	for _, tid := range tids {
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) && tid != self {
			continue // it has ended
		}
		if err != nil {
			c.close()
			return nil, err
		}
		c.events = append(c.events, fd)
	}
	return c, nil
}

// tracepoint is the number of raw_syscalls:sys_enter.
func tracepoint() (uint64, error) {
	for _, root := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		text := strings.TrimSpace(read(root + "/events/raw_syscalls/sys_enter/id"))
		if id, err := strconv.ParseUint(text, 10, 64); err == nil {
			return id, nil
		}
	}
	return 0, ErrNoSyscalls
}

func (c *syscallCounter) start() error {
	for _, fd := range c.events {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *syscallCounter) stop() error {
	for _, fd := range slices.Backward(c.events) {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
			return err
		}
	}
	return nil
}

// total is what was counted between start and stop.
func (c *syscallCounter) total() (total uint64, err error) {
	for _, fd := range c.events {
		var value [8]byte
		if n, err := unix.Read(fd, value[:]); n != len(value) {
			return 0, errors.Join(ErrNoSyscalls, err)
		}
		total += binary.NativeEndian.Uint64(value[:])
	}
	return max(total, 1) - 1, nil // the one that stopped it
}

func (c *syscallCounter) close() {
	for _, fd := range c.events {
		unix.Close(fd)
	}
	c.events = nil
}
