package fuzz

import (
	"fmt"
	"io"
	"testing"
	"time"

	"vfiouser/engine"
	"vfiouser/fuzz/choice"
)

// Device makes a fuzz target of a device that is built on the engine:
//
//	func FuzzClock(f *testing.F) {
//		fuzz.Device(f, func() (*Clock, error) { return NewClock() })
//	}
//
// Each input is read as the life of a device's clients (see README.md): they negotiate, map
// memory and take it away or cut it short, read and write the device's regions, set
// interrupts, move its state, reset it, answer or refuse what it asks of their memory, send
// nonsense, disconnect and come again. newDevice makes the device that they meet, one for each
// input; if it has a method Close() error, that is called when the last client has left and the
// endpoint is closed.
//
// A test fails if
//   - anything panics, be it on the reactor, in a worker or in a goroutine of the device's
//     that logs the panic to Session.Logger with an attribute "panic";
//   - a command that wants a reply does not get exactly one, in order, well-formed, and
//     fitting the command; or gets one although it is malformed;
//   - a session ends for another reason than what its client did wrong;
//   - the device asks for memory by message that the client has not mapped;
//   - a second device on the same engine, and the worker that both use, do not answer;
//   - the next client does not get a working device;
//   - something is left when all clients are gone and the device is closed: a goroutine, a
//     descriptor, or a mapping of client memory;
//   - something takes longer than HangAfter; then all goroutines are shown.
//
// The engine is made once for each process that fuzzes, the device for each input.
func Device[D engine.Device](f *testing.F, newDevice func() (D, error), options ...Option) {
	f.Helper()
	cfg := config{hangAfter: defaultHang}
	for _, o := range options {
		o(&cfg)
	}
	if cfg.accepts != nil {
		var d D
		if err := cfg.accepts(d); err != nil {
			f.Fatal(err)
		}
	}
	r := newRig(f, cfg, func() (engine.Device, error) { return newDevice() })
	usual(f)
	for _, seed := range cfg.seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) { r.run(t, choice.FromBytes(input)) })
}

// Replay runs programs of Device that are drawn from seeds instead of a fuzzer's inputs: an
// ordinary test, see choice.Programs.
func Replay[D engine.Device](t *testing.T, newDevice func() (D, error), seeds, steps int, options ...Option) {
	t.Helper()
	cfg := config{hangAfter: defaultHang}
	for _, o := range options {
		o(&cfg)
	}
	r := newRig(t, cfg, func() (engine.Device, error) { return newDevice() })
	choice.Programs(t, seeds, steps, func(t *testing.T, s *choice.Source) { r.run(t, s) })
}

const defaultHang = 5 * time.Second

// Option changes what Device does.
type Option func(*config)

type config struct {
	seeds     [][]byte
	registers []place
	check     func(t tester, d engine.Device)
	accepts   func(d engine.Device) error
	ends      []func(cause error) bool
	hangAfter time.Duration
}

// Seed adds an input to start from: what a driver does to get the device going. There are some that
// know nothing of the device: they map memory, write its first registers, and move its state. What
// else it reacts to the fuzzer finds out, which takes long where a protocol of several
// steps leads to it.
func Seed(steps ...Step) Option {
	return func(c *config) { c.seeds = append(c.seeds, Input(steps...)) }
}

// Registers names offsets in a region that clients are to access often. The registers of the
// configuration space are known, and so is the beginning of each region.
func Registers(region int, offsets ...uint64) Option {
	return func(c *config) {
		for _, off := range offsets {
			c.registers = append(c.registers, place{uint32(region), off})
		}
	}
}

// Check has a function called after each input, when the last client has left, the endpoint is
// closed, and the device is not yet. D is that of Device.
func Check[D engine.Device](check func(t *testing.T, device D)) Option {
	return func(c *config) {
		c.check = func(t tester, d engine.Device) { check(t.(*testing.T), d.(D)) }
		c.accepts = func(d engine.Device) error {
			if _, ok := any(d).(D); !ok {
				return fmt.Errorf("fuzz: Check is for %T, the device is a %T", *new(D), d)
			}
			return nil
		}
	}
}

// MayEnd tells for which reasons of its own the device ends a session (Session.Fail): those for
// which the function returns true are no failure. Without it a device may do so only after its
// client has truncated memory.
func MayEnd(reason func(cause error) bool) Option {
	return func(c *config) { c.ends = append(c.ends, reason) }
}

// HangAfter is how long a client waits for anything, at least: what it waits for hangs then. Only
// time counts in which this process could run, so that a busy machine makes nothing hang. The
// default is 5 s; Go ends a fuzzing process after 10.
func HangAfter(d time.Duration) Option { return func(c *config) { c.hangAfter = d } }

// closeDevice closes a device that can be closed.
func closeDevice(d engine.Device) error {
	if c, ok := d.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
