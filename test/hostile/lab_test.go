package hostile

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

const (
	// patience is how long anything may take that must happen.
	patience = 20 * time.Second
	// impatience is what the engine's time-outs are set to where they are the subject:
	// an attacker is to run into them, and a client that behaves is not, even on a
	// machine that is busy.
	impatience = 400 * time.Millisecond
	// longestPause is what the healthy device may take for one operation at worst, on a
	// machine that has nothing else to do.
	longestPause = 2 * time.Second

	diskSize  = 16 << 20
	blockSize = 512
	pageSize  = 4096

	// The victim's namespaces.
	memNS  = 1
	fileNS = 2
)

// lab is an engine with one worker, and its two devices.
type lab struct {
	engine  *engine.Engine
	healthy *healthy
	victim  *engine.Endpoint
	mode    nvme.DoorbellMode
	gate    *gate // before the file of fileNS
	// serves checks that the victim serves a client that behaves.
	serves func(t *testing.T)
}

// newLab starts everything; the victim's doorbells are in the mode given. No attack of a
// lab runs into a time-out, so that an attacker is served however slow he is.
func newLab(t *testing.T, mode nvme.DoorbellMode) *lab {
	t.Helper()
	return newImpatientLab(t, mode, 2*patience)
}

// newImpatientLab is newLab with the time-out given.
func newImpatientLab(t *testing.T, mode nvme.DoorbellMode, timeout time.Duration) *lab {
	t.Helper()
	return newFormattedLab(t, mode, timeout, nvme.Namespace{}, nvme.Namespace{})
}

// newFormattedLab is newImpatientLab with the formats of the victim's namespaces given.
func newFormattedLab(t *testing.T, mode nvme.DoorbellMode, timeout time.Duration, mem, onFile nvme.Namespace) *lab {
	t.Helper()
	l := &lab{engine: newEngine(t, timeout), mode: mode}
	l.serves = l.stores
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, diskSize), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := block.File(path, block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.gate = &gate{Backend: file}
	mem.Backend, onFile.Backend = memory(t), l.gate
	l.victim = l.serve(t, nvme.Config{Doorbells: mode, Namespaces: []nvme.Namespace{mem, onFile}})
	other := l.serve(t, nvme.Config{Doorbells: nvme.Trap, Namespaces: []nvme.Namespace{{Backend: memory(t), BlockSize: blockSize}}})
	l.healthy = newHealthy(t, other.Path())
	return l
}

// newEngine has one worker for all devices.
func newEngine(t *testing.T, timeout time.Duration) *engine.Engine {
	t.Helper()
	e, err := engine.New(engine.Config{
		Logger:           slog.New(strict{t}),
		Workers:          1,
		NegotiateTimeout: timeout,
		WriteTimeout:     timeout,
		DMATimeout:       timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func memory(t *testing.T) block.Backend {
	t.Helper()
	b, err := block.Memory(diskSize)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serve starts a controller.
func (l *lab) serve(t *testing.T, cfg nvme.Config) *engine.Endpoint {
	t.Helper()
	c, err := nvme.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l.start(t, c)
}

// start starts a device on a socket of its own.
func (l *lab) start(t *testing.T, c interface {
	engine.Device
	Close() error
}) *engine.Endpoint {
	t.Helper()
	ep, err := l.engine.Register(filepath.Join(t.TempDir(), "socket"), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ep.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return ep
}

var allModes = []nvme.DoorbellMode{nvme.Trap, nvme.Shadow, nvme.Mmap}

// forModes runs a test on a lab for each doorbell mode.
func forModes(t *testing.T, modes []nvme.DoorbellMode, run func(t *testing.T, l *lab)) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) { run(t, newLab(t, mode)) })
	}
}

// attack is one attack on the victim.
type attack struct {
	*testing.T
	lab *lab
	end []func() // undoes what the attacker holds, last first
}

// attack runs one attack and checks what it did to the others and left behind.
func (l *lab) attack(t *testing.T, name string, run func(a *attack)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Helper()
		before := takeCensus(t)
		mark := l.healthy.mark()
		a := &attack{T: t, lab: l}
		defer a.over()
		run(a)
		l.healthy.goesOn(t, mark) // while the attacker still holds what he has
		a.over()
		l.serves(t)
		l.healthy.unharmed(t, mark)
		before.wait(t)
	})
}

// atEnd has f called when the attack is over.
func (a *attack) atEnd(f func()) { a.end = append(a.end, f) }

func (a *attack) over() {
	for len(a.end) > 0 {
		f := a.end[len(a.end)-1]
		a.end = a.end[:len(a.end)-1]
		f()
	}
}

// strict is a log handler that takes an error in the engine's log for a failure: a
// contained panic is a defect, too.
type strict struct{ t *testing.T }

func (h strict) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

func (h strict) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(at slog.Attr) bool { text += "\n" + at.String(); return true })
	h.t.Errorf("the engine logs: %s", text)
	return nil
}

func (h strict) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h strict) WithGroup(string) slog.Handler      { return h }
