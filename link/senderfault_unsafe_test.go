package link_test

import (
	"bytes"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// truncated returns shared memory of which only the first pages are left, as a guest's is
// after it has truncated its memory.
func truncated(t testing.TB, pages, left int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	page := os.Getpagesize()
	must(t, unix.Ftruncate(fd, int64(pages*page)))
	mem, err := unix.Mmap(fd, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, unix.Ftruncate(fd, int64(left*page)))
	must(t, unix.Close(fd))
	t.Cleanup(func() { must(t, unix.Munmap(mem)) })
	return mem
}

// sendsFaulting sends frames of which one lies in memory that is gone, and fails the test
// unless that is a fault at its address.
func sendsFaulting(t testing.TB, port link.Port, frames []vnet.Frame, mem []byte) {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		t.Helper()
		fault, ok := recover().(interface{ Addr() uintptr })
		if !ok {
			t.Fatal("memory that is gone was no fault")
		}
		// Sound: the address is only compared.
		first := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
		if a := fault.Addr(); a < first+uintptr(os.Getpagesize()) || a >= first+uintptr(len(mem)) {
			t.Errorf("the fault is at %#x, and the memory that is gone ends at %#x", a, first+uintptr(len(mem)))
		}
	}()
	n := port.Send(0, frames)
	t.Errorf("%d frames were taken", n)
}

// inParts cuts a frame into so many parts.
func inParts(f []byte, n int) vnet.Frame {
	cut := vnet.Frame{Len: len(f)}
	for ; n > 1; n-- {
		cut.Parts = append(cut.Parts, f[:1])
		f = f[1:]
	}
	cut.Parts = append(cut.Parts, f)
	return cut
}

func TestTapFaultIsTheSenders(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:vt0,up=on")
	card, port := attach(t, l)
	port.SetOffloads(vnet.OffloadNone, 1)
	awaitCarrier(card, true)
	mem := truncated(t, 2, 1)
	gone := mem[os.Getpagesize()-100:][:1000]
	for _, parts := range []int{1, 2, 90} { // the last is gathered first
		sendsFaulting(t, port, []vnet.Frame{inParts(gone, parts)}, mem)
		if n := port.Send(0, linktest.Frames(numbered(60, 0))); n != 1 {
			t.Errorf("the frame after the fault was not taken")
		}
	}
}

// A fault in the middle of a stream leaves the peer in step: it gets the frame that it was
// promised, whatever is in it, and those that follow.
func TestStreamFaultIsTheSenders(t *testing.T) {
	l, accept := listening(t, "")
	card, port := attach(t, l)
	port.SetOffloads(vnet.OffloadNone, 1)
	p := accept()
	awaitCarrier(card, true)
	page := os.Getpagesize()
	mem := truncated(t, 2, 1)
	gone := mem[page-100:][:1000]
	for _, parts := range []int{1, 2, 300} {
		sendsFaulting(t, port, []vnet.Frame{inParts(gone, parts)}, mem)
	}
	// What is left of this one where frames wait must not be taken for the rest of another.
	if n := port.Send(0, []vnet.Frame{inParts(bytes.Repeat([]byte{0xee}, 65000), 300)}); n != 1 {
		t.Fatal("a frame in many parts was not taken")
	}
	p.read()
	sum := inParts(gone, 1)
	sum.Header = vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 6}
	sendsFaulting(t, port, []vnet.Frame{sum}, mem)

	// The kernel has sent half of this one when it comes to where the memory ends.
	mem = truncated(t, 16, 10)
	sendsFaulting(t, port, append(linktest.Frames(numbered(60, 1)), inParts(mem[:16*page-100], 1)), mem)
	after := numbered(60, 2)
	// That looks like a socket that is full, until the reactor says that it is not.
	card.Await(func() bool { return port.Send(0, linktest.Frames(after)) == 1 })
	var lengths []int
	for {
		f := p.read()
		lengths = append(lengths, len(f))
		if bytes.IndexByte(f, 0xee) >= 0 && len(f) > 60 {
			t.Error("the frame that could not be read ends with another's bytes")
		}
		if bytes.Equal(f, after) {
			break
		}
	}
	if want := []int{60, 16*page - 100, 60}; !slices.Equal(lengths, want) {
		t.Errorf("the peer got frames of %d bytes, not of %d", lengths, want)
	}
}
