package nvme

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// variants are all ways in which queues are noticed and memory is reached.
func variants(t *testing.T, f func(t *testing.T, r rig)) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		for _, byMsg := range []bool{false, true} {
			name := mode.String()
			if byMsg {
				name += " by message"
			}
			t.Run(name, func(t *testing.T) { f(t, rig{mode: mode, byMsg: byMsg}) })
		}
	}
}

// started is a guest with one I/O queue of 64 entries, and shadow doorbells if offered.
func started(t testing.TB, r rig) (*guest, *testQueue) {
	g := newGuest(t, r)
	g.enable()
	if r.mode == Shadow {
		g.useDBBUF()
	}
	return g, g.createQueue(1, 64)
}

func fileBackend(t testing.TB, size int64) (block.Backend, string) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := block.File(path, block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, path
}

func TestDataSurvivesEveryShapeOfTransfer(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 16<<20)
		r.backends = []block.Backend{memory(t, 16<<20), file}
		g, q := started(t, r)
		rnd := rand.New(rand.NewPCG(1, 2))
		data := g.alloc(600)
		list := g.alloc(3)
		for _, c := range []struct {
			name   string
			off    uint64 // of the first page
			blocks int
			chain  bool // the list begins two entries before the end of its page
		}{
			{"one block", 0, 1, false},
			{"a page", 0, 8, false},
			{"a page across two", 512, 8, false},
			{"two pages", 0, 16, false},
			{"three pages by list", 1024, 17, false},
			{"128 KiB", 0, 256, false},
			{"chained lists", 2048, 256, true},
			{"the largest", 0, 2048, false},
			{"the largest, chained", 4, 2048, true},
		} {
			for nsid := uint32(1); nsid <= 2; nsid++ {
				t.Run(fmt.Sprintf("%s, namespace %d", c.name, nsid), func(t *testing.T) {
					n := c.blocks * 512
					want := make([]byte, n)
					for i := range want {
						want[i] = byte(rnd.Uint32())
					}
					copy(g.bytes(data+c.off, n), want)
					prp1, prp2 := g.prps(data+c.off, n, list, c.chain)
					if st := q.status(rw(spec.NVMWrite, nsid, 77, c.blocks, prp1, prp2)); !st.OK() {
						t.Fatal(st)
					}
					clear(g.bytes(data, n+int(c.off)))
					if st := q.status(rw(spec.NVMRead, nsid, 77, c.blocks, prp1, prp2)); !st.OK() {
						t.Fatal(st)
					}
					if !bytes.Equal(g.bytes(data+c.off, n), want) {
						t.Error("what was read is not what was written")
					}
				})
			}
		}
	})
}

// prps describes n bytes at iova; pages are in their natural order.
func (g *guest) prps(iova uint64, n int, list uint64, chain bool) (prp1, prp2 uint64) {
	first := pageSize - int(iova%pageSize)
	if n <= first {
		return iova, 0
	}
	rest := n - first
	page := iova + uint64(first)
	if rest <= pageSize {
		return iova, page
	}
	at := list
	if chain {
		at = list + pageSize - 16
	}
	prp2 = at
	for i, pages := 0, (rest+pageSize-1)/pageSize; i < pages; i++ {
		if at%pageSize == pageSize-8 && i < pages-1 {
			next := at + 8
			binary.LittleEndian.PutUint64(g.bytes(at, 8), next)
			at = next
		}
		binary.LittleEndian.PutUint64(g.bytes(at, 8), page)
		at += 8
		page += pageSize
	}
	return iova, prp2
}

func TestFullQueueKeepsEveryCommand(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 4<<20)
		r.backends = []block.Backend{memory(t, 4<<20), file}
		g, q := started(t, r)
		data := g.alloc(64)
		for round := range 20 {
			nsid := uint32(round%2 + 1)
			old := q.tail
			var cids []uint16
			for i := range 63 {
				at := data + uint64(i)*pageSize
				binary.LittleEndian.PutUint64(g.bytes(at, 8), uint64(round)<<32|uint64(i))
				cids = append(cids, q.put(rw(spec.NVMWrite, nsid, uint64(i)*8, 8, at, 0)))
			}
			q.ringTail(old)
			for _, cid := range cids {
				if c := q.result(cid); !c.Status.OK() {
					t.Fatal(c.Status)
				}
			}
		}
		clear(g.bytes(data, pageSize))
		if st := q.status(rw(spec.NVMRead, 1, 8*7, 8, data, 0)); !st.OK() {
			t.Fatal(st)
		}
		if got := binary.LittleEndian.Uint64(g.bytes(data, 8)); got != 18<<32|7 {
			t.Errorf("block holds %#x", got)
		}
	})
}
