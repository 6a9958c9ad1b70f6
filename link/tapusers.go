package link

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a tap device says of itself in its link's information (linux/if_link.h).
const (
	tunNumQueues         = 8 // IFLA_TUN_NUM_QUEUES: in service
	tunNumDisabledQueues = 9 // IFLA_TUN_NUM_DISABLED_QUEUES
)

// openQueues is how many queues of the tap device called name are open, by whomever. It is 0 if
// there is no such device, or if the kernel does not tell: only a device with one queue is
// then safe from being used twice, because the kernel itself refuses that.
func openQueues(name string) int {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return 0
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return 0
	}
	for i := range messages {
		attributes, err := syscall.ParseNetlinkRouteAttr(&messages[i])
		if err != nil {
			continue
		}
		n, found := 0, false
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.IFLA_IFNAME:
				found = unix.ByteSliceToString(a.Value) == name
			case unix.IFLA_LINKINFO:
				data := attribute(a.Value, unix.IFLA_INFO_DATA)
				n = number(attribute(data, tunNumQueues)) + number(attribute(data, tunNumDisabledQueues))
			}
		}
		if found {
			return n
		}
	}
	return 0
}

// attribute finds a netlink attribute among those in b; nil if it is not there.
func attribute(b []byte, kind uint16) []byte {
	const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^flags == kind {
			return b[unix.SizeofRtAttr:size]
		}
		b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}

// number is an attribute of 4 bytes, 0 if it is not there.
func number(b []byte) int {
	if len(b) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}
