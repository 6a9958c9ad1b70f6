package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The registers of the control region: what a case has the device do. Package dut
// implements them. From ControlBells on there are four doorbells with file descriptors for
// I/O: 4 bytes (doorbell 0), 4 bytes if 7 is written (0, too), 2 bytes (1), any size (2).
const (
	ControlTrigger = 0x00 // 32 bits, write: raise interrupt (type << 16 | vector)
	ControlLevel   = 0x04 // 32 bits, write: raise (1) or lower (0) the INTx line
	ControlAddr    = 0x08 // 64 bits: IOVA of the next transfer
	ControlLength  = 0x10 // 32 bits: its length in bytes
	ControlStart   = 0x14 // 32 bits, write: one of the Transfer numbers starts it
	ControlStatus  = 0x18 // 32 bits, read: errno of the last transfer, 0, or TransferBusy
	ControlResets  = 0x1c // 32 bits, read: how often the device was reset
	ControlRings   = 0x20 // 3 × 32 bits, read: how often doorbells 0, 1 and 2 rang
	ControlBells   = 0x100
	ControlBuffer  = 0x1000
	ControlSize    = 0x10000 // of the region, bytes; the buffer goes to its end

	TransferRead  = 1 // client memory to buffer
	TransferWrite = 2 // buffer to client memory
	TransferFetch = 3 // as 1 and 2, begun where the register is written, not in a thread
	TransferStore = 4
	TransferBusy  = 0xffffffff
)

// device has the device do something:
//
//	device trigger TYPE VECTOR
//	device level 0|1
//	device read ADDR LENGTH    starts to read client memory into the buffer
//	device write ADDR LENGTH   starts to write the buffer to client memory
//	device fetch ADDR LENGTH   as read, begun by the register access itself
//	device store ADDR LENGTH   as write, likewise
//	device done ERRNO          waits for the end of that; 0 is success
//	device rings BELL N        waits until a doorbell has rung N times
func (r *run) device(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) < 2 {
		return errors.New("wants more words")
	}
	verb, args := s.args[0], s.args[1:]
	switch verb {
	case "done":
		return r.transferDone(c, args[0])
	case "rings":
		return r.rings(c, args)
	}
	var v [2]uint64
	for i := range args[:min(len(args), 2)] {
		if v[i], err = r.number(args[i]); err != nil {
			return err
		}
	}
	switch verb {
	case "trigger":
		return r.control(c, ControlTrigger, 4, v[0]<<16|v[1])
	case "level":
		return r.control(c, ControlLevel, 4, v[0])
	case "read", "write", "fetch", "store":
		start := map[string]uint64{"read": TransferRead, "write": TransferWrite, "fetch": TransferFetch, "store": TransferStore}[verb]
		return errors.Join(
			r.control(c, ControlAddr, 8, v[0]),
			r.control(c, ControlLength, 4, v[1]),
			r.control(c, ControlStart, 4, start),
		)
	}
	return fmt.Errorf("the device cannot %q", verb)
}

// control writes a register of the control region.
func (r *run) control(c *conn, off uint64, size int, v uint64) error {
	b := binary.NativeEndian.AppendUint64(nil, off)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.vars["control"]))
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	b, err := appendNumber(b, size, v)
	if err == nil {
		_, err = r.ask(c, "REGION_WRITE", b)
	}
	return err
}

// ask sends a command that must succeed before anything else comes.
func (r *run) ask(c *conn, command string, b []byte) ([]byte, error) {
	if len(c.asked) > 0 {
		return nil, errors.New("a command is open")
	}
	h := header{id: 0xc0de, command: layouts[command].command, size: uint32(headerSize + len(b))}
	if err := c.sendAll(append(h.append(nil), b...), 0, nil); err != nil {
		return nil, err
	}
	m, err := c.receive()
	closeAll(m.fds)
	if err == nil && (m.id != h.id || m.command != h.command || m.flags != flagReply) {
		err = fmt.Errorf("%s got %s %+v", command, nameOf(m.command), m.header)
	}
	return m.payload, err
}

// transferDone waits until a transfer has ended.
func (r *run) transferDone(c *conn, want string) error {
	status, err := r.poll(c, ControlStatus, func(v uint64) bool { return v != TransferBusy })
	if err != nil {
		return fmt.Errorf("the transfer does not end: %w", err)
	}
	name := unix.ErrnoName(unix.Errno(status))
	if status == 0 {
		name = "0"
	}
	if name != want {
		return fmt.Errorf("ended with %s, want %s", name, want)
	}
	return nil
}

// rings waits until a doorbell has rung.
func (r *run) rings(c *conn, args []string) error {
	if len(args) != 2 {
		return errors.New("wants a doorbell and a number")
	}
	bell, err := r.number(args[0])
	if err != nil {
		return err
	}
	want, err := r.number(args[1])
	if err != nil {
		return err
	}
	got, err := r.poll(c, ControlRings+4*bell, func(v uint64) bool { return v >= want })
	if err == nil && got != want {
		err = errors.New("too often")
	}
	if err != nil {
		return fmt.Errorf("doorbell %d rang %d times, want %d: %w", bell, got, want, err)
	}
	return nil
}

// poll reads a register until it is as it should be.
func (r *run) poll(c *conn, off uint64, ok func(uint64) bool) (uint64, error) {
	req := binary.NativeEndian.AppendUint64(nil, off)
	req = binary.NativeEndian.AppendUint32(req, uint32(r.vars["control"]))
	req = binary.NativeEndian.AppendUint32(req, 4)
	for deadline := time.Now().Add(patience); ; {
		b, err := r.ask(c, "REGION_READ", req)
		if err != nil {
			return 0, err
		}
		v, _, there := takeNumber(b[min(len(b), 16):], 4)
		switch {
		case !there:
			return 0, fmt.Errorf("register of %d bytes", len(b))
		case ok(v):
			return v, nil
		case time.Now().After(deadline):
			return v, fmt.Errorf("nothing in %v", patience)
		}
	}
}
