package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"syscall"
	"testing"
)

// FuzzMessages: whatever payload comes, a form refuses it as it should or takes it; what it takes
// does not depend on what the message held before, and reading and writing it again changes
// nothing.
//
//fuzz:covers codec/dmaaccess.go codec/dmalogging.go codec/dmamap.go codec/dmaunmap.go codec/deviceinfo.go codec/feature.go codec/iofds.go
//fuzz:covers codec/irqinfo.go codec/migdata.go codec/migration.go codec/regionaccess.go codec/regioninfo.go codec/setirqs.go codec/writemulti.go codec/version.go
func FuzzMessages(f *testing.F) {
	seedForms(f)
	f.Fuzz(func(t *testing.T, which uint8, payload []byte) {
		all := forms()
		checkStable(t, all[int(which)%len(all)].name, payload)
	})
}

// checkStable has a form, of which the message was used before, read a payload, write it, and read
// and write that again.
func checkStable(t *testing.T, name string, payload []byte) {
	t.Helper()
	form, fresh := usedForm(name), formOf(name)
	before := bytes.Clone(payload)
	if err := form.decode(payload); err != nil {
		checkRefusal(t, form, err)
		if !bytes.Equal(payload, before) {
			t.Fatalf("%s: decoding changes the payload", form.name)
		}
		return
	}
	if len(payload) < form.least() {
		t.Fatalf("%s: %d bytes are taken, the table says at least %d", form.name, len(payload), form.least())
	}
	first := form.encode([]byte("prefix"))
	if !bytes.HasPrefix(first, []byte("prefix")) {
		t.Fatalf("%s: what is appended to is lost", form.name)
	}
	most := len(payload) + growth
	if form.command() == CmdVersion {
		most = maxVersion
	}
	if first = first[len("prefix"):]; len(first) > most {
		t.Fatalf("%s: %d bytes from %d", form.name, len(first), len(payload))
	}
	if !bytes.Equal(payload, before) {
		t.Fatalf("%s: the payload is changed", form.name)
	}
	if err := errors.Join(fresh.decode(payload), form.decode(payload)); err != nil {
		t.Fatalf("%s: refuses the second time: %v", form.name, err)
	}
	if got, want := fields(form.message), fields(fresh.message); got != want && form.command() != CmdVersion { // which has pointers
		t.Fatalf("%s: depends on what was before\n%s\n%s", form.name, got, want)
	}
	if again := fresh.encode(nil); !bytes.Equal(first, again) {
		t.Fatalf("%s: depends on what was before\n% x\n% x", form.name, first, again)
	}
	if err := form.decode(first); err != nil {
		t.Fatalf("%s: refuses what it wrote: %v\n% x", form.name, err, first)
	}
	if second := form.encode(nil); !bytes.Equal(first, second) {
		t.Fatalf("%s: unstable\n% x\n% x", form.name, first, second)
	}
}

// fields are those of a message, in which a list without members is none.
func fields(message any) string { return fmt.Sprintf("%+v", reflect.ValueOf(message).Elem()) }

// checkRefusal looks at the error of a form that refuses: it says of which command and why, and is
// answered with EINVAL.
func checkRefusal(t *testing.T, form form, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Errno != syscall.EINVAL || e.Command != form.command() || e.Reason == "" ||
		!slices.Contains([]error{ErrShort, ErrSize, ErrFlags, ErrRange, ErrJSON}, e.Kind) {
		t.Fatalf("%s: refused with %#v", form.name, err)
	}
}

const (
	maxVersion = 350 // bytes of a VERSION with all its members at their largest
	growth     = 4   // bytes by which another message may grow: a count that came short
)

// seedForms adds the samples of all forms, whole and empty, what is next to them, and payloads
// that are wrong in ways that a mutation seldom is.
func seedForms(f *testing.F) {
	add := func(i int, payload []byte) {
		f.Add(uint8(i), payload)
		for _, other := range neighbours(payload) {
			f.Add(uint8(i), other)
		}
	}
	for i, form := range forms() {
		f.Add(uint8(i), []byte{})
		add(i, form.sample)
	}
	head := func(argsz, size uint32) []byte {
		return pack(argsz, uint32(0x8), uint32(0), uint32(32), uint64(size), uint64(0))
	}
	for _, story := range []struct {
		form    string
		payload []byte
	}{
		{"GET_REGION_INFO reply", pack(head(48, 0), uint16(9), uint16(1), uint32(32), uint64(0))},               // capability is linked to itself
		{"GET_REGION_INFO reply", pack(head(48, 0), uint16(9), uint16(1), uint32(^uint32(0)), uint64(0))},       // linked to far behind the end
		{"GET_REGION_INFO reply", pack(head(48, 0), uint16(1), uint16(1), uint32(0), uint32(1<<28), uint32(0))}, // more areas than memory
		{"GET_REGION_INFO reply", pack(head(72, 16), uint16(1), uint16(1), uint32(56), uint32(1), uint32(0), uint64(8), // capabilities overlap
			uint64(8), uint16(2), uint16(1), uint32(0), uint64(7))},
		{"GET_REGION_INFO reply", pack(regionHead(96, RegionFlagCaps, 32, 1<<40), sparseCap(48, Area{1 | 64<<32, 2}, Area{1, 1}, Area{}))},                             // areas are capabilities
		{"GET_REGION_INFO reply", pack(regionHead(56, RegionFlagCaps, 32, 0), typeCap(40, RegionType{2, 0}), uint64(0))},                                               // a type is a capability
		{"GET_REGION_INFO reply", pack(head(64, 16), uint16(1), uint16(1), uint32(0), uint32(1), uint32(0), ^uint64(0), uint64(8))},                                    // area wraps around
		{"GET_REGION_INFO reply", pack(head(64, 16), uint16(1), uint16(1), uint32(0), uint32(1), uint32(0), uint64(9), uint64(8))},                                     // area ends behind the region
		{"REGION_WRITE_MULTI request", pack(uint64(1), uint64(0), uint32(0), uint32(9), uint64(0))},                                                                    // nine bytes in eight
		{"DEVICE_FEATURE data DMA_LOGGING_REPORT request", pack(uint64(0), uint64(4096), uint64(0))},                                                                   // pages of no size
		{"GET_REGION_IO_FDS reply", pack(uint32(16), uint32(0), uint32(0), ^uint32(0))},                                                                                // sub-regions of no size
		{"DMA_UNMAP request", pack(uint32(40), uint32(1), uint64(0), uint64(1), uint64(4096), ^uint64(0))},                                                             // bitmap beyond memory
		{"REGION_WRITE_MULTI request", pack(uint64(1<<59), make([]byte, 32))},                                                                                          // count times size wraps around
		{"DMA_MAP request", pack(uint32(32), uint32(0xf), uint64(4096), uint64(0), uint64(4096))},                                                                      // flags that exclude each other
		{"GET_REGION_IO_FDS reply", pack(uint32(16+90), uint32(0), uint32(2), uint32(2), make([]byte, 90))},                                                            // sub-regions of 45 bytes
		{"GET_REGION_IO_FDS reply", pack(uint32(16+56), uint32(0), uint32(2), uint32(1), uint64(0), uint64(0), uint32(0), uint32(2), make([]byte, 32))},                // a shadow in 56
		{"GET_REGION_IO_FDS reply", pack(uint32(16+48), uint32(0), uint32(2), uint32(1), uint64(0), uint64(0), uint32(0), uint32(1), uint64(0), uint64(5), uint64(6))}, // user data in 48
		{"SET_IRQS request", pack(uint32(20), uint32(0x9), uint32(2), uint32(0), uint32(0))},                                                                           // no vectors to mask
		{"SET_IRQS request", pack(uint32(20), uint32(0x21), uint32(2), ^uint32(2), uint32(2))},                                                                         // the last vectors there can be
		{"DEVICE_FEATURE", pack(uint32(16), uint32(0x30001), uint64(0))},                                                                                               // get and set
		{"DEVICE_FEATURE", pack(uint32(8), uint32(0x30001))},
		{"DEVICE_FEATURE", pack(uint32(15), uint32(0x50001), uint64(0))},                                                   // probe that is longer than its room
		{"DEVICE_FEATURE data DMA_LOGGING_START", pack(uint64(4096), uint32(1), uint32(0), ^uint64(0), uint64(1))},         // the last address
		{"DEVICE_FEATURE data DMA_LOGGING_REPORT reply", pack(uint64(0), uint64(65*4096), uint64(4096), make([]byte, 16))}, // a word for one page
		{"MIG_DATA_READ request", pack(uint32(4), ^uint32(3))},                                                             // size plus what precedes it wraps around
		{"DEVICE_FEATURE data MIG_DEVICE_STATE", pack(uint32(8), uint32(0))},                                               // no state
		{"REGION_WRITE_MULTI request", pack(uint64(2), make([]byte, 12), uint32(9), uint64(0), make([]byte, 24))},          // the first of two too long
		{"SET_IRQS request", pack(uint32(20), uint32(0x21), uint32(2), ^uint32(0), uint32(2))},                             // vectors wrap around
		{"DEVICE_FEATURE data DMA_LOGGING_START", pack(uint64(4096), uint32(1), uint32(0), ^uint64(0), uint64(2))},         // range wraps around
		{"DEVICE_FEATURE data DMA_LOGGING_REPORT reply", pack(uint64(0), ^uint64(0), uint64(1), make([]byte, 8))},          // bitmap of 2^61 bytes
		{"DMA_WRITE reply", pack(uint64(0x1000), uint32(4))},                                                               // count of four bytes
		{"MIG_DATA_READ reply", pack(uint32(12), uint32(2), make([]byte, 4))},                                              // as long as was asked for
	} {
		for i, form := range forms() {
			if form.name == story.form {
				add(i, story.payload)
			}
		}
	}
}

// neighbours are payloads in which one number is less or more by one, or has another bit where
// most messages have their flags, or that are shorter or longer by a byte.
func neighbours(payload []byte) (list [][]byte) {
	for at := 0; at+4 <= len(payload); at += 4 {
		v := binary.NativeEndian.Uint32(payload[at:])
		others := []uint32{v - 1, v + 1}
		if at == 4 {
			for bit := range 32 {
				others = append(others, v^1<<bit)
			}
		}
		for _, other := range others {
			b := bytes.Clone(payload)
			binary.NativeEndian.PutUint32(b[at:], other)
			list = append(list, b)
		}
	}
	return append(list, payload[:len(payload)-1], append(bytes.Clone(payload), 0))
}
