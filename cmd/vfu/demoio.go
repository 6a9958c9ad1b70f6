package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/schollz/progressbar/v3"

	driver "vfiouser/drivers/nvme"
)

// transferSize is what one command of the demo moves, in bytes.
const transferSize = 4096

// pass goes once over all of a namespace with commands of transferSize.
type pass struct {
	name string
	// data fills the buffer of a write, or checks that of a read, for transfer i.
	data func(buf []byte, i uint64) error
	read bool
}

type result struct {
	name     string
	commands uint64
	elapsed  time.Duration
	latency  *hdrhistogram.Histogram // ns
}

// flight is a command under way.
type flight struct {
	transfer uint64
	since    time.Time
}

// run keeps the queue full until everything was transferred once, in an order that
// looks random and is the same each time.
func (p *pass) run(ctx context.Context, q *driver.Queue, ns *driver.Namespace) (result, error) {
	total := uint64(ns.Size()) / transferSize
	r := result{name: p.name, commands: total, latency: hdrhistogram.New(1, int64(time.Minute), 3)}
	bar := progressbar.NewOptions64(ns.Size(),
		progressbar.OptionSetDescription(fmt.Sprintf("%-6s", p.name)), progressbar.OptionShowBytes(true),
		progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(40),
		progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionOnCompletion(func() { fmt.Fprintln(os.Stderr) }))
	order := newOrder(total, p.read)
	under := make([]flight, q.Depth())
	done := make([]driver.Completion, q.Depth())

	submitted, finished := uint64(0), uint64(0)
	begin := time.Now()
	submit := func(tag uint16) error {
		i := order.at(submitted)
		if !p.read {
			if err := p.data(q.Buffer(tag), i); err != nil {
				return err
			}
		}
		submitted++
		under[tag] = flight{i, time.Now()}
		blocks := transferSize / uint32(ns.BlockSize())
		if p.read {
			return q.Read(tag, ns, i*uint64(blocks), blocks)
		}
		return q.Write(tag, ns, i*uint64(blocks), blocks)
	}
	for tag := 0; tag < q.Depth() && submitted < total; tag++ {
		if err := submit(uint16(tag)); err != nil {
			return r, err
		}
	}
	for finished < total {
		if err := q.Ring(); err != nil {
			return r, err
		}
		n, err := q.Poll(done)
		if err != nil {
			return r, err
		}
		for i := range done[:n] {
			c := &done[i]
			if err := c.Err(); err != nil {
				return r, err
			}
			_ = r.latency.RecordValue(int64(time.Since(under[c.Tag].since)))
			if p.read {
				if err := p.data(q.Buffer(c.Tag), under[c.Tag].transfer); err != nil {
					return r, err
				}
			}
			if finished++; submitted < total {
				if err := submit(c.Tag); err != nil {
					return r, err
				}
			}
		}
		_ = bar.Add(n * transferSize)
		if err := ctx.Err(); err != nil {
			return r, context.Cause(ctx)
		}
	}
	r.elapsed = time.Since(begin)
	return r, bar.Finish()
}

// order is a permutation of the numbers below total: i ↦ i·step + start.
type order struct{ total, step, start uint64 }

func newOrder(total uint64, second bool) order {
	seed := uint64(1)
	if second {
		seed = 2
	}
	rng := rand.New(rand.NewPCG(seed, total))
	step := rng.Uint64N(total) | 1
	for gcd(step, total) != 1 {
		step += 2
	}
	return order{total, step % total, rng.Uint64N(total)}
}

func (o order) at(i uint64) uint64 { return (i*o.step + o.start) % o.total }

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// fillBlock writes the pattern of transfer i.
func fillBlock(buf []byte, i uint64) error {
	fillPattern(buf[:transferSize], i)
	return nil
}

// checkBlock compares a buffer with the pattern of transfer i.
func checkBlock(buf []byte, i uint64) error {
	if wrong := wrongPattern(buf[:transferSize], i); wrong >= 0 {
		return fmt.Errorf("wrong data at byte %d of the disk", i*transferSize+uint64(wrong))
	}
	return nil
}

// fillPattern writes a sequence that begins with i and that no other number has.
func fillPattern(p []byte, i uint64) {
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, i)
		i = i*6364136223846793005 + 1442695040888963407
	}
	var rest [8]byte
	binary.LittleEndian.PutUint64(rest[:], i)
	copy(p, rest[:])
}

// wrongPattern is the place of the first 8 bytes of p that are not as fillPattern writes
// them, or -1.
func wrongPattern(p []byte, i uint64) int {
	for at := 0; ; at += 8 {
		if len(p)-at < 8 {
			var rest [8]byte
			binary.LittleEndian.PutUint64(rest[:], i)
			if string(p[at:]) != string(rest[:len(p)-at]) {
				return at
			}
			return -1
		}
		if binary.LittleEndian.Uint64(p[at:]) != i {
			return at
		}
		i = i*6364136223846793005 + 1442695040888963407
	}
}
