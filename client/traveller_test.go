package client_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
)

// traveller is a card that can be migrated. Its state is its registers and what lies behind them, of which a write to a
// register marks a part as changed.
type traveller struct {
	card
	mu      sync.Mutex
	bulk    []byte
	changed map[int]bool // pieces of bulk that PRE_COPY has to send; nil: nobody keeps track
	fail    map[string]error
	held    bool
	onRound func(round int)
	onGo    func(done func()) // replaces the answer when the data path may go on
}

const (
	piece     = 64 << 10
	bulkSize  = 16 * piece
	cardTouch = 0x20 // a register: a write of n changes piece n of the bulk
)

var errCard = fmt.Errorf("card: %w", unix.ENOTRECOVERABLE)

func newTraveller() *traveller {
	return &traveller{bulk: make([]byte, bulkSize), fail: map[string]error{}}
}

func (c *traveller) note(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail[call]
}

// plan changes what the device is to do.
func (c *traveller) plan(f func(c *traveller)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

func (c *traveller) Describe() (engine.Description, error) {
	desc, err := c.card.Describe()
	desc.Regions[engine.RegionBAR0].Write = func(off uint64, p []byte) error {
		if off == cardTouch && len(p) == 4 {
			c.touch(int(binary.LittleEndian.Uint32(p)))
		}
		return c.card.write(off, p)
	}
	return desc, err
}

func (c *traveller) touch(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bulk[n*piece]++
	if c.changed != nil {
		c.changed[n] = true
	}
}

func (c *traveller) ResetDevice(*engine.Session) {
	_ = c.note("reset")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registers, c.changed = [4096]byte{}, nil
	clear(c.bulk)
}

func (c *traveller) LockDataPath(_ *engine.Session, hold bool, done func()) {
	c.mu.Lock()
	c.held = hold
	onGo := c.onGo
	c.mu.Unlock()
	if !hold && onGo != nil {
		onGo(done)
		return
	}
	done()
}

func (c *traveller) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.held
}

func (c *traveller) PreCopy(_ *engine.Session, round int, w io.Writer) error {
	if err := c.note("round"); err != nil {
		return err
	}
	c.mu.Lock()
	onRound := c.onRound
	c.mu.Unlock()
	if onRound != nil {
		onRound(round)
	}
	c.mu.Lock()
	if round == 0 {
		c.changed = map[int]bool{}
		for n := range bulkSize / piece {
			c.changed[n] = true
		}
	}
	c.mu.Unlock()
	return c.sendChanged(w)
}

func (c *traveller) sendChanged(w io.Writer) error {
	for n := range uint32(bulkSize / piece) {
		c.mu.Lock()
		send := c.changed == nil || c.changed[int(n)]
		delete(c.changed, int(n))
		data := bytes.Clone(c.bulk[int(n)*piece:][:piece])
		c.mu.Unlock()
		if !send {
			continue
		}
		if _, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, n), data...)); err != nil {
			return err
		}
	}
	return nil
}

func (c *traveller) EndPreCopy(*engine.Session) {
	_ = c.note("end")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = nil
}

func (c *traveller) SaveState(_ *engine.Session, w io.Writer) error {
	if c.running() {
		return errors.New("saved while it runs")
	}
	if err := c.note("save"); err != nil {
		return err
	}
	if err := c.sendChanged(w); err != nil {
		return err
	}
	_, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, ^uint32(0)), c.registers[:]...))
	return err
}

func (c *traveller) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	if c.running() {
		return errors.New("loaded while it runs")
	}
	if err := c.note("load"); err != nil {
		return err
	}
	for {
		var n [4]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return err
		}
		k := binary.LittleEndian.Uint32(n[:])
		if k == ^uint32(0) {
			_, err := io.ReadFull(r, c.registers[:])
			return errors.Join(err, c.note("loaded"))
		}
		if k >= bulkSize/piece {
			return errCard
		}
		if _, err := io.ReadFull(r, c.bulk[k*piece:][:piece]); err != nil {
			return err
		}
	}
}
