package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A client and its server are two processes, and so they are here, the server's limit included.
// Both share a core: a core that went idle takes longer to wake than a round trip.

// peerEnv, in the environment of a program that calls Play, says what it is to be: a role and
// its arguments. Descriptor 3 is the connection to who started it.
const peerEnv = "VFIOUSER_BENCH_PEER"

const peerFD = 3

// peerPatience is how long a peer may take to end when nobody is connected to it any more.
const peerPatience = 10 * time.Second

// roles are what a peer can be. Each serves its connection until that ends.
var roles = map[string]func(fd int, args []int) error{
	"echo":      playEcho,
	"echoes":    playEchoes,
	"accept":    playAccept,
	"sink":      playSink,
	"device":    playDevice,
	"devices":   playDevices,
	"askguest":  playAskGuest,
	"footprint": playFootprint,
	"nbd":       playNBD,
}

// canPlay says that this program, started once more, is a peer.
var canPlay atomic.Bool

// Play makes this process a peer if another one has started it as such, and returns true when
// it has ended. A program that sets up cases calls it first of all.
func Play() (played bool, err error) {
	return playOn(peerFD)
}

func playOn(fd int) (played bool, err error) {
	role := os.Getenv(peerEnv)
	if role == "" {
		canPlay.Store(true)
		return false, nil
	}
	name, rest, _ := strings.Cut(role, " ")
	play := roles[name]
	if play == nil {
		return true, fmt.Errorf("bench: no peer can be %q", role)
	}
	var args []int
	for _, word := range strings.Fields(rest) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 {
			return true, fmt.Errorf("bench: no peer can be %q", role)
		}
		args = append(args, n)
	}
	if err := play(fd, args); err != nil {
		return true, fmt.Errorf("bench: as a peer, %s: %w", role, err)
	}
	return true, nil
}

// spawn starts a peer on the CPU of this thread, in the folder of env, and returns a connection
// to it. Both end with env.
func spawn(env *Env, role string, args ...int) (int, error) {
	if !canPlay.Load() {
		return -1, errors.New("bench: this program has not called Play")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "peer")
	defer theirs.Close()
	for _, n := range args {
		role += " " + strconv.Itoa(n)
	}
	var complaint bytes.Buffer
	cmd := exec.Command("/proc/self/exe") // itself, even if another build lies in its place by now
	cmd.Env = append(os.Environ(), peerEnv+"="+role)
	cmd.Dir, cmd.Stderr = env.Dir, &complaint
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is not for it: it ends with its connection
	if err := cmd.Start(); err != nil {
		unix.Close(pair[0])
		return -1, err
	}
	env.Cleanup(func() {
		unix.Close(pair[0])
		kill := time.AfterFunc(peerPatience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			env.Log.Error("a peer has failed", "role", role, "err", err, "says", complaint.String())
		}
	})
	return pair[0], nil
}

// sendAll writes all of p to a socket that waits.
func sendAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		default:
			p = p[n:]
		}
	}
	return nil
}

// recvSome waits for bytes. None is io.EOF's place: the peer is gone.
func recvSome(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errors.New("bench: the peer is gone")
		default:
			return n, nil
		}
	}
}

// hungUp tells an error, or none, of a system call of a peer whose connection has ended.
func hungUp(e syscall.Errno) error {
	if e == 0 || e == unix.ECONNRESET || e == unix.EPIPE {
		return nil
	}
	return e
}
