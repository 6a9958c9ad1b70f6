package link

import (
	"cmp"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// RecordOptions are for Record. The zero value gives the defaults.
type RecordOptions struct {
	Name   string       // of the interfaces in the file, 255 bytes of it at most; default: "card"
	Snap   int          // bytes of each frame that are recorded; default: all
	Buffer int          // bytes that may wait for the file, twice; default: 4 MiB
	Logger *slog.Logger // is told what is missing in the file. Default: slog.Default().
}

// Recorder is a link that records what goes through another one.
type Recorder struct {
	inner Link
	opt   RecordOptions
	log   *slog.Logger
	tape  tape

	mu    sync.Mutex
	ports []*recordedPort // all that there were, by number of their interface
	close func() error
}

// RecorderStats counts what a recorder has seen.
type RecorderStats struct {
	Frames uint64 // that went by
	Lost   uint64 // of them, those that are missing in the file
}

// Record wraps a link, which then belongs to the recorder, and writes all frames that its
// cards send and receive to a file in the form pcapng, with time stamps in nanoseconds, the
// direction (outbound: sent by the card), and an interface for each card. Wireshark and
// tcpdump read it. A file that is there already is overwritten; a named pipe will do.
//
// Frames are recorded when the card offers them, and when it has taken them, as they are: with
// offloads, checksums are not filled in and TCP frames may have 64 KiB, which a comment at the
// frame says. Frames of one call have one time stamp. Guest memory may change between the record and the receiver's
// copy of it.
//
// The data path never waits for the file. What does not fit into the buffer is missing in the
// file and counted: in Stats, in the file's interface statistics, and in the log at the end.
//
// Errors are *OpenError, with ErrBusy for a file to which another recorder writes. The link
// stays the caller's then.
func Record(l Link, path string, opt RecordOptions) (*Recorder, error) {
	if opt.Snap < 0 || opt.Buffer < 0 {
		return nil, &OpenError{Spec: "pcap:" + path, Err: because(ErrSpec, "a negative number of bytes")}
	}
	file, err := create(path)
	if err != nil {
		return nil, &OpenError{Spec: "pcap:" + path, Err: err}
	}
	opt.Name = nameInFile(cmp.Or(opt.Name, "card"))
	opt.Snap = min(cmp.Or(opt.Snap, vnet.MaxFrame), vnet.MaxFrame)
	r := &Recorder{inner: l, opt: opt, log: cmp.Or(opt.Logger, slog.Default()).With("pcap", path)}
	r.close = sync.OnceValue(r.end)
	r.tape.start(file, max(cmp.Or(opt.Buffer, 4<<20), opt.Snap+frameOverhead, maxInterface), r.log)
	r.tape.write(appendSection(nil))
	return r, nil
}

// maxName bounds the name of an interface, in bytes, which may be the text of a whole link.
const maxName = 255

// nameInFile is a name as the file can have it: text, and not too long.
func nameInFile(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxName)], "?")
}

// create opens the file for one recorder alone.
func create(path string) (*os.File, error) {
	if path == "" {
		return nil, because(ErrSpec, "no file")
	}
	// Not yet truncated: it may be somebody else's. For a pipe O_RDWR does not wait for a reader.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err == nil {
		if e := conn.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); e != nil {
			err = e
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = because(ErrBusy, "another link is recorded there")
	}
	if err == nil {
		if info, e := f.Stat(); e == nil && info.Mode().IsRegular() {
			err = f.Truncate(0)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Attach connects a card to the recorded link. It waits for the file if the buffer is full.
func (r *Recorder) Attach(c Card) (Port, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &recordedPort{rec: r, iface: len(r.ports)}
	p.card = recordedCard{Card: c, port: p}
	name := r.opt.Name
	if p.iface > 0 {
		name += "-" + strconv.Itoa(p.iface)
	}
	// It has to be in the file before the first frame, which can come at once.
	if !r.tape.write(appendInterface(nil, name, r.opt.Snap)) {
		return nil, ErrClosed
	}
	r.ports = append(r.ports, p)
	inner, err := r.inner.Attach(&p.card)
	if err != nil {
		return nil, err
	}
	p.Port = inner
	return p, nil
}

// Close closes the recorded link and the file.
func (r *Recorder) Close() error { return r.close() }

func (r *Recorder) end() error {
	err := r.inner.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.tape.hurry()
	for _, p := range r.ports {
		r.tape.write(appendCounters(nil, p.iface, now, p.frames.Load(), p.lost.Load()))
	}
	if st := r.stats(); st.Lost > 0 {
		r.log.Warn("frames are missing in the record", "lost", st.Lost, "frames", st.Frames)
	}
	return errors.Join(err, r.tape.stop())
}

// Stats counts. Any goroutine.
func (r *Recorder) Stats() RecorderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats()
}

func (r *Recorder) stats() (st RecorderStats) {
	for _, p := range r.ports {
		st.Frames += p.frames.Load()
		st.Lost += p.lost.Load()
	}
	return st
}

// recordedPort is a card's place on a recorded link.
type recordedPort struct {
	Port
	rec          *Recorder
	iface        int
	card         recordedCard
	frames, lost atomic.Uint64
	refused      [MaxPairs]atomic.Int32 // frames by queue that are in the file and were not taken yet
}

// recordedCard is what the recorded link knows as a card.
type recordedCard struct {
	Card
	port *recordedPort
}

// Send records before it sends, so that an answer comes behind its question. What was refused
// is in the file already when it is offered again.
func (p *recordedPort) Send(q int, frames []vnet.Frame) int {
	refused := int(p.refused[q].Load())
	p.record(time.Now(), outbound, frames[min(refused, len(frames)):])
	n := p.Port.Send(q, frames)
	if left := max(refused, len(frames)) - n; left != refused {
		p.refused[q].Store(int32(left))
	}
	return n
}

// SetOffloads without a driver means that what was refused is not offered again.
func (p *recordedPort) SetOffloads(o vnet.Offloads, pairs int) {
	if pairs == 0 {
		for q := range p.refused {
			p.refused[q].Store(0)
		}
	}
	p.Port.SetOffloads(o, pairs)
}

func (c *recordedCard) Receive(q int, frames []vnet.Frame) int {
	now := time.Now()
	n := c.Card.Receive(q, frames)
	c.port.record(now, inbound, frames[:n])
	return n
}

func (p *recordedPort) record(now time.Time, d direction, frames []vnet.Frame) {
	if len(frames) == 0 {
		return
	}
	p.frames.Add(uint64(len(frames)))
	if n := p.rec.tape.record(p.iface, now, d, frames, p.rec.opt.Snap); n < len(frames) {
		p.lost.Add(uint64(len(frames) - n))
	}
}

// Stats is that of the recorded link's port; zero if that does not count.
func (p *recordedPort) Stats() Stats {
	if c, ok := p.Port.(Counter); ok {
		return c.Stats()
	}
	return Stats{}
}

// readRecorder reads FILE[,snap=BYTES],LINK.
func readRecorder(arg string) (opener, error) {
	const usage = "write pcap:FILE,LINK or pcap:FILE,snap=BYTES,LINK, for example pcap:lan.pcapng,switch:lan"
	path, rest, found := strings.Cut(arg, ",")
	if !found {
		return nil, because(ErrSpec, "nothing to record; %s", usage)
	}
	if path == "" {
		return nil, because(ErrSpec, "no file; %s", usage)
	}
	opt := RecordOptions{Name: rest}
	if snap, ok := strings.CutPrefix(rest, "snap="); ok {
		snap, opt.Name, _ = strings.Cut(snap, ",")
		n, err := strconv.Atoi(snap)
		if err != nil || n <= 0 {
			return nil, because(ErrSpec, "bad number of bytes %q; %s", snap, usage)
		}
		opt.Snap = n
	}
	open, err := read(opt.Name)
	if err != nil {
		return nil, err
	}
	return func(s *Set) (Link, error) {
		inner, err := open(s)
		if err != nil {
			return nil, err
		}
		opt.Logger = s.Logger
		r, err := Record(inner, path, opt)
		if err != nil {
			return nil, errors.Join(err, inner.Close())
		}
		return r, nil
	}, nil
}
