package holdings

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// CheckLeaks fails the test if it leaves a goroutine or a descriptor behind in this
// process. Call it first: it looks last.
func CheckLeaks(t testing.TB) {
	t.Helper()
	before := Descriptors(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t)
		if after := Descriptors(t); after != before {
			t.Errorf("%d descriptors were open before the test, %d are now", before, after)
		}
	})
}

// Descriptors counts the open descriptors of this process.
func Descriptors(t testing.TB) int {
	t.Helper()
	// The runtime opens its own poller with the first file that can be polled; have it open.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	entries, err := os.ReadDir(folder(Self) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
