package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Wire sends and receives whole frames at an interface, with their VLAN tags. Send is for
// one goroutine at a time, and so is Receive.
type Wire struct {
	file      *os.File
	etherType uint16
}

// Wire opens an interface for frames with an EtherType, in host byte order, behind a VLAN
// tag if there is one; 0: none are received.
func (n *Namespace) Wire(name string, etherType uint16) (*Wire, error) {
	w := &Wire{etherType: etherType}
	err := n.Do(func() error {
		card, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		w.file = os.NewFile(uintptr(fd), "packet socket")
		for _, option := range []int{unix.PACKET_AUXDATA, unix.PACKET_IGNORE_OUTGOING} {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
				return err
			}
		}
		// (only who receives all kinds of frames is told of tags)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: card.Index})
	})
	if err != nil {
		if w.file != nil {
			w.file.Close()
		}
		return nil, err
	}
	return w, nil
}

// Send puts a frame on the interface as if its own machine sent it.
func (w *Wire) Send(frame []byte) error {
	_, err := w.file.Write(frame)
	return err
}

// Addresses come first in a frame, then the tag if there is one.
const (
	addresses = 12
	tag       = 4
)

// auxdata is the size of the kernel's struct tpacket_auxdata: a status first, the two halves
// of a VLAN tag last.
const auxdata = 20

// everything is ETH_P_ALL, in network byte order.
const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8

// Receive waits for a frame until the deadline and returns its length. A longer one is cut.
func (w *Wire) Receive(p []byte, deadline time.Time) (int, error) {
	if err := w.file.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	control := make([]byte, unix.CmsgSpace(auxdata))
	for {
		var n, controls int
		readErr := conn.Read(func(fd uintptr) bool {
			n, controls, _, _, err = unix.Recvmsg(int(fd), p, control, 0)
			return err != unix.EAGAIN
		})
		if readErr != nil {
			return 0, readErr
		}
		if err != nil {
			return 0, err
		}
		if n >= addresses+2 && binary.BigEndian.Uint16(p[addresses:]) == w.etherType {
			return putTag(p, n, control[:controls])
		}
	}
}

// putTag puts the VLAN tag, which the kernel takes out of a frame, back to its place.
func putTag(p []byte, n int, control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxdata {
			continue
		}
		if len(p) < addresses+tag {
			continue
		}
		native := binary.NativeEndian
		if status := native.Uint32(m.Data); status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tci, tpid := native.Uint16(m.Data[16:]), native.Uint16(m.Data[18:])
		n = addresses + tag + copy(p[addresses+tag:], p[addresses:n])
		binary.BigEndian.PutUint16(p[addresses:], tpid)
		binary.BigEndian.PutUint16(p[addresses+2:], tci)
	}
	return n, nil
}

// Close closes the socket.
func (w *Wire) Close() error { return w.file.Close() }
