package vnet_test

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// The kernel as a second reference: what goes into one tap device with a request comes out
// of another one, which can do nothing, as the kernel has finished it.
func TestSegmentsAreThoseOfTheKernel(t *testing.T) {
	in, out := bridged(t)
	rnd := rand.New(rand.NewPCG(21, 22))
	var s vnet.Scratch
	for n := range 200 {
		r, size := random(rnd)
		r.payload = 1 + rnd.IntN(20000)
		size = min(max(size, r.payload/60), 8000) // Linux knows at most 64 datagrams in one
		r.tcpOptions = min(r.tcpOptions, 16)
		r.flags &= 0x19 // a flag of congestion needs its own kind
		if r.udp && size >= r.payload || n%4 == 3 {
			r.payload = min(r.payload, 8000) // which the kernel takes for a lie
			size = 0
		}
		data, h := r.frame(rnd)
		if h.GSOSize = uint16(size); size == 0 {
			h.GSOType = vnet.GSONone
		}
		want, _, reason := lower(&s, data, scatter(rnd, data), h, vnet.OffloadNone)
		if reason != vnet.ReasonNone {
			t.Fatalf("%d: %+v: %v", n, r, reason)
		}
		var header [vnet.HeaderSize]byte
		h.Put(header[:], 0)
		if _, err := unix.Writev(in, [][]byte{header[:10], data}); err != nil {
			t.Fatalf("%d: %+v, %+v: the kernel refuses it: %v", n, r, h, err)
		}
		for i, w := range want {
			if got := receive(t, out, data[:12]); !bytes.Equal(got, w) {
				t.Fatalf("%d: %+v, size %d: segment %d of %d: the kernel has\n%x, we have\n%x", n, r, size, i, len(want), got, w)
			}
		}
	}
}

// receive reads the next frame with these two addresses.
func receive(t *testing.T, fd int, addresses []byte) []byte {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 2000); err == unix.EINTR {
			continue
		} else if n == 0 || err != nil {
			t.Fatalf("nothing comes out of the kernel: %v", err)
		}
		n, err := unix.Read(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(buf[:12], addresses) {
			return buf[:n]
		}
	}
}

// bridged opens two tap devices on one bridge, in a network of their own: the first with
// virtio headers and all offloads, the second with none.
func bridged(t *testing.T) (in, out int) {
	t.Helper()
	// The thread has left the network of the others and is not unlocked: it ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network of our own: %v", err)
	}
	in, out = tap(t, "in", unix.IFF_VNET_HDR), tap(t, "out", 0)
	for _, args := range [][]string{
		{"link", "add", "between", "type", "bridge"},
		{"link", "set", "in", "mtu", "9000", "master", "between", "up"},
		{"link", "set", "out", "mtu", "9000", "master", "between", "up"},
		{"link", "set", "between", "mtu", "9000", "up"},
	} {
		if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v %s", args, err, text)
		}
	}
	return in, out
}

func tap(t *testing.T, name string, flags uint16) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no tap device: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Skipf("tap %s: %v", name, err)
	}
	return fd
}
