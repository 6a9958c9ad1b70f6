package block

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const benchSize = 64 << 20

// benchRequests are requests of one size at random places of a backend.
func benchRequests(op Op, length int64, n int) []Request {
	rng := rand.New(rand.NewPCG(1, uint64(length)))
	rs := make([]Request, n)
	for i := range rs {
		rs[i] = Request{Op: op, Offset: rng.Int64N(benchSize/length) * length, Length: length, Buffers: [][]byte{make([]byte, length)}}
	}
	return rs
}

func fill(b *testing.B, be Backend) {
	ones := make([]byte, 1<<20)
	for i := range ones {
		ones[i] = 1
	}
	for off := int64(0); off < be.Size(); off += int64(len(ones)) {
		must(b, write(be, off, ones))
	}
}

func benchSync(b *testing.B, be Backend) {
	for _, op := range []Op{Read, Write} {
		for _, length := range []int64{4 << 10, 128 << 10} {
			b.Run(fmt.Sprintf("%v/%dk", op, length>>10), func(b *testing.B) {
				rs := benchRequests(op, length, 64)
				b.SetBytes(length)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if done, err := be.Submit(&rs[i%len(rs)]); !done || err != nil {
						b.Fatal(done, err)
					}
				}
			})
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	be, err := Memory(benchSize)
	closing(b, be, err)
	fill(b, be)
	benchSync(b, be)
}

// BenchmarkMemoryZero shows where releasing memory begins to cost less than
// clearing it. The memory is populated each time.
func BenchmarkMemoryZero(b *testing.B) {
	be, err := Memory(benchSize)
	m := closing(b, be, err).(*memory)
	for _, length := range []int64{4 << 10, 1 << 20, 2 << 20, 16 << 20} {
		for _, way := range []struct {
			name string
			do   func(part []byte)
		}{
			{"as-built", func([]byte) { m.zero(0, length) }},
			{"clear", func(part []byte) { clear(part) }},
			{"release", func(part []byte) { must(b, unix.Madvise(part, unix.MADV_DONTNEED)) }},
		} {
			b.Run(fmt.Sprintf("%dk/%s", length>>10, way.name), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					must(b, unix.Madvise(m.data[:max(length, hugePage)], unix.MADV_DONTNEED))
					for i := int64(0); i < length; i += 512 {
						m.data[i] = 1
					}
					b.StartTimer()
					way.do(m.data[:length])
				}
			})
		}
	}
}

func BenchmarkNull(b *testing.B) {
	be, err := Null(benchSize)
	closing(b, be, err)
	benchSync(b, be)
}

// BenchmarkFile keeps a number of requests in flight, as a worker does that
// polls its queues and never sleeps.
func BenchmarkFile(b *testing.B) {
	const inline, detour, many = 0, 1, 2
	for _, tt := range []struct {
		name string
		op   Op
		how  int // detour: as if nothing could be had without waiting; many: no writer of its own
		opt  FileOptions
	}{
		{"read", Read, inline, FileOptions{}},
		{"read/uring", Read, detour, FileOptions{Engine: EngineURing}},
		{"read/threads", Read, detour, FileOptions{Engine: EngineThreads}},
		{"read/direct/uring", Read, detour, FileOptions{Engine: EngineURing, Direct: true}},
		{"read/direct/threads", Read, detour, FileOptions{Engine: EngineThreads, Direct: true}},
		{"write", Write, detour, FileOptions{}},
		{"write/uring", Write, many, FileOptions{Engine: EngineURing}},
		{"write/threads", Write, many, FileOptions{Engine: EngineThreads}},
		{"write/direct/uring", Write, detour, FileOptions{Engine: EngineURing, Direct: true}},
		{"write/direct/threads", Write, detour, FileOptions{Engine: EngineThreads, Direct: true}},
	} {
		be, _ := newFileWith(b, benchSize, tt.opt)
		fill(b, be)
		must(b, do(be, &Request{Op: Flush}))
		writer := be.writer
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/4k/depth%d", tt.name, depth), func(b *testing.B) {
				be.noInline[tt.op].Store(tt.how != inline)
				if tt.how == many {
					be.writer = be.crew
				}
				rs := benchRequests(tt.op, 4<<10, depth)
				f := flights{idle: make(chan *Request, len(rs))}
				for i := range rs {
					rs[i].Completer = &f
					rs[i].Batch = true
					f.idle <- &rs[i]
				}
				b.ReportAllocs()
				for b.Loop() {
					for len(f.idle) == 0 {
						be.Poll()
					}
					r := <-f.idle
					f.n.Add(1)
					if done, err := be.Submit(r); done {
						f.CompleteBlock(r, err)
					}
				}
				for f.n.Load() != 0 {
					be.Poll()
				}
				be.Rest()
				be.writer = writer
			})
		}
	}
}

// flights counts the requests in flight and collects those that are not.
type flights struct {
	n    atomic.Int64
	idle chan *Request
}

func (f *flights) CompleteBlock(r *Request, err error) {
	if err != nil {
		panic(err)
	}
	f.idle <- r
	f.n.Add(-1)
}
