package nvme

import (
	"fmt"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// lastError is the newest entry of the error log.
func (g *guest) lastError() spec.ErrorEntry {
	g.t.Helper()
	page := g.alloc(1)
	g.must(getLog(spec.LogErrors, spec.ErrorEntrySize, 0, page))
	var e spec.ErrorEntry
	e.Get(g.bytes(page, spec.ErrorEntrySize))
	e.Status &^= spec.StatusMore
	return e
}

func TestCompare(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 16<<20)
		r.backends = []block.Backend{memory(t, 16<<20), file}
		g, q := started(t, r)
		const blocks = 2048
		data, list := g.alloc(blocks/8+1), g.alloc(3)
		for nsid := uint32(1); nsid <= 2; nsid++ {
			pattern(g.bytes(data, blocks*512), byte(nsid))
			prp1, prp2 := g.prps(data, blocks*512, list, false)
			if st := q.status(rw(spec.NVMWrite, nsid, 77, blocks, prp1, prp2)); !st.OK() {
				t.Fatal(st)
			}
			for _, c := range []struct {
				name   string
				spoilt int // the byte that differs, negative: none
				blocks int
			}{
				{"one block", -1, 1},
				{"a page", -1, 8},
				{"the largest", -1, blocks},
				{"first byte", 0, 1},
				{"last byte", 511, 1},
				{"block 5", 5*512 + 9, 8},
				{"behind the first piece", pieceSize + 512, blocks},
				{"last byte of the largest", blocks*512 - 1, blocks},
				{"behind what is compared", 8 * 512, 8},
			} {
				t.Run(fmt.Sprintf("%s, namespace %d", c.name, nsid), func(t *testing.T) {
					want := spec.Success
					if c.spoilt >= 0 {
						g.bytes(data, blocks*512)[c.spoilt] ^= 0x10
						defer func() { g.bytes(data, blocks*512)[c.spoilt] ^= 0x10 }()
						if c.spoilt < c.blocks*512 {
							want = spec.CompareFailure | spec.StatusDNR
						}
					}
					prp1, prp2 := g.prps(data, c.blocks*512, list, false)
					if st := q.status(rw(spec.NVMCompare, nsid, 77, c.blocks, prp1, prp2)); st != want {
						t.Errorf("%v, want %v", st, want)
					}
					if want.OK() {
						return
					}
					e := g.lastError()
					if e.Status != want || e.NSID != nsid || e.SQID != 1 || e.LBA != 77+uint64(c.spoilt/512) {
						t.Errorf("error log: %+v", e)
					}
				})
			}
		}
	})
}

func TestCompareWithSGL(t *testing.T) {
	g, q := started(t, rig{})
	data := g.alloc(1)
	pattern(g.bytes(data, pageSize), 3)
	if st := q.status(rw(spec.NVMWrite, 1, 0, 8, data, 0)); !st.OK() {
		t.Fatal(st)
	}
	e := rw(spec.NVMCompare, 1, 0, 8, data, pageSize)
	e.Flags = spec.PSDTSGL << 6
	if st := q.status(e); !st.OK() {
		t.Error(st)
	}
	e.PRP2-- // its length
	if st := q.status(e); st != spec.DataSGLLengthInvalid|spec.StatusDNR {
		t.Error(st)
	}
}

func TestVerify(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		b := &slowBackend{Backend: memory(t, 64<<20)}
		const bad = 100_000 << 9
		b.fail = func(r *block.Request) error {
			if r.Op == block.Read && r.Offset <= bad && bad < r.Offset+r.Length {
				return &block.Error{Err: syscall.EIO}
			}
			return nil
		}
		g, q := started(t, rig{byMsg: byMsg, backends: []block.Backend{b}})
		for _, c := range []struct {
			name   string
			lba    uint64
			blocks int
			want   spec.Status
		}{
			{"one block", 0, 1, spec.Success},
			{"the most there can be", 0, 65536, spec.Success},
			{"to the end", 131071, 1, spec.Success},
			{"one that cannot be read", 100_000, 1, spec.UnrecoveredRead},
			{"many with one that cannot be read", 65536, 65536, spec.UnrecoveredRead},
		} {
			t.Run(fmt.Sprintf("%s, by message %v", c.name, byMsg), func(t *testing.T) {
				if st := q.status(rw(spec.NVMVerify, 1, c.lba, c.blocks, 0, 0)); st != c.want {
					t.Errorf("%v, want %v", st, c.want)
				}
				if e := g.lastError(); !c.want.OK() && (e.Status != c.want || e.LBA > 100_000 || e.LBA+pieceSize>>9 <= 100_000) {
					t.Errorf("error log: %+v", e)
				}
			})
		}
		if n := g.c.smart.mediaErrors.Load(); n != 2 {
			t.Errorf("%d media errors", n)
		}
	}
}

// Compare counts as a read command, and both count what they read.
func TestSmartCountsCompareAndVerify(t *testing.T) {
	g, q := started(t, rig{})
	q.status(rw(spec.NVMCompare, 1, 0, 8, g.alloc(1), 0))
	q.status(rw(spec.NVMVerify, 1, 0, 1000, 0, 0))
	if l := &g.c.smart; l.reads.Load() != 1 || l.bytesRead.Load() != 1008*512 || l.writes.Load() != 0 || l.bytesWritten.Load() != 0 {
		t.Errorf("%d reads of %d bytes, %d writes of %d bytes", l.reads.Load(), l.bytesRead.Load(), l.writes.Load(), l.bytesWritten.Load())
	}
}

// A reset does not wait for all the blocks of a command that reads many.
func TestResetDuringVerify(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		b := holding(memory(t, 64<<20))
		b.stubborn = true
		r.backends = []block.Backend{b}
		g, q := started(t, r)
		for range 40 {
			q.submit(rw(spec.NVMVerify, 1, 0, 65536, 0, 0))
		}
		g.until("a request", func() bool { return b.held() > 0 })
		pieces := 0
		g.idle = func() int {
			if n := b.held(); n > 0 && g.c.host.dropping.Load() {
				pieces += n
				b.release()
			}
			return 0
		}
		g.disable()
		if pieces != 1 {
			t.Errorf("the reset has waited for %d pieces", pieces)
		}
		b.hold.Store(false)
		g.idle = nil
		g.enable()
		if r.mode == Shadow {
			g.useDBBUF()
		}
		q = g.createQueue(1, 64)
		if st := q.status(rw(spec.NVMVerify, 1, 0, 8, 0, 0)); !st.OK() {
			t.Error(st)
		}
	})
}
