package hostile

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// census counts what an attack may leave behind.
type census struct {
	goroutines, descriptors, mappings int
}

func (c census) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d mappings of shared memory", c.goroutines, c.descriptors, c.mappings)
}

// count takes a look.
func count(t *testing.T) census {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return census{runtime.NumGoroutine(), len(fds), strings.Count(string(maps), "/memfd:")}
}

// takeCensus takes the least of several looks: a goroutine of a timer may run in one.
func takeCensus(t *testing.T) census {
	t.Helper()
	c := count(t)
	for range 10 {
		runtime.Gosched()
		now := count(t)
		c = census{min(c.goroutines, now.goroutines), min(c.descriptors, now.descriptors), min(c.mappings, now.mappings)}
	}
	return c
}

// wait waits until there is no more of anything than there was.
func (c census) wait(t *testing.T) {
	t.Helper()
	var now census
	for deadline := time.Now().Add(patience); ; {
		now = count(t)
		if now.goroutines <= c.goroutines && now.descriptors <= c.descriptors && now.mappings <= c.mappings {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond) // polls
	}
	stacks := make([]byte, 1<<20)
	t.Fatalf("before: %v\nafter: %v\n%s", c, now, stacks[:runtime.Stack(stacks, true)])
}
