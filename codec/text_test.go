package codec

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessagesRead(t *testing.T) {
	const reply, noReply, fails = FlagReply, FlagNoReply, FlagReply | FlagError
	index := uint64(0)
	version := func(c Capabilities) []byte { m := VersionMsg{Minor: 1, Caps: c}; return m.Append(nil) }
	region := func(m RegionInfo) []byte { return m.AppendReply(nil, ^uint32(0)) }
	ioFDs := func(r ...IOFD) []byte { m := IOFDs{Index: 2, Regions: r}; return m.AppendReply(nil, ^uint32(0)) }
	feature := func(argsz uint32, f FeatureFlags, data []byte) []byte { return pack(argsz, uint32(f), data) }
	irqs := func(f IRQSetFlags, index, start, count uint32, data string) []byte {
		return pack(uint32(20+len(data)), uint32(f), index, start, count, data)
	}
	report := pack(uint64(0x1000), uint64(0x8000), uint64(4096))
	areas := make([]Area, 10)
	for _, tt := range []struct {
		command Command
		flags   Flags
		payload []byte
		want    string
	}{
		{CmdVersion, 0, pack(uint16(0), uint16(1)), "VERSION #7 0.1"},
		{CmdVersion, 0, version(Capabilities{MaxMsgFDs: 16, MaxDataXferSize: 1 << 20, MaxDMAMaps: 65535, PgSizes: 4096, WriteMultiple: true,
			TwinSocket: &TwinSocket{Supported: true}, Migration: &MigrationCaps{4096, 1 << 28}}),
			"VERSION #7 0.1 max_msg_fds 16 max_data_xfer_size 1048576 max_dma_maps 65535 pgsizes 4096 write_multiple twin_socket " +
				"migration pgsize 4096 max_bitmap_size 268435456"},
		{CmdVersion, reply, version(Capabilities{TwinSocket: &TwinSocket{Supported: true, FDIndex: &index}}),
			"VERSION #7 reply 0.1 twin_socket fd_index 0"},
		{CmdVersion, reply, version(Capabilities{TwinSocket: &TwinSocket{}}), "VERSION #7 reply 0.1 twin_socket no"},
		{CmdVersion, 0, pack(uint32(0), "{}"), "VERSION #7 broken: invalid version data: version data does not end with a NUL 6 bytes 00 00 00 00 7b 7d"},
		{CmdDMAMap, 0, pack(uint32(32), uint32(3), uint64(0x1000), uint64(0xc0000), uint64(0x20000)), "DMA_MAP #7 0xc0000+0x20000 READ|WRITE offset 0x1000"},
		{CmdDMAMap, 0, pack(uint32(32), uint32(9), uint64(0), uint64(0), uint64(1), "x"), "DMA_MAP #7 0x0+0x1 READ|FILE_IO offset 0x0 and 1 bytes 78"},
		{CmdDMAMap, 0, pack(uint32(32), uint32(0), uint64(0), uint64(0), uint64(1)), "DMA_MAP #7 0x0+0x1 0x0 offset 0x0"},
		{CmdDMAMap, 0, pack(uint32(32), uint32(16), make([]byte, 24)),
			"DMA_MAP #7 broken: invalid flags: unknown flag 32 bytes 20 00 00 00 10 00 00 00 00 00 00 00 00 00 00 00 ..."},
		{CmdDMAMap, reply, nil, "DMA_MAP #7 reply"},
		{CmdDMAMap, reply, []byte{1}, "DMA_MAP #7 reply and 1 bytes 01"},
		{CmdDMAUnmap, 0, pack(uint32(24), uint32(0), uint64(0x1000), uint64(0x2000)), "DMA_UNMAP #7 0x1000+0x2000"},
		{CmdDMAUnmap, reply, pack(uint32(24), uint32(2), uint64(0), uint64(0)), "DMA_UNMAP #7 reply ALL"},
		{CmdDMAUnmap, 0, pack(uint32(48), uint32(1), uint64(0), uint64(0x8000), uint64(4096), uint64(8)),
			"DMA_UNMAP #7 0x0+0x8000 GET_DIRTY_BITMAP pgsize 4096 size 8"},
		{CmdDMAUnmap, reply, pack(uint32(48), uint32(1), uint64(0), uint64(0x8000), uint64(4096), uint64(8), []byte{5, 0, 0, 0, 0, 0, 0, 0}),
			"DMA_UNMAP #7 reply 0x0+0x8000 GET_DIRTY_BITMAP pgsize 4096 8 bytes 05 00 00 00 00 00 00 00"},
		{CmdGetInfo, 0, pack(uint32(16), uint32(0), uint32(0), uint32(0)), "GET_INFO #7 argsz 16"},
		{CmdGetInfo, reply, pack(uint32(16), uint32(3), uint32(9), uint32(5)), "GET_INFO #7 reply RESET|PCI regions 9 irqs 5"},
		{CmdGetRegionInfo, 0, pack(uint32(32), uint32(0), uint32(7), uint32(0), uint64(0), uint64(0)), "GET_REGION_INFO #7 CONFIG argsz 32"},
		{CmdGetRegionInfo, reply, region(RegionInfo{Index: 0, Flags: 7, Size: 0x4000, Offset: 0x1000, Sparse: []Area{{0x1000, 0x1000}, {0x3000, 0x1000}}}),
			"GET_REGION_INFO #7 reply BAR0 size 0x4000 READ|WRITE|MMAP|CAPS offset 0x1000 sparse 0x1000+0x1000 0x3000+0x1000"},
		{CmdGetRegionInfo, reply, region(RegionInfo{Index: 9, Flags: 1, Size: 0x4000, Type: RegionType{RegionTypePCIVendor | 0x8086, 1}}),
			"GET_REGION_INFO #7 reply region 9 size 0x4000 READ|CAPS offset 0x0 type 0x80008086:0x1"},
		{CmdGetRegionInfo, reply, region(RegionInfo{Index: 6, Flags: 1, Sparse: areas}),
			"GET_REGION_INFO #7 reply ROM size 0x0 READ|CAPS offset 0x0 sparse" + strings.Repeat(" 0x0+0x0", 8) + " and 2 more"},
		{CmdGetRegionInfo, reply, regionHead(64, 0xf, 32, 0x4000), "GET_REGION_INFO #7 reply BAR0 size 0x4000 READ|WRITE|MMAP|CAPS offset 0x0 cut, argsz 64"},
		{CmdGetRegionIOFDs, 0, ioFDsHead(16, 0), "GET_REGION_IO_FDS #7 BAR2 argsz 16"},
		{CmdGetRegionIOFDs, reply, ioFDsHead(96, 2), "GET_REGION_IO_FDS #7 reply BAR2 count 2 cut, argsz 96"},
		{CmdGetRegionIOFDs, reply, ioFDs(eventfd, regionfd, shadowed), "GET_REGION_IO_FDS #7 reply BAR2 count 3 " +
			"0x1000+0x4 IOEVENTFD fd 1 datamatch 0x7 0x2000+0x8 IOREGIONFD fd 2 user_data 0xabcd 0x3000+0x4 IOEVENTFD_SHADOW fd 1 shadow fd 3 offset 0x40"},
		{CmdGetRegionIOFDs, reply, ioFDs(make([]IOFD, 9)...), "GET_REGION_IO_FDS #7 reply BAR2 count 9" + strings.Repeat(" 0x0+0x0 IOEVENTFD fd 0", 8) + " and 1 more"},
		{CmdGetIRQInfo, 0, pack(uint32(16), uint32(0), uint32(3), uint32(0)), "GET_IRQ_INFO #7 ERR argsz 16"},
		{CmdGetIRQInfo, reply, pack(uint32(16), uint32(0x1f), uint32(0), uint32(1)), "GET_IRQ_INFO #7 reply INTx count 1 EVENTFD|MASKABLE|AUTOMASKED|NORESIZE|0x10"},
		{CmdSetIRQs, 0, irqs(IRQSetDataEventfd|IRQSetActionTrigger, 2, 0, 16, ""), "SET_IRQS #7 MSI-X vectors 0-15 EVENTFD|TRIGGER"},
		{CmdSetIRQs, 0, irqs(IRQSetDataBool|IRQSetActionMask, 1, 3, 2, "\x01\x00"), "SET_IRQS #7 MSI vectors 3-4 BOOL|MASK 2 bytes 01 00"},
		{CmdSetIRQs, 0, irqs(IRQSetDataNone|IRQSetActionUnmask, 0, 0, 1, ""), "SET_IRQS #7 INTx vector 0 NONE|UNMASK"},
		{CmdSetIRQs, 0, irqs(IRQSetDataNone|IRQSetActionTrigger, 4, 0, 0, ""), "SET_IRQS #7 REQ all NONE|TRIGGER"},
		{CmdSetIRQs, 0, irqs(IRQSetDataNone|IRQSetActionTrigger, 9, 0, 0, "xy"), "SET_IRQS #7 interrupt index 9 all NONE|TRIGGER and 2 bytes 78 79"},
		{CmdSetIRQs, reply, nil, "SET_IRQS #7 reply"},
		{CmdRegionRead, 0, pack(uint64(0x1c), uint32(0), uint32(4)), "REGION_READ #7 BAR0+0x1c 4 bytes"},
		{CmdRegionRead, reply, pack(uint64(0x1c), uint32(0), uint32(4), []byte{1, 2, 3, 4}), "REGION_READ #7 reply BAR0+0x1c 4 bytes 01 02 03 04"},
		{CmdRegionRead, fails, nil, "REGION_READ #7 error EINVAL"},
		{CmdRegionWrite, 0, pack(uint64(0x1000), uint32(0), uint32(4), []byte{1, 0, 0, 0}), "REGION_WRITE #7 BAR0+0x1000 4 bytes 01 00 00 00"},
		{CmdRegionWrite, noReply, pack(uint64(0), uint32(8), uint32(1), []byte{9}), "REGION_WRITE #7 no reply VGA+0x0 1 bytes 09"},
		{CmdRegionWrite, 0, pack(uint64(0), uint32(4), uint32(17), make([]byte, 17)), "REGION_WRITE #7 BAR4+0x0 17 bytes" + strings.Repeat(" 00", 16) + " ..."},
		{CmdRegionWrite, 0, pack(uint64(0), uint32(0), uint32(4)),
			"REGION_WRITE #7 broken: sizes contradict each other: count differs from the length of the data 16 bytes 00 00 00 00 00 00 00 00 00 00 00 00 04 00 00 00"},
		{CmdRegionWrite, reply, pack(uint64(0x1000), uint32(0), uint32(4)), "REGION_WRITE #7 reply BAR0+0x1000 4 bytes"},
		{CmdDMARead, 0, pack(uint64(0x1000), uint64(64)), "DMA_READ #7 0x1000 64 bytes"},
		{CmdDMARead, reply, pack(uint64(0x1000), uint64(2), []byte{1, 2}), "DMA_READ #7 reply 0x1000 2 bytes 01 02"},
		{CmdDMAWrite, 0, pack(uint64(0x1000), uint64(2), []byte{1, 2}), "DMA_WRITE #7 0x1000 2 bytes 01 02"},
		{CmdDMAWrite, reply, pack(uint64(0x1000), uint64(2)), "DMA_WRITE #7 reply 0x1000 2 bytes"},
		{CmdDMAWrite, reply, pack(uint64(0x1000), uint32(2)), "DMA_WRITE #7 reply 0x1000 2 bytes"},
		{CmdReset, 0, nil, "RESET #7"},
		{CmdReset, reply, nil, "RESET #7 reply"},
		{CmdRegionWriteMulti, 0, pack(uint64(2), uint64(8), uint32(0), uint32(1), []byte{5, 0, 0, 0, 0, 0, 0, 0}, uint64(16), uint32(1), uint32(0), uint64(0)),
			"REGION_WRITE_MULTI #7 2 writes BAR0+0x8 1 bytes 05, BAR1+0x10 0 bytes"},
		{CmdRegionWriteMulti, reply, pack(uint64(2)), "REGION_WRITE_MULTI #7 reply 2 writes"},
		{CmdDeviceFeature, 0, feature(16, FeatureGet|FeatureMigration, nil), "DEVICE_FEATURE #7 GET MIGRATION argsz 16"},
		{CmdDeviceFeature, reply, feature(16, FeatureGet|FeatureMigration, pack(uint64(5))), "DEVICE_FEATURE #7 reply GET MIGRATION STOP_COPY|PRE_COPY"},
		{CmdDeviceFeature, reply, feature(16, FeatureGet|FeatureMigration, nil),
			"DEVICE_FEATURE #7 reply broken: message too short: MIGRATION needs 8 bytes 8 bytes 10 00 00 00 01 00 01 00"},
		{CmdDeviceFeature, 0, feature(16, FeatureSet|FeatureMigDeviceState, pack(uint64(3))), "DEVICE_FEATURE #7 SET MIG_DEVICE_STATE STOP_COPY argsz 16"},
		{CmdDeviceFeature, reply, feature(16, FeatureGet|FeatureMigDeviceState, pack(uint64(6))), "DEVICE_FEATURE #7 reply GET MIG_DEVICE_STATE PRE_COPY"},
		{CmdDeviceFeature, 0, feature(8, FeatureProbe|FeatureSet|FeatureMigDeviceState, nil), "DEVICE_FEATURE #7 SET|PROBE MIG_DEVICE_STATE argsz 8"},
		{CmdDeviceFeature, 0, feature(8, FeatureGet|9, nil), "DEVICE_FEATURE #7 GET feature 9 argsz 8"},
		{CmdDeviceFeature, 0, feature(40, FeatureSet|FeatureDMALoggingStart, pack(uint64(4096), uint32(1), uint32(0), uint64(0x1000), uint64(0x8000))),
			"DEVICE_FEATURE #7 SET DMA_LOGGING_START page_size 4096 0x1000+0x8000 argsz 40"},
		{CmdDeviceFeature, reply, feature(24, FeatureSet|FeatureDMALoggingStart, pack(uint64(4096), uint64(0))), "DEVICE_FEATURE #7 reply SET DMA_LOGGING_START page_size 4096 all"},
		{CmdDeviceFeature, 0, feature(8, FeatureSet|FeatureDMALoggingStop, nil), "DEVICE_FEATURE #7 SET DMA_LOGGING_STOP argsz 8"},
		{CmdDeviceFeature, 0, feature(40, FeatureGet|FeatureDMALoggingReport, report), "DEVICE_FEATURE #7 GET DMA_LOGGING_REPORT 0x1000+0x8000 page_size 4096 argsz 40"},
		{CmdDeviceFeature, reply, feature(40, FeatureGet|FeatureDMALoggingReport, pack(report, uint64(0xff))),
			"DEVICE_FEATURE #7 reply GET DMA_LOGGING_REPORT 0x1000+0x8000 page_size 4096 8 bytes ff 00 00 00 00 00 00 00"},
		{CmdMigDataRead, 0, pack(uint32(4104), uint32(4096)), "MIG_DATA_READ #7 4096 bytes argsz 4104"},
		{CmdMigDataRead, reply, pack(uint32(10), uint32(2), []byte{1, 2, 3}), "MIG_DATA_READ #7 reply 2 bytes 01 02 and 1 bytes 03"},
		{CmdMigDataWrite, 0, pack(uint32(10), uint32(2), []byte{1, 2}), "MIG_DATA_WRITE #7 2 bytes 01 02"},
		{CmdMigDataWrite, reply, nil, "MIG_DATA_WRITE #7 reply"},
		{14, 0, []byte("ab"), "command 14 #7 and 2 bytes 61 62"},
		{0xffff, reply, nil, "command 65535 #7 reply"},
	} {
		m := Message{Header{ID: 7, Command: tt.command, Flags: tt.flags, Errno: 22}, tt.payload}
		if got := m.String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestErrorRepliesRead(t *testing.T) {
	for errno, want := range map[uint32]string{
		0:          "RESET #1 error without errno",
		1:          "RESET #1 error EPERM",
		17:         "RESET #1 error EEXIST",
		41:         "RESET #1 error errno 41", // Linux leaves it out
		133:        "RESET #1 error EHWPOISON",
		135:        "RESET #1 error errno 135",
		^uint32(0): "RESET #1 error errno 4294967295",
	} {
		m := Message{Header: Header{ID: 1, Command: CmdReset, Flags: FlagReply | FlagError, Errno: errno}}
		if got := m.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	m := Message{Header{Command: CmdRegionRead, Flags: FlagReply | FlagError, Errno: 5}, []byte("x")}
	if got, want := m.String(), "REGION_READ #0 error EIO and 1 bytes 78"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrnoNamesAreLinuxs(t *testing.T) {
	two := map[uint32]string{95: "EOPNOTSUPP", 117: "EUCLEAN"} // which x/sys calls by another name
	for n := range uint32(4096) {
		if name, ok := two[n]; ok && errnoName(n) == name {
			continue
		}
		if got, want := errnoName(n), unix.ErrnoName(unix.Errno(n)); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// Who has a payload has a text.
func TestTextsAgreeWithTheTableOfCommands(t *testing.T) {
	for c, op := range ops {
		if has := texts[c].request != nil; has != (op.RequestSize > 0) {
			t.Errorf("%s request: text %v, payload of %d bytes", op.Name, has, op.RequestSize)
		}
		if has := texts[c].reply != nil; has != (op.ReplySize > 0) {
			t.Errorf("%s reply: text %v, payload of %d bytes", op.Name, has, op.ReplySize)
		}
	}
}

func TestTextIsAppended(t *testing.T) {
	m := Message{Header: Header{ID: 1, Command: CmdReset}}
	if got, err := m.AppendText([]byte("> ")); string(got) != "> RESET #1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzText: whatever comes, the text is one line of printable characters that is not long, and
// says of a payload that it is broken if, and only if, it is refused.
//
//fuzz:covers codec/text.go codec/textforms.go codec/textfeature.go codec/errno.go
func FuzzText(f *testing.F) {
	for _, form := range forms() {
		for _, flags := range []Flags{0, FlagReply, FlagReply | FlagError, FlagNoReply} {
			f.Add(uint16(form.command()), uint32(flags), form.sample)
		}
	}
	for c := range NumCommands + 1 {
		f.Add(uint16(c), uint32(0), []byte(nil))
		f.Add(uint16(c), uint32(FlagReply), []byte{1})
	}
	for _, flags := range []FeatureFlags{FeatureGet | FeatureMigration, FeatureGet | FeatureMigDeviceState, FeatureSet | FeatureMigDeviceState, FeatureSet | FeatureDMALoggingStart,
		FeatureSet | FeatureDMALoggingStop, FeatureGet | FeatureDMALoggingReport, FeatureGet | FeatureProbe | FeatureMigration, FeatureGet | 9} {
		f.Add(uint16(CmdDeviceFeature), uint32(0), pack(uint32(1000), uint32(flags)))
		f.Add(uint16(CmdDeviceFeature), uint32(FlagReply), pack(uint32(1000), uint32(flags), uint64(1), uint64(1), uint64(1), uint64(1)))
	}
	const many = 400
	info, fds := RegionInfo{Size: 1, Sparse: make([]Area, many)}, IOFDs{Regions: make([]IOFD, many)}
	f.Add(uint16(CmdGetRegionInfo), uint32(FlagReply), info.AppendReply(nil, ^uint32(0)))
	f.Add(uint16(CmdGetRegionIOFDs), uint32(FlagReply), fds.AppendReply(nil, ^uint32(0)))
	f.Add(uint16(CmdRegionWriteMulti), uint32(0), pack(uint64(many), make([]byte, many*SingleWriteSize)))
	f.Add(uint16(CmdRegionRead), uint32(FlagReply), pack(uint64(0), uint32(0), uint32(many), make([]byte, many)))
	logging := pack(uint64(1), uint32(many), uint32(0))
	for range many {
		logging = AppendIOVARange(logging, IOVARange{0, 1})
	}
	f.Add(uint16(CmdDeviceFeature), uint32(0), pack(uint32(8+len(logging)), uint32(FeatureSet|FeatureDMALoggingStart), logging))
	f.Fuzz(func(t *testing.T, command uint16, flags uint32, payload []byte) {
		m := Message{Header{ID: 1, Command: Command(command), Flags: Flags(flags), Errno: flags}, payload}
		before := bytes.Clone(payload)
		text := m.String()
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload is changed")
		}
		if len(text) > 1000 {
			t.Errorf("%d characters", len(text))
		}
		for _, c := range []byte(text) {
			if c < ' ' || c > '~' {
				t.Fatalf("%q", text)
			}
		}
		if refused := refusedForm(m); m.Header.Command != CmdDeviceFeature && strings.Contains(text, " broken: ") != (refused != nil) {
			t.Errorf("%q; refused: %v", text, refused)
		}
	})
}

// refusedForm is why a message's payload is not the one that its command has in its direction.
func refusedForm(m Message) error {
	direction := " request"
	if m.Header.IsReply() {
		direction = " reply"
	}
	for _, form := range forms() {
		if name := m.Header.Command.String(); !m.Header.IsError() && (form.name == name || form.name == name+direction) {
			return form.decode(m.Payload)
		}
	}
	return nil
}
