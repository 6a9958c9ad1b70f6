package link

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"vfiouser/link/vnet"
)

const (
	// tapeDelay is how long a record may wait for others before it is written.
	tapeDelay = 100 * time.Millisecond
	// tapePatience is how long the last records may take; a pipe can be full and nobody read it.
	tapePatience = time.Second
)

// tape appends to a file in the background. Two buffers of the same size: one is filled
// while the other one is written.
type tape struct {
	file *os.File
	log  *slog.Logger

	mu     sync.Mutex
	room   *sync.Cond // the buffers were exchanged
	filled []byte
	spare  []byte // the writer's
	closed bool
	failed bool // nothing is written any more

	some, much chan struct{} // there is something; it is half a buffer
	quit, done chan struct{}
	err        error // the writer's, until done
}

func (t *tape) start(file *os.File, size int, log *slog.Logger) {
	t.file, t.log = file, log
	t.room = sync.NewCond(&t.mu)
	t.filled, t.spare = make([]byte, 0, size), make([]byte, 0, size)
	t.some, t.much = make(chan struct{}, 1), make(chan struct{}, 1)
	t.quit, t.done = make(chan struct{}), make(chan struct{})
	go t.run()
}

// record appends the frames for which there is room, and returns how many these are. It never
// waits for the file.
func (t *tape) record(iface int, now time.Time, d direction, frames []vnet.Frame, snap int) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock() // also if a guest's memory faults: the frame is not there then
	if t.closed || t.failed {
		return 0
	}
	for n < len(frames) {
		f := &frames[n]
		if cap(t.filled)-len(t.filled) < min(f.Len, snap)+frameOverhead {
			break
		}
		t.filled = appendFrame(t.filled, iface, now, d, f, snap)
		n++
	}
	t.tell()
	return n
}

// write appends a block, and waits until there is room for it, for as long as the file takes.
// It returns false if the tape is closed.
func (t *tape) write(block []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.closed && !t.failed && cap(t.filled)-len(t.filled) < len(block) {
		t.tell()
		t.room.Wait()
	}
	if t.closed {
		return false
	}
	if !t.failed {
		t.filled = append(t.filled, block...)
		t.tell()
	}
	return true
}

// tell has the writer write, now or soon. The lock is held.
func (t *tape) tell() {
	wake := t.some
	if len(t.filled) > cap(t.filled)/2 {
		wake = t.much
	} else if len(t.filled) == 0 {
		return
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

// run is the writer.
func (t *tape) run() {
	defer close(t.done)
	delay := time.NewTimer(tapeDelay)
	defer delay.Stop()
	for last := false; !last; {
		select {
		case <-t.some:
			delay.Reset(tapeDelay)
			select {
			case <-delay.C:
			case <-t.much:
			case <-t.quit:
			}
		case <-t.much:
		case <-t.quit:
			last = true
		}
		t.flush()
	}
}

// flush writes what is there.
func (t *tape) flush() {
	t.mu.Lock()
	t.filled, t.spare = t.spare[:0], t.filled
	failed := t.failed
	t.room.Broadcast()
	t.mu.Unlock()
	if failed || len(t.spare) == 0 {
		return
	}
	if n, err := t.file.Write(t.spare); err != nil {
		t.err = err
		t.cut(n)
		t.log.Error("the record ends here", "err", err)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.failed = true
		t.room.Broadcast()
	}
}

// cut takes back the block that only a part was written of: n bytes of the writer's buffer are
// in the file. What is in a pipe stays.
func (t *tape) cut(n int) {
	whole := 0
	for whole < n {
		next := whole + int(binary.LittleEndian.Uint32(t.spare[whole+4:]))
		if next > n {
			break
		}
		whole = next
	}
	if end, err := t.file.Seek(0, io.SeekCurrent); err == nil {
		_ = t.file.Truncate(end - int64(n-whole)) // else the file ends in the middle of a block
	}
}

// hurry bounds the time that the file may still take, if it is a pipe.
func (t *tape) hurry() { _ = t.file.SetWriteDeadline(time.Now().Add(tapePatience)) }

// stop writes the rest and closes the file.
func (t *tape) stop() error {
	t.mu.Lock()
	t.closed = true
	t.room.Broadcast()
	t.mu.Unlock()
	close(t.quit)
	<-t.done
	return errors.Join(t.err, t.file.Close())
}
