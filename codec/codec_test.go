package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// pack lays out values one after the other, integers in the host's byte order.
func pack(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case uint8:
			b = append(b, v)
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, v)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, v)
		case uint64:
			b = binary.NativeEndian.AppendUint64(b, v)
		case string:
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		default:
			panic(fmt.Sprintf("pack: %T", v))
		}
	}
	return b
}

// wantError checks that err is a refusal of command c under kind, with EINVAL; a nil
// kind wants no error.
func wantError(t *testing.T, err error, c Command, kind error) {
	t.Helper()
	if kind == nil {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if !errors.Is(err, kind) || e.Command != c || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v (errno %d), want %v: %v with EINVAL", err, e.Errno, c, kind)
	}
}

func wantBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("got\n% x, want\n% x", got, want)
	}
}

// form is one direction of one message.
type form struct {
	name    string
	message any // that decode fills and encode writes
	decode  func([]byte) error
	encode  func([]byte) []byte
	sample  []byte // a valid payload
}

// command is the one whose payload it is.
func (f form) command() Command {
	name, _, _ := strings.Cut(f.name, " ")
	return Command(slices.IndexFunc(ops[:], func(op Op) bool { return op.Name == name }))
}

// least is the size of the smallest payload that the table of commands allows, in bytes.
func (f form) least() int {
	op := ops[f.command()]
	switch {
	case strings.Contains(f.name, " data "): // of a feature
		return 0
	case strings.Contains(f.name, " reply"):
		return op.ReplySize
	}
	return op.RequestSize
}

// formOf is the form of a name. It has a message of its own.
func formOf(name string) form {
	all := forms()
	return all[slices.IndexFunc(all, func(f form) bool { return f.name == name })]
}

// usedForm is the same with a message into which it, and then all others that it is one of, have
// read something before.
func usedForm(name string) form {
	all := forms()
	i := slices.IndexFunc(all, func(f form) bool { return f.name == name })
	_ = all[i].decode(all[i].sample)
	for k, f := range all {
		if k != i && f.message == all[i].message {
			_ = f.decode(f.sample)
		}
	}
	return all[i]
}

// forms are all directions of all messages, each on a message of its own.
func forms() []form {
	var (
		version VersionMsg
		dmaMap  DMAMap
		unmap   DMAUnmap
		device  DeviceInfo
		region  RegionInfo
		irq     IRQInfo
		set     SetIRQs
		access  RegionAccess
		dma     DMAAccess
		multi   WriteMulti
		ioFDs   IOFDs
		feature Feature
		mig     MigData
		flags   MigrationFlags
		state   MigState
		logging DMALogging
		report  DMALoggingReport
	)
	ioFDsReply := func(dst []byte) []byte { return ioFDs.AppendReply(dst, ^uint32(0)) }
	write := pack(uint64(8), uint32(0), uint32(4), uint64(0x04030201))
	ioFD := pack(uint64(0x1000), uint64(4), uint32(0), uint32(0), uint32(1), uint32(0), uint64(7))
	shadow := pack(uint64(0x1000), uint64(4), uint32(0), uint32(2), uint32(0), uint32(1), uint64(0x2000), uint64(0))
	typed := pack(uint32(80), uint32(0xf), uint32(9), uint32(32), uint64(0x4000), uint64(0),
		uint16(1), uint16(1), uint32(64), uint32(1), uint32(0), uint64(0x1000), uint64(0x1000),
		uint16(2), uint16(1), uint32(0), uint32(0x80001af4), uint32(1))
	regionReply := func(dst []byte) []byte { return region.AppendReply(dst, ^uint32(0)) }
	sparse := pack(uint32(64), uint32(0xf), uint32(0), uint32(32), uint64(0x4000), uint64(0),
		uint16(1), uint16(1), uint32(0), uint32(1), uint32(0), uint64(0x1000), uint64(0x1000))
	bitmap := pack(uint32(48), uint32(1), uint64(0), uint64(0x8000), uint64(4096), uint64(8))
	head := pack(uint64(8), uint32(7), uint32(4))
	dmaHead := pack(uint64(0x1000), uint64(4))
	data := []byte{1, 2, 3, 4}
	return []form{
		{"VERSION", &version, version.Decode, version.Append,
			pack(uint16(0), uint16(1), `{"capabilities":{"max_msg_fds":8}}`, uint8(0))},
		{"DMA_MAP request", &dmaMap, dmaMap.Decode, dmaMap.Append,
			pack(uint32(32), uint32(3), uint64(0), uint64(0x1000), uint64(0x2000))},
		{"DMA_UNMAP request", &unmap, unmap.DecodeRequest, unmap.Append,
			pack(uint32(24), uint32(0), uint64(0x1000), uint64(0x2000))},
		{"DMA_UNMAP request with bitmap", &unmap, unmap.DecodeRequest, unmap.Append, bitmap},
		{"DMA_UNMAP reply", &unmap, unmap.DecodeReply, unmap.Append, pack(bitmap, make([]byte, 8))},
		{"GET_INFO", &device, device.Decode, device.Append,
			pack(uint32(16), uint32(3), uint32(9), uint32(5))},
		{"GET_REGION_INFO request", &region, region.DecodeRequest, region.AppendRequest,
			pack(uint32(32), make([]byte, 28))},
		{"GET_REGION_INFO reply", &region, region.DecodeReply, regionReply, sparse},
		{"GET_IRQ_INFO", &irq, irq.Decode, irq.Append,
			pack(uint32(16), uint32(1), uint32(2), uint32(65))},
		{"SET_IRQS request", &set, set.Decode, set.Append,
			pack(uint32(22), uint32(0x22), uint32(2), uint32(0), uint32(2), []byte{0, 1})},
		{"REGION_READ request", &access, access.DecodeReadRequest, access.AppendHead, head},
		{"REGION_READ reply", &access, access.DecodeReadReply, access.Append, pack(head, data)},
		{"REGION_WRITE request", &access, access.DecodeWriteRequest, access.Append, pack(head, data)},
		{"REGION_WRITE reply", &access, access.DecodeWriteReply, access.AppendHead, head},
		{"DMA_READ request", &dma, dma.DecodeReadRequest, dma.AppendHead, dmaHead},
		{"DMA_READ reply", &dma, dma.DecodeReadReply, dma.Append, pack(dmaHead, data)},
		{"DMA_WRITE request", &dma, dma.DecodeWriteRequest, dma.Append, pack(dmaHead, data)},
		{"DMA_WRITE reply", &dma, dma.DecodeWriteReply, dma.AppendHead, dmaHead},
		{"GET_REGION_INFO reply with a type", &region, region.DecodeReply, regionReply, typed},
		{"REGION_WRITE_MULTI request", &multi, multi.DecodeRequest, multi.Append, pack(uint64(2), write, write)},
		{"REGION_WRITE_MULTI reply", &multi, multi.DecodeReply, multi.AppendHead, pack(uint64(2))},
		{"GET_REGION_IO_FDS request", &ioFDs, ioFDs.DecodeRequest, ioFDs.AppendRequest,
			pack(uint32(56), uint32(0), uint32(2), uint32(0))},
		{"GET_REGION_IO_FDS reply", &ioFDs, ioFDs.DecodeReply, ioFDsReply,
			pack(uint32(96), uint32(0), uint32(2), uint32(2), ioFD, ioFD)},
		{"GET_REGION_IO_FDS reply with a shadow", &ioFDs, ioFDs.DecodeReply, ioFDsReply,
			pack(uint32(64), uint32(0), uint32(2), uint32(1), shadow)},
		{"DEVICE_FEATURE", &feature, feature.Decode, feature.Append, pack(uint32(16), uint32(0x10001), uint64(5))},
		{"DEVICE_FEATURE data MIGRATION", &flags, flags.Decode, func(dst []byte) []byte { return flags.Append(dst) }, pack(uint64(5))},
		{"DEVICE_FEATURE data MIG_DEVICE_STATE", &state, state.Decode, func(dst []byte) []byte { return state.Append(dst) },
			pack(uint32(6), uint32(0))},
		{"DEVICE_FEATURE data DMA_LOGGING_START", &logging, logging.Decode, logging.Append,
			pack(uint64(4096), uint32(1), uint32(0), uint64(0x1000), uint64(0x8000))},
		{"DEVICE_FEATURE data DMA_LOGGING_REPORT request", &report, report.DecodeRequest, report.AppendHead,
			pack(uint64(0x1000), uint64(0x8000), uint64(4096))},
		{"DEVICE_FEATURE data DMA_LOGGING_REPORT reply", &report, report.DecodeReply, report.Append,
			pack(uint64(0x1000), uint64(0x8000), uint64(4096), uint64(0xff))},
		{"MIG_DATA_READ request", &mig, mig.DecodeReadRequest, mig.AppendHead, pack(uint32(12), uint32(4))},
		{"MIG_DATA_READ reply", &mig, mig.DecodeReadReply, mig.Append, pack(uint32(12), uint32(4), data)},
		{"MIG_DATA_WRITE request", &mig, mig.DecodeWriteRequest, mig.Append, pack(uint32(12), uint32(4), data)},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			if err := f.decode(f.sample); err != nil {
				t.Fatal(err)
			}
			got := f.encode([]byte("prefix"))
			wantBytes(t, got, pack("prefix", f.sample))
		})
	}
}

// Whatever is cut off, the message is refused: no form takes a prefix of its sample.
func TestCutMessagesAreRefused(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			for n := range f.sample {
				err := f.decode(f.sample[:n])
				switch {
				case f.name == "VERSION" && n == VersionSize: // the JSON is optional
				case f.name == "DMA_WRITE reply" && n == dmaWriteReplyMin:
				// cut by the server: ask again
				case strings.HasPrefix(f.name, "GET_REGION_INFO reply") && n >= RegionInfoSize:
				case strings.HasPrefix(f.name, "GET_REGION_IO_FDS reply") && n >= IOFDsSize:
				case f.name == "DEVICE_FEATURE" && n >= FeatureSize: // the length of its data is the feature's
				case err == nil:
					t.Errorf("the first %d of %d bytes were taken", n, len(f.sample))
				case !errors.Is(err, syscall.EINVAL):
					t.Errorf("%d bytes: %v is not EINVAL", n, err)
				}
			}
		})
	}
}

func TestDecodeAndEncodeDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 4096)
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			if f.name != "VERSION" { // whose JSON allocates
				decode := testing.AllocsPerRun(100, func() {
					if f.decode(f.sample) != nil {
						t.Fail()
					}
				})
				if decode != 0 {
					t.Errorf("decoding: %v allocations", decode)
				}
			}
			if encode := testing.AllocsPerRun(100, func() { f.encode(buf) }); encode != 0 {
				t.Errorf("encoding: %v allocations", encode)
			}
		})
	}
	h := Header{ID: 1, Command: CmdRegionRead, Size: 32}
	n := testing.AllocsPerRun(100, func() {
		h.Put(buf[:HeaderSize])
		if got, err := DecodeHeader(buf[:HeaderSize]); err != nil || got != h {
			t.Fail()
		}
	})
	if n != 0 {
		t.Errorf("header: %v allocations", n)
	}
}

func TestErrorText(t *testing.T) {
	err := new(DMAMap).Decode(nil)
	if got, want := err.Error(), "DMA_MAP: message too short: payload needs 32 bytes"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
