package engine

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

// A command with No_reply is served in its turn and never answered, well or badly, and the
// descriptors that came with it are not left open (specification, "Header", No_reply).
func TestPostedCommandsOfEveryKind(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	file := memfd(t, 0x10000)
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	irqSet := func(flags, index, start, count uint32) []byte { return u32(20, flags, index, start, count) }
	for _, c := range []struct {
		name    string
		cmd     codec.Command
		payload []byte
		fds     []int
		kept    int // descriptors that stay open
	}{
		{"VERSION again", codec.CmdVersion, version(1, qemuCaps), nil, 0},
		{"VERSION again, with a twin socket", codec.CmdVersion, version(1, `{"max_msg_fds":8,"twin_socket":{"supported":true}}`), nil, 0},
		{"DMA_MAP", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x10000), []int{file}, 0},
		{"DMA_MAP refused", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x10000), []int{file}, 0},
		{"DMA_MAP refused, two descriptors", codec.CmdDMAMap, dmaMap(3, 0, 0x200000, 0x10000), []int{file, file}, 0},
		{"DMA_UNMAP", codec.CmdDMAUnmap, dmaUnmap(0, 0x100000, 0x10000), nil, 0},
		{"DMA_UNMAP with a descriptor, as SPDK", codec.CmdDMAUnmap, dmaUnmap(0, 0x100000, 0x10000), []int{file}, 0},
		{"DMA_UNMAP of all", codec.CmdDMAUnmap, dmaUnmap(2, 0, 0), nil, 0},
		{"GET_INFO", codec.CmdGetInfo, u32(16, 0, 0, 0), nil, 0},
		{"GET_REGION_INFO with descriptors", codec.CmdGetRegionInfo, append(u32(80, 0, 2, 0), u64(0, 0)...), nil, 0},
		{"GET_REGION_INFO refused", codec.CmdGetRegionInfo, append(u32(80, 0, 99, 0), u64(0, 0)...), nil, 0},
		{"GET_REGION_IO_FDS refused", codec.CmdGetRegionIOFDs, ioFDs(56, 99), nil, 0},
		{"GET_IRQ_INFO", codec.CmdGetIRQInfo, u32(16, 0, 0, 0), nil, 0},
		{"GET_IRQ_INFO refused", codec.CmdGetIRQInfo, u32(16, 0, 9, 0), nil, 0},
		{"SET_IRQS", codec.CmdSetIRQs, irqSet(0x24, 2, 0, 1), []int{event}, 1},
		{"SET_IRQS refused, not an eventfd", codec.CmdSetIRQs, irqSet(0x24, 2, 1, 1), []int{file}, 0},
		{"SET_IRQS refused, too many", codec.CmdSetIRQs, irqSet(0x24, 2, 1, 1), []int{event, event}, 0},
		{"SET_IRQS disables", codec.CmdSetIRQs, irqSet(0x21, 2, 0, 0), nil, -1},
		{"REGION_READ", codec.CmdRegionRead, regionRead(0, 0, 8), nil, 0},
		{"REGION_READ refused", codec.CmdRegionRead, regionRead(4, 0, 8), nil, 0},
		{"REGION_WRITE", codec.CmdRegionWrite, regionWrite(0, 0, 1), nil, 0},
		{"REGION_WRITE with descriptors", codec.CmdRegionWrite, regionWrite(0, 0, 1), []int{file, file}, 0},
		{"REGION_WRITE refused", codec.CmdRegionWrite, regionWrite(9, 0, 1), nil, 0},
		{"REGION_WRITE that resets", codec.CmdRegionWrite, regionWrite(7, uint64(b.device.express+8), 0, 0x80), nil, 0},
		{"REGION_WRITE_MULTI", codec.CmdRegionWriteMulti, writeMultiOf(writeOf(0, 0, 1)), nil, 0},
		{"REGION_WRITE_MULTI refused", codec.CmdRegionWriteMulti, writeMultiOf(writeOf(9, 0, 1)), nil, 0},
		{"REGION_WRITE_MULTI that resets", codec.CmdRegionWriteMulti, writeMultiOf(writeOf(7, uint64(b.device.express+8), 0, 0x80), writeOf(0, 0, 1)), nil, 0},
		{"RESET", codec.CmdReset, nil, nil, 0},
		{"DEVICE_FEATURE refused", codec.CmdDeviceFeature, u32(8, 0xffff|1<<18), nil, 0},
		{"MIG_DATA_READ refused", codec.CmdMigDataRead, u32(8, 8), nil, 0},
		{"MIG_DATA_WRITE refused", codec.CmdMigDataWrite, u32(16, 8, 0, 0), nil, 0},
		{"a server's command", codec.CmdDMARead, u64(0, 0), nil, 0},
		{"a command that nobody knows", 99, u64(0, 0), []int{file}, 0},
		{"more descriptors than were negotiated", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000), slices.Repeat([]int{file}, maxMsgFDs+1), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			before := holdings.Descriptors(t)
			conn.write(conn.frame(c.cmd, codec.FlagNoReply, c.payload), c.fds...)
			conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0)) // the next reply is this one's
			eventually(t, "descriptors closed", func() bool { return holdings.Descriptors(t) == before+c.kept })
		})
	}
}

// Posted or not, commands are served in the order of their arrival.
func TestPostedCommandsKeepTheirOrder(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	var all []byte
	for i := range 200 {
		flags := codec.Flags(0)
		if i%3 != 0 {
			flags = codec.FlagNoReply
		}
		all = append(all, conn.frame(codec.CmdRegionWrite, flags, regionWrite(0, 0, byte(i)))...)
		if i%50 == 49 {
			all = append(all, conn.frame(codec.CmdReset, codec.FlagNoReply, nil)...)
		}
		all = append(all, conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 1))...)
	}
	conn.write(all)
	for i := range 200 {
		if i%3 == 0 {
			if h, _, _ := conn.read(); h.Command != codec.CmdRegionWrite {
				t.Fatalf("reply %+v", h)
			}
		}
		want := byte(i)
		if i%50 == 49 {
			want = 0
		}
		if h, reply, _ := conn.read(); h.Command != codec.CmdRegionRead || reply[16] != want {
			t.Fatalf("reply %+v %v, want %d", h, reply, want)
		}
	}
}
