package nvme

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"vfiouser/block"
	"vfiouser/client"
	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// pattern fills p with bytes that tell their place and the seed.
func pattern(p []byte, seed uint64) {
	var word [8]byte
	for i := 0; i < len(p); i += len(word) {
		binary.LittleEndian.PutUint64(word[:], (uint64(i)+seed<<32)*0x9e3779b97f4a7c15)
		copy(p[i:], word[:])
	}
}

func TestReadAtWriteAt(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		t.Run(fmt.Sprint(blockSize), func(t *testing.T) {
			holdings.CheckLeaks(t)
			n := newDisk(t, device.Config{Namespaces: []device.Namespace{{Backend: memoryBackend(t), BlockSize: blockSize}}}).open(t).Namespace(1)
			if n.BlockSize() != blockSize || n.Size() != diskSize || n.Blocks() != uint64(diskSize/blockSize) || n.ID() != 1 {
				t.Errorf("namespace %d of %d blocks of %d bytes", n.ID(), n.Blocks(), n.BlockSize())
			}
			const area = 4 << 20
			model := make([]byte, area)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 200 {
				length := 1 + r.IntN(40000)
				if i%20 == 0 {
					length = 1 + r.IntN(2<<20)
				}
				off := r.IntN(area - length)
				if i%3 == 0 {
					length, off = length&^4095, off&^4095
				}
				if r.IntN(2) == 0 {
					pattern(model[off:off+length], uint64(i))
					if k, err := n.WriteAt(model[off:off+length], int64(off)); k != length || err != nil {
						t.Fatal(k, err)
					}
				}
				p := make([]byte, length)
				if k, err := n.ReadAt(p, int64(off)); k != length || err != nil || !bytes.Equal(p, model[off:off+length]) {
					t.Fatalf("step %d: %d of %d bytes at %d, %v", i, k, length, off, err)
				}
			}
		})
	}
}

func memoryBackend(t testing.TB) block.Backend {
	t.Helper()
	b, err := block.Memory(diskSize)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTransfersAtTheEnd(t *testing.T) {
	holdings.CheckLeaks(t)
	n := newDisk(t, device.Config{}).open(t).Namespace(1)
	p := make([]byte, 1000)
	if k, err := n.ReadAt(p, diskSize-300); k != 300 || err != io.EOF {
		t.Error(k, err)
	}
	if k, err := n.ReadAt(p, diskSize); k != 0 || err != io.EOF {
		t.Error(k, err)
	}
	if k, err := n.ReadAt(p, diskSize-1000); k != 1000 || err != nil {
		t.Error(k, err)
	}
	if k, err := n.ReadAt(nil, 0); k != 0 || err != nil {
		t.Error(k, err)
	}
	if _, err := n.ReadAt(p, -1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for _, off := range []int64{-1, diskSize - 999, diskSize + 1, 1<<63 - 1} {
		if k, err := n.WriteAt(p, off); k != 0 || !errors.Is(err, ErrInvalid) {
			t.Error(off, k, err)
		}
	}
	if k, err := n.WriteAt(p, diskSize-1000); k != 1000 || err != nil {
		t.Error(k, err)
	}
}

func TestManyGoroutinesShareANamespace(t *testing.T) {
	holdings.CheckLeaks(t)
	n := newDisk(t, device.Config{}).open(t).Namespace(1)
	const share = 1 << 20
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			p, q := make([]byte, 100_001), make([]byte, 100_001)
			for round := range int64(5) {
				pattern(p, uint64(i*100+round))
				off := i*share + round*1000
				if _, err := n.WriteAt(p, off); err != nil {
					t.Error(err)
				}
				if _, err := n.ReadAt(q, off); err != nil || !bytes.Equal(p, q) {
					t.Error("what was written is not what is read:", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnalignedWritesToOneBlockDoNotLoseEachOther(t *testing.T) {
	holdings.CheckLeaks(t)
	n := newDisk(t, device.Config{}).open(t).Namespace(1)
	var wg sync.WaitGroup
	for i := range int64(64) {
		wg.Go(func() {
			if _, err := n.WriteAt([]byte{byte(i + 1)}, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p := make([]byte, 64)
	if _, err := n.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	for i := range p {
		if p[i] != byte(i+1) {
			t.Errorf("byte %d is %d", i, p[i])
		}
	}
}

func TestFlushZeroesDeallocate(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx := testContext(t)
	n := newDisk(t, device.Config{}).open(t).Namespace(1)
	full := bytes.Repeat([]byte{0xff}, 64<<10)
	if _, err := n.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	if err := n.Flush(ctx); err != nil {
		t.Error(err)
	}
	if err := n.WriteZeroes(ctx, 512, 1024); err != nil {
		t.Error(err)
	}
	if err := n.Deallocate(ctx, Range{8192, 4096}, Range{32768, 8192}); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(full))
	if _, err := n.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	clear(full[512:1536])
	clear(full[8192:12288])
	clear(full[32768:40960])
	if !bytes.Equal(got, full) {
		t.Error("the wrong bytes were zeroed")
	}
	if err := n.WriteZeroes(ctx, 0, diskSize); err != nil {
		t.Error("more than a command's blocks:", err)
	}
	many := make([]Range, 600)
	for i := range many {
		many[i] = Range{int64(i) * 4096, 4096}
	}
	if err := n.Deallocate(ctx, many...); err != nil {
		t.Error("more than a command's ranges:", err)
	}
	for _, r := range []Range{{1, 512}, {0, 100}, {-512, 512}, {0, -512}, {diskSize, 512}, {1 << 62, 1 << 62}} {
		if err := n.WriteZeroes(ctx, r.Offset, r.Length); !errors.Is(err, ErrInvalid) {
			t.Errorf("write zeroes %+v: %v", r, err)
		}
		if err := n.Deallocate(ctx, r); !errors.Is(err, ErrInvalid) {
			t.Errorf("deallocate %+v: %v", r, err)
		}
	}
}

func TestNamespaces(t *testing.T) {
	holdings.CheckLeaks(t)
	var cfg device.Config
	for i := range 3 {
		b, err := block.Memory(int64(i+1) << 20)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Namespaces = append(cfg.Namespaces, device.Namespace{Backend: b})
	}
	c := newDisk(t, cfg).open(t)
	list := c.Namespaces()
	if len(list) != 3 {
		t.Fatalf("%d namespaces", len(list))
	}
	for i, n := range list {
		if n.ID() != uint32(i+1) || n.Size() != int64(i+1)<<20 || c.Namespace(n.ID()) != n || n.Identify().Size != n.Blocks() {
			t.Errorf("namespace %d has %d bytes", n.ID(), n.Size())
		}
		if _, err := n.WriteAt([]byte{byte(i + 1)}, 0); err != nil {
			t.Error(err)
		}
	}
	for i, n := range list {
		p := make([]byte, 1)
		if _, err := n.ReadAt(p, 0); err != nil || p[0] != byte(i+1) {
			t.Error(p, err)
		}
	}
	none := c.Namespace(4)
	if none != nil || c.Namespace(0) != nil {
		t.Error("a namespace that is not there")
	}
	ctx := testContext(t)
	_, err1 := none.ReadAt(nil, 0)
	_, err2 := none.WriteAt(nil, 0)
	for _, err := range []error{err1, err2, none.Flush(ctx), none.WriteZeroes(ctx, 0, 0), none.Deallocate(ctx)} {
		if !errors.Is(err, ErrNoNamespace) {
			t.Error(err)
		}
	}
}

func TestStatusReachesTheCaller(t *testing.T) {
	holdings.CheckLeaks(t)
	c := newDisk(t, device.Config{}).open(t)
	n := c.Namespace(1)
	n.identity.Size *= 2 // the driver believes in more blocks than there are
	_, err := n.ReadAt(make([]byte, 512), diskSize)
	var status spec.Status
	if !errors.Is(err, spec.LBAOutOfRange) || !errors.As(err, &status) {
		t.Error(err)
	}
	k, err := n.ReadAt(make([]byte, 1<<20), diskSize-256<<10)
	if k != 256<<10 || !errors.Is(err, spec.LBAOutOfRange) {
		t.Error(k, err)
	}
}

func TestLittleMemoryMeansSmallBuffers(t *testing.T) {
	for _, size := range []uint64{96 << 10, 256 << 10, 2 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			holdings.CheckLeaks(t)
			d := newDisk(t, device.Config{})
			mem, err := client.NewMemory(size)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			d.mem = mem
			n := d.open(t).Namespace(1)
			p, q := make([]byte, 300_000), make([]byte, 300_000)
			pattern(p, size)
			if _, err := n.WriteAt(p, 77); err != nil {
				t.Fatal(err)
			}
			if _, err := n.ReadAt(q, 77); err != nil || !bytes.Equal(p, q) {
				t.Error(err)
			}
		})
	}
	d := newDisk(t, device.Config{})
	mem, err := client.NewMemory(16 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := Open(testContext(t), d.dev, mem); !errors.Is(err, client.ErrNoSpace) {
		t.Error(err)
	}
}
