package nvme

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

func TestCompareAndWrite(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx := testContext(t)
	c := newDisk(t, device.Config{}).open(t)
	n := c.Namespace(1)
	old, next := make([]byte, 16<<10), make([]byte, 16<<10)
	pattern(next, 3)
	if err := n.CompareAndWrite(ctx, old, next, 4096); err != nil {
		t.Fatal(err)
	}
	if err := n.CompareAndWrite(ctx, old, next, 4096); !errors.Is(err, spec.CompareFailure) {
		t.Error(err)
	}
	got := make([]byte, len(next))
	if _, err := n.ReadAt(got, 4096); err != nil || !bytes.Equal(got, next) {
		t.Error("something else is there:", err)
	}
	if err := n.CompareAndWrite(ctx, old, next, diskSize-8192); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := n.CompareAndWrite(ctx, old, next[:512], 0); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	c.identity.FUSES = 0
	if err := n.CompareAndWrite(ctx, old, next, 0); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// More goroutines than half the tags.
func TestCompareAndWriteInParallel(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx := testContext(t)
	n := newDisk(t, device.Config{}).open(t).Namespace(1)
	var wg sync.WaitGroup
	const workers, rounds = 40, 5
	for range workers {
		wg.Go(func() {
			old, next := make([]byte, 512), make([]byte, 512)
			for done := 0; done < rounds; {
				if _, err := n.ReadAt(old, 0); err != nil {
					t.Error(err)
					return
				}
				binary.LittleEndian.PutUint32(next, binary.LittleEndian.Uint32(old)+1)
				switch err := n.CompareAndWrite(ctx, old, next, 0); {
				case err == nil:
					done++
				case !errors.Is(err, spec.CompareFailure):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	block := make([]byte, 512)
	if _, err := n.ReadAt(block, 0); err != nil || binary.LittleEndian.Uint32(block) != workers*rounds {
		t.Errorf("%v, % x", err, block[:4])
	}
}
