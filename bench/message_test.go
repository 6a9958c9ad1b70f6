package bench

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Roles come from the environment: whatever it says, a peer serves or refuses.
func TestPlayRefusesWhatIsNoRole(t *testing.T) {
	for _, role := range []string{"nobody", "echo", "echo 1", "echo 1 1 0", "echo 1 1 x", "echo 1 1 -1", "devices", "devices 1 2", "footprint 1", "footprint 9 1"} {
		t.Setenv(peerEnv, role)
		played, err := playOn(-1)
		if !played || err == nil || !strings.Contains(err.Error(), strings.Fields(role)[0]) {
			t.Errorf("%q: %v, %v", role, played, err)
		}
	}
}

// The device that reads guest memory obeys no order but one that it can carry out.
func TestOrdersAreChecked(t *testing.T) {
	d := &guestReader{registers: newRegisters(orderMaxSize)}
	order := func(n, size, mode byte) []byte {
		return []byte{n, 0, 0, 0, 0, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, mode, 0, 0, 0, 0, 0, 0, 0}
	}
	for name, p := range map[string][]byte{
		"short":    order(1, 1, 2)[:23],
		"no bytes": order(1, 0, 2),
		"no depth": order(1, 1, 0),
		"too long": append(order(1, 0, 0)[:8], 1, 0, 16, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0),
	} {
		if err := d.take(0, p); err == nil {
			t.Error(name, "was taken")
		}
	}
}

// In one process the allocations of both sides are seen. (Replies are small: what the engine
// keeps of large buffers follows what all sessions of the process have sent lately.)
func TestAllocationsOfMessages(t *testing.T) {
	for _, m := range []message{{size: 4, depth: 1}, {write: true, size: 4, depth: 1}, {write: true, size: 4096, depth: 1}} {
		t.Run(m.String(), func(t *testing.T) {
			s, err := messageSubject(inProcess(t, playDevice), m)
			if err != nil {
				t.Fatal(err)
			}
			withoutAllocations(t, s)
		})
	}
}

// inProcess plays a role on a goroutine.
func inProcess(t *testing.T, play func(fd int, args []int) error) int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- play(pair[1], nil) }()
	t.Cleanup(func() {
		unix.Close(pair[0])
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return pair[0]
}
