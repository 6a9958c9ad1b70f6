package bench

import (
	"errors"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Case is one measurement: an operation, and the limit that it is held against.
type Case struct {
	// Name is like a path, and stays as it is, for results are compared by it:
	// "nvme/mem/read/size=4096/depth=32". Its first element is the layer; elements of the
	// form key=number are the axes of charts.
	Name string
	// Quick has it measured with --quick as well.
	Quick bool
	// Full has it measured with --full only. Not together with Quick.
	Full bool
	// Bytes is what one operation moves. 0: none.
	Bytes int
	// Limit names the Limit that it stands beside. "": none.
	Limit string
	// Setup makes ready what is measured. It is called anew for each round, on the thread
	// that measures.
	Setup func(*Env) (Subject, error)
}

// Limit is what a machine can do at best: "memcpy/size=4096", "eventfd-write",
// "socket-echo/size=64", "pread/size=4096/depth=1". One operation of it is the work that
// one operation of its cases cannot do without.
type Limit struct {
	Name  string
	Bytes int                         // that one operation moves; 0: none
	Setup func(*Env) (Subject, error) // of a Subject that has Run
}

// Subject is what is measured. Exactly one of Run and Gauge is set. What it holds is given
// back by Env.Cleanup.
type Subject struct {
	// Run does n operations back to back and returns when they are done. It is timed,
	// and in a pass of its own its allocations and system calls are counted.
	Run func(n int) error
	// UnderWay is how many operations are under way at a time. A measurement is of many times as
	// many, for the first and the last ones find less company. 0: one.
	UnderWay int
	// Latency, which may be nil, does n operations and records how long each took, in
	// nanoseconds. Where one operation can hold up the next it goes by a schedule that does
	// not wait for either (openLoop), or the wait that it spares itself is left out.
	Latency func(n int, h *hdrhistogram.Histogram) error
	// Gauge is a value that is no operation's, such as memory or idle CPU. The less the better.
	Gauge func() (value float64, unit string, err error)
}

// ErrUnavailable is wrapped by the error of a Setup that needs something this machine lacks,
// such as a C compiler: the case is then left out, and is no failure.
var ErrUnavailable = errors.New("bench: not available here")
