package fuzz

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/fuzz/choice"
	"vfiouser/pci"
	"vfiouser/test/holdings"
)

// recorder takes a test's failures.
type recorder struct{ failures []string }

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// verdict runs one input and returns what failed.
func (r *rig) verdict(input []byte) string {
	rec, done := &recorder{}, make(chan struct{})
	go func() {
		defer close(done)
		r.run(rec, choice.FromBytes(input))
	}()
	<-done
	return strings.Join(rec.failures, "\n")
}

// sick is a device whose register does as it is told.
type sick struct {
	engine.BaseDevice
	s    *engine.Session
	held int
	does map[uint8]func(d *sick)
}

func (d *sick) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	desc := engine.Description{Config: config}
	desc.Regions[0] = engine.Region{Size: 4096, Write: func(off uint64, p []byte) error {
		if does := d.does[p[0]]; does != nil && off == 0 {
			does(d)
		}
		return nil
	}}
	return desc, err
}

func (d *sick) NewDevice(s *engine.Session) error { d.s = s; return nil }

var errOwn = errors.New("a rule of the device's own")

// Everything that Device looks for is found, by an input that is known to show it.
func TestDeviceFinds(t *testing.T) {
	const base, size = 0x10_0000, 4096
	provoke := []Step{Map(0, 0, base, size), Write(0, 0, 1, 1), Settle()}
	end := make(chan struct{})
	for _, c := range []struct {
		name   string
		does   func(d *sick)
		finds  string // "": nothing
		option Option
		hangs  bool
	}{
		{name: "nothing", does: func(*sick) {}},
		{name: "panic", does: func(*sick) { panic("ouch") }, finds: "ouch"},
		{name: "nil", does: func(*sick) { var p *sick; p.held++ }, finds: "nil pointer"},
		{name: "goroutine", does: func(*sick) { go func() { <-end }() }, finds: "goroutines", hangs: true},
		{name: "descriptor", does: func(d *sick) { d.held, _ = unix.Eventfd(0, 0) }, finds: "descriptors"},
		{name: "session", does: func(d *sick) { d.s.Fail(errOwn) }, finds: errOwn.Error()},
		{name: "session that may end", does: func(d *sick) { d.s.Fail(errOwn) },
			option: MayEnd(func(err error) bool { return errors.Is(err, errOwn) })},
		{name: "memory by message", does: func(d *sick) { d.s.StartReadDMA(base, make([]byte, 8), func(error) {}) }},
		{name: "hang", does: func(*sick) { <-end }, finds: "goroutines:", hangs: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			var last *sick
			cfg := config{hangAfter: defaultHang}
			if c.option != nil {
				c.option(&cfg)
			}
			r := newRig(t, cfg, func() (engine.Device, error) {
				last = &sick{does: map[uint8]func(*sick){1: c.does}}
				return last, nil
			})
			if got := r.verdict(nil); got != "" {
				t.Fatalf("the first input fails: %s", got)
			}
			if c.hangs || c.name == "descriptor" { // something is waited for in vain
				r.hangAfter = 300 * time.Millisecond
			}
			got := r.verdict(Input(provoke...))
			r.hangAfter = defaultHang
			if (got == "") != (c.finds == "") || !strings.Contains(got, c.finds) {
				t.Errorf("the verdict is %q, want one with %q", got, c.finds)
			}
			if last.held > 0 {
				_ = unix.Close(last.held)
			}
			if c.hangs {
				end <- struct{}{}
			}
			if r.broken { // it is not any more
				r.broken = false
				return
			}
			if got := r.verdict(nil); got != "" {
				t.Errorf("the next input fails: %s", got)
			}
		})
	}
}

func TestWeightsFitIntoAByte(t *testing.T) {
	weight := 0
	for _, o := range operations {
		weight += o.weight
	}
	if weight > 256 {
		t.Errorf("the weights of the operations are %d in all", weight)
	}
}

// Each Step is exactly one message, the one that it says.
func TestStepsSayWhatIsSent(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newRig(t, config{hangAfter: defaultHang}, func() (engine.Device, error) { return &sick{}, nil })
	for _, c := range []struct {
		step Step
		want string
	}{
		{Map(1, 0x2000, 0x10_0000, 0x3000), "DMA_MAP #2 0x100000+0x3000 READ|WRITE offset 0x2000 with 1 descriptors"},
		{MapByMessage(1, 0x2000, 0x10_0000, 0x3000), "DMA_MAP #2 0x100000+0x3000 READ|WRITE offset 0x2000"},
		{Unmap(0x10_0000, 0x3000), "DMA_UNMAP #2 0x100000+0x3000"},
		{Write(0, 0x14, 4, 0x460001), "REGION_WRITE #2 BAR0+0x14 4 bytes 01 00 46 00"},
		{Post(0, 0x1008, 8, 5), "REGION_WRITE #2 no reply BAR0+0x1008 8 bytes 05 00 00 00 00 00 00 00"},
		{Read(7, 0, 64), "REGION_READ #2 CONFIG+0x0 64 bytes"},
		{Eventfds(codec.IRQMSIX, 1, 3), "SET_IRQS #2 MSI-X vectors 1-3 EVENTFD|TRIGGER with 3 descriptors"},
		{IOEventfds(0), "GET_REGION_IO_FDS #2 BAR0 argsz 1024"},
		{Signal(0), "the next client comes"},
		{writeSeveral(place{0, 4}, 1, place{7, 8}, 2), "REGION_WRITE_MULTI #2 2 writes BAR0+0x4 4 bytes 01 00 00 00, CONFIG+0x8 4 bytes 02 00 00 00"},
		{Reset(), "RESET #2"},
		{Migrate(codec.MigStopCopy), "DEVICE_FEATURE #2 SET MIG_DEVICE_STATE STOP_COPY argsz 16"},
		{ReadState(), "MIG_DATA_READ #2 65536 bytes argsz 65544"},
		{WriteState(), "MIG_DATA_WRITE #2 0 bytes"},
		{Await(0, 8, 0, 0), "REGION_READ #2 BAR0+0x8 4 bytes"},
		{Store(0x10_0000, []byte("x")), "the next client comes"},
		{AwaitMemory(0x10_0000, 1, 1), "the next client comes"},
		{Settle(), "the next client comes"},
	} {
		if r.present == nil {
			r.attempt(t, &life{t: t, r: r, s: choice.FromBytes(nil)}, (*life).explore)
		}
		l := &life{t: t, r: r, s: choice.FromBytes(Input(c.step))}
		r.attempt(t, l, (*life).live)
		if l.s.More() {
			t.Errorf("%s: it is not read to its end", c.want)
		}
		if got := l.trace.events[1].String(); got != c.want {
			t.Errorf("it is %q, want %q", got, c.want)
		}
	}
}

// What is stored is where the device finds it, and so is what the device stores.
func TestMemoryIsShared(t *testing.T) {
	holdings.CheckLeaks(t)
	const base = 0x10_0000
	for _, m := range []struct {
		name string
		step Step
	}{{"mapped", Map(0, 0x1000, base, 0x1000)}, {"by message", MapByMessage(0, 0x1000, base, 0x1000)}} {
		var read [5]byte
		done := make(chan struct{}, 1)
		echo := func(d *sick) {
			d.s.StartReadDMA(base+8, read[:], func(error) {
				d.s.StartWriteDMA(base+64, []byte{1, 2, 3, 4}, func(error) { done <- struct{}{} })
			})
		}
		r := newRig(t, config{hangAfter: defaultHang}, func() (engine.Device, error) {
			return &sick{does: map[uint8]func(*sick){1: echo}}, nil
		})
		l := &life{t: t, r: r}
		r.attempt(t, l, (*life).explore)
		l = &life{t: t, r: r, s: choice.FromBytes(Input(m.step, Store(base+8, []byte("hello")), Write(0, 0, 1, 1),
			AwaitMemory(base+64, ^uint32(0), 0x04030201)))}
		r.attempt(t, l, (*life).live)
		<-done
		if string(read[:]) != "hello" || l.awaited >= maxAwait {
			t.Errorf("%s: the device reads %q, the client has waited for %v", m.name, read, l.awaited)
		}
	}
}

// A program of a seed is as long as asked for, however often its clients come and go.
func TestSeededProgramsAreNotCutShort(t *testing.T) {
	r := newRig(t, config{hangAfter: defaultHang}, func() (engine.Device, error) { return new(sick), nil })
	s := choice.FromSeed(1, 3*maxSteps)
	rec := &recorder{}
	r.run(rec, s)
	if s.More() {
		t.Error("operations are left")
	}
	if len(rec.failures) > 0 {
		t.Error(rec.failures)
	}
}
