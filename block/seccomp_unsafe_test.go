package block

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidRings has io_uring_setup(2) fail in every thread, as filters of container engines do.
func forbidRings(t *testing.T, errno syscall.Errno) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	must(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if failed != 0 {
		t.Skip("no seccomp: ", failed)
	}
}

// A kernel that forbids io_uring is one without.
func TestEngineUnderSeccomp(t *testing.T) {
	const role = "VFIOUSER_BLOCK_TEST_SECCOMP"
	path := os.Getenv(role)
	if path == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEngineUnderSeccomp$", "-test.v")
		cmd.Env = append(os.Environ(), role+"="+newPath(t, 1<<20))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if bytes.Contains(out, []byte("--- SKIP")) {
			t.Skipf("%s", out)
		}
		return
	}
	forbidRings(t, syscall.EPERM)
	b, err := Open("file:" + path)
	must(t, err)
	f := closing(t, b, nil).(*file)
	if f.ring != nil {
		t.Error("it has an io_uring")
	}
	f.detour()
	want, got := bytes.Repeat([]byte{5}, 4096), make([]byte, 4096)
	must(t, write(f, 0, want))
	must(t, do(f, &Request{Op: Flush}))
	must(t, read(f, 0, got))
	if !bytes.Equal(got, want) {
		t.Error("the data is damaged")
	}
	if _, err := Open("file:" + newPath(t, 512) + ",engine=uring"); !errors.Is(err, syscall.EPERM) {
		t.Errorf("io_uring asked for: %v, want EPERM", err)
	}
}
