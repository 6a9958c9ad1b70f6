package nvme

import (
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// TestWritesAreLogged: every page that the controller writes is reported, also through
// translations that it keeps from round to round.
func TestWritesAreLogged(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		for _, async := range []bool{false, true} {
			name := mode.String() + " memory"
			r := rig{mode: mode}
			if async {
				name = mode.String() + " file"
			}
			t.Run(name, func(t *testing.T) {
				if async {
					file, _ := fileBackend(t, 16<<20)
					r.backends = []block.Backend{file}
				}
				g, q := started(t, r)
				table := g.s.Memory()
				// A round that began before does not log what it writes.
				logs := make(chan struct{})
				if _, err := table.StartLogging(pageSize, nil, func() { close(logs) }); err != nil {
					t.Fatal(err)
				}
				<-logs
				data := g.alloc(4)
				read := rw(spec.NVMRead, 1, 0, 8, data, 0)
				bitmap := make([]uint64, guestSize/pageSize/64)
				written := func(iova uint64) bool {
					p := (iova - guestBase) / pageSize
					return bitmap[p/64]>>(p%64)&1 != 0
				}
				want := []uint64{data, q.cq}
				if mode == Shadow {
					want = append(want, g.shadow+pageSize)
				}
				// The first round translates the queues anew, and marks all of them.
				for range 3 {
					clear(bitmap)
					if st := q.status(read); !st.OK() {
						t.Fatal(st)
					}
					g.until("all that was written to be reported", func() bool {
						if err := table.ReportDirty(dma.Range{IOVA: guestBase, Size: guestSize}, pageSize, bitmap); err != nil {
							t.Fatal(err)
						}
						return !slices.ContainsFunc(want, func(iova uint64) bool { return !written(iova) })
					})
				}
				if written(q.sq) || written(data+pageSize) {
					t.Error("a page is reported that nobody writes")
				}
				if st := g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, PRP1: data + pageSize, CDW10: 1}).Status; !st.OK() {
					t.Fatal(st)
				}
				g.until("the admin queue's writes to be reported", func() bool {
					if err := table.ReportDirty(dma.Range{IOVA: guestBase, Size: guestSize}, pageSize, bitmap); err != nil {
						t.Fatal(err)
					}
					return written(data+pageSize) && written(g.admin.cq)
				})
			})
		}
	}
}
