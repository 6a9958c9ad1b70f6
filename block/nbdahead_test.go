package block

import (
	"bytes"
	"slices"
	"sync"
	"testing"
)

// Of answers that have come together each costs one call: the header of the next one comes with
// the data.
func TestNBDHeadersComeWithData(t *testing.T) {
	const reads, size = 8, 512
	for _, structured := range []bool{false, true} {
		var held []byte // of the one connection's goroutine
		n := 0
		s := serveNBD(t, 1<<20, func(s *nbdServer) {
			s.structured = structured
			s.answer = func(c *nbdServed, q nbdQuery) bool {
				data := bytes.Repeat([]byte{byte(q.off / size)}, int(q.n))
				if structured {
					held = append(held, chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), data)...)
				} else {
					held = slices.Concat(held, simpleReply(q.cookie, 0), data)
				}
				if n++; n == reads {
					_, _ = c.Write(held)
				}
				return true
			}
		})
		b := openNBD(t, s, NBDOptions{})
		var wait sync.WaitGroup
		for i := range int64(reads) {
			wait.Go(func() {
				got := make([]byte, size)
				if err := read(b, i*size, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, size)) {
					t.Errorf("read %d: %v, or other data", i, err)
				}
			})
		}
		wait.Wait()
		first := uint64(1) // the first header comes alone
		if structured {
			first = 3 // in three parts
		}
		if calls := b.conns[0].received.Load(); calls > first+reads {
			t.Errorf("structured %v: %d calls for %d answers", structured, calls, reads)
		}
	}
}
