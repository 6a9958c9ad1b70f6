package nvme

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"vfiouser/block"
	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

func TestCompareAndCopy(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		t.Run(fmt.Sprint(blockSize), func(t *testing.T) {
			holdings.CheckLeaks(t)
			ctx := testContext(t)
			n := newDisk(t, device.Config{
				Namespaces:  []device.Namespace{{Backend: memoryBackend(t), BlockSize: blockSize}},
				MaxTransfer: 64 << 10,
			}).open(t).Namespace(1)
			data := make([]byte, 400<<10) // several commands
			pattern(data, 5)
			if _, err := n.WriteAt(data, 8192); err != nil {
				t.Fatal(err)
			}
			if err := n.Compare(ctx, data, 8192); err != nil {
				t.Error(err)
			}
			data[len(data)-1] ^= 1
			if err := n.Compare(ctx, data, 8192); !errors.Is(err, spec.CompareFailure) {
				t.Error(err)
			}
			data[len(data)-1] ^= 1

			var ranges []Range // more than a command takes, then one that is longer than a command's
			var want []byte
			for i := range 200 {
				off := (i * 7 % 90) * 4096
				ranges = append(ranges, Range{8192 + int64(off), 4096})
				want = append(want, data[off:off+4096]...)
			}
			ranges = append(ranges, Range{8192, int64(len(data))})
			want = append(want, data...)
			const to = 16 << 20
			if err := n.Copy(ctx, to, ranges...); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if _, err := n.ReadAt(got, to); err != nil || !bytes.Equal(got, want) {
				t.Error("what was copied is something else:", err)
			}
			if err := n.Copy(ctx, 0); err != nil {
				t.Error("nothing:", err)
			}
			for _, c := range []struct {
				to int64
				r  []Range
			}{
				{1, []Range{{0, 4096}}},
				{0, []Range{{0, 100}}},
				{diskSize, []Range{{0, 4096}}},
				{-4096, []Range{{0, 4096}}},
				{0, []Range{{diskSize, 4096}}},
				{0, []Range{{0, diskSize}, {0, 4096}}},
			} {
				if err := n.Copy(ctx, c.to, c.r...); !errors.Is(err, ErrInvalid) {
					t.Errorf("copy %+v: %v", c, err)
				}
			}
			if err := n.Compare(ctx, data[:100], 0); !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		})
	}
}

func TestVerifyAndWriteUncorrectable(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx := testContext(t)
	c := newDisk(t, device.Config{}).open(t)
	n := c.Namespace(1)
	if err := n.Verify(ctx, 0, diskSize); err != nil {
		t.Error(err)
	}
	const off, length = 4096, 40 << 20 // more than a command's blocks
	if err := n.WriteUncorrectable(ctx, off, length); err != nil {
		t.Error(err)
	}
	block := make([]byte, 512)
	for _, at := range []int64{off, off + length - 512} {
		if _, err := n.ReadAt(block, at); !errors.Is(err, spec.UnrecoveredRead) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	for _, at := range []int64{off - 512, off + length} {
		if _, err := n.ReadAt(block, at); err != nil {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if err := n.Verify(ctx, 0, diskSize); !errors.Is(err, spec.UnrecoveredRead) {
		t.Error(err)
	}
	if err := n.WriteZeroes(ctx, off, length); err != nil {
		t.Error(err)
	}
	if err := n.Verify(ctx, 0, diskSize); err != nil {
		t.Error(err)
	}
	c.identity.ONCS = 0
	none := c.Namespace(2)
	for _, f := range []func(n *Namespace) error{
		func(n *Namespace) error { return n.Verify(ctx, 0, 512) },
		func(n *Namespace) error { return n.WriteUncorrectable(ctx, 0, 512) },
		func(n *Namespace) error { return n.Compare(ctx, block, 0) },
		func(n *Namespace) error { return n.Copy(ctx, 0, Range{0, 512}) },
	} {
		if err := f(n); !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
		if err := f(none); !errors.Is(err, ErrNoNamespace) {
			t.Error(err)
		}
	}
}

// What WriteDurable wrote outlives a power cut, and what WriteAt wrote does not.
func TestWriteDurable(t *testing.T) {
	holdings.CheckLeaks(t)
	disk, err := block.NewVolatile(memoryBackend(t), block.VolatileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := newDisk(t, device.Config{Namespaces: []device.Namespace{{Backend: disk}}, MaxTransfer: 64 << 10}).open(t).Namespace(1)
	data := make([]byte, 200<<10) // several commands
	pattern(data, 5)
	if err := n.WriteDurable(testContext(t), data, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := n.WriteAt(data, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.CutPower(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := n.ReadAt(got, 4096); err != nil || !bytes.Equal(got, data) {
		t.Error("what was durable has gone:", err)
	}
	if _, err := n.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, make([]byte, len(data))) {
		t.Error("what was not durable is there:", err)
	}
	if err := n.WriteDurable(testContext(t), data[:100], 0); !errors.Is(err, ErrInvalid) {
		t.Error("half a block:", err)
	}
}
