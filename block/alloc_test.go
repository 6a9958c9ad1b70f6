package block

import "testing"

func TestNothingIsAllocated(t *testing.T) {
	const size = 64 << 20
	mem := newMemory(t, size)
	n, err := Null(size)
	null := closing(t, n, err)
	file, _ := newFile(t, size)
	resident, _ := newFile(t, size)
	resident.resident = true
	pooled, _ := newFileWith(t, size, FileOptions{Engine: EngineThreads})
	pooled.detour()
	ring, _ := newFileWith(t, size, FileOptions{Engine: EngineURing})
	ring.detour()
	bufs := [][]byte{make([]byte, 512), make([]byte, 3072), make([]byte, 512)}
	for _, b := range []struct {
		name string
		Backend
	}{{"mem", mem}, {"null", null}, {"file", file}, {"file in memory", resident}, {"file by goroutines", pooled}, {"file by io_uring", ring}} {
		for _, r := range []Request{
			{Op: Read, Offset: 4096, Length: 4096, Buffers: bufs},
			{Op: Write, Offset: 4096, Length: 4096, Buffers: bufs},
			{Op: Write, Offset: 4096, Length: 4096, Buffers: bufs, FUA: true},
			{Op: Flush},
			{Op: WriteZeroes, Offset: 512, Length: 4096},
			{Op: Discard, Offset: 512, Length: 4 << 20},
			{Op: Discard, Length: size},
		} {
			c := make(result, 1)
			r.Completer = c
			submit := func() {
				done, err := b.Submit(&r)
				if !done {
					err = <-c
				}
				if err != nil {
					t.Error(err)
				}
			}
			if n := testing.AllocsPerRun(50, submit); n != 0 {
				t.Errorf("%s: %v of %d bytes allocates %v times", b.name, r.Op, r.Length, n)
			}
		}
	}
}
