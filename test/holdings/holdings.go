package holdings

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Self is this process.
const Self = 0

// GuestMemory is the kind of a mapping of a guest's memory.
const GuestMemory = "mapping of guest memory"

// Holdings is what a process holds, by kind.
type Holdings map[string]int

var numbers = regexp.MustCompile(`\d+`)

// releaseTime is how long a server may take to give things back.
const releaseTime = 10 * time.Second

func folder(pid int) string {
	if pid == Self {
		return "/proc/self"
	}
	return fmt.Sprintf("/proc/%d", pid)
}

// Of counts a process's descriptors, by what they refer to, and its mappings of guest
// memory.
func Of(t testing.TB, pid int) Holdings {
	t.Helper()
	held := Holdings{}
	dir := filepath.Join(folder(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		to, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil || strings.HasSuffix(to, "/fd") { // (just closed; ReadDir's own)
			continue
		}
		held["descriptor of "+numbers.ReplaceAllString(to, "N")]++
	}
	content, err := os.ReadFile(filepath.Join(folder(pid), "maps"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), "/memfd:memory-backend-memfd"); n != 0 {
		held[GuestMemory] = n
	}
	return held
}

// CheckReleased waits until a process holds what it held before, and no more.
func CheckReleased(t testing.TB, pid int, before Holdings) {
	t.Helper()
	var now Holdings
	for deadline := time.Now().Add(releaseTime); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if now = Of(t, pid); maps.Equal(now, before) {
			return
		}
	}
	t.Errorf("the process holds %v, before the client came %v", now, before)
}
