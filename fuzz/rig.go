package fuzz

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/internal/stacks"
)

// rig is an engine with a neighbour, and what is known of the device that is tried on it.
type rig struct {
	config
	newDevice func() (engine.Device, error)
	engine    *engine.Engine
	journal   *journal
	neighbour *neighbour
	broken    bool // something hangs: the engine cannot be used any more
	held      *held

	shape     shape
	present   []codec.RegionInfo // the regions that the device has
	registers []place
}

// engineTimeout is longer than anything hangs here: that a client is dropped for its silence is
// not what is looked for.
const engineTimeout = 10 * time.Minute

// tester is what is used of a testing.T. Fatal and Fatalf do not return.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newRig(t testing.TB, cfg config, newDevice func() (engine.Device, error)) *rig {
	t.Helper()
	r := &rig{config: cfg, newDevice: newDevice}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	return r
}

// start makes an engine.
func (r *rig) start() (err error) {
	r.journal, r.held, r.broken = &journal{}, &held{}, false
	r.engine, err = engine.New(engine.Config{
		Logger: slog.New(r.journal), Workers: 1, WriteMultiple: true,
		NegotiateTimeout: engineTimeout, WriteTimeout: engineTimeout, DMATimeout: engineTimeout,
	})
	if err != nil {
		return err
	}
	if r.neighbour, err = newNeighbour(r.engine); err != nil {
		_ = r.engine.Close()
	}
	return err
}

func (r *rig) stop() {
	if r.broken { // it would not end
		return
	}
	r.neighbour.close()
	_ = r.engine.Close()
}

// run is one input of Device.
func (r *rig) run(t tester, s *choice.Source) { r.live(t, s, (*life).live) }

// live has clients live with a device, as an input says.
func (r *rig) live(t tester, s *choice.Source, live func(*life)) {
	if r.broken {
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
	}
	if r.present == nil {
		r.attempt(t, &life{t: t, r: r, s: choice.FromBytes(nil)}, (*life).explore)
	}
	r.held.before(t)
	l := &life{t: t, r: r, s: s}
	r.attempt(t, l, live)
	r.held.after(t, min(leakAfter, r.hangAfter), &l.trace)
}

// attempt makes a device and has it live with a client.
func (r *rig) attempt(t tester, l *life, live func(*life)) {
	r.journal.take()
	device, err := r.newDevice()
	if err != nil {
		t.Fatalf("new device: %v", err)
	}
	fd, address, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := r.engine.RegisterFD(fd, device)
	if err != nil {
		_ = closeDevice(device)
		t.Fatal(err)
	}
	l.address = address
	closed := false
	finish := func() {
		if !closed {
			closed = true
			l.close()
			r.within(l, "the endpoint closes", ep.Close)
		}
	}
	defer func() {
		finish()
		r.within(l, "the device closes", func() error { return closeDevice(device) })
	}()
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	live(l)
	l.judge()
	l.successor()
	r.neighbour.check(l)
	finish()
	l.judge()
	if r.check != nil {
		r.check(t, device)
	}
}

// within calls what may hang.
func (r *rig) within(l *life, what string, f func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	if r.broken { // then this may hang too, which says nothing new
		await(10*moment, done)
		return
	}
	err, ok := await(r.hangAfter, done)
	if !ok {
		r.broken = true
		l.t.Errorf("waited in vain for %v until %s\n%s\ngoroutines:\n%s", r.hangAfter, what, &l.trace, stacks.All())
	} else if err != nil {
		l.t.Errorf("%s: %v", what, err)
	}
}

// judge fails if something was logged that must not happen.
func (l *life) judge() {
	defects, faults, _ := l.r.journal.take()
	n := 0
	for _, d := range defects {
		if !l.truncated || faults == 0 || !strings.HasPrefix(d, faultPrefix) {
			defects[n] = d
			n++
		}
	}
	if n > 0 {
		l.fail("%s", strings.Join(defects[:n], "\n"))
	}
}

// successor is the next client, which finds a device that works.
func (l *life) successor() {
	l.trace.note("the next client comes")
	l.prompt, l.cut, l.deaf, l.truncated = true, 0, false, false
	l.connect()
	c := l.c
	c.call(codec.CmdGetInfo, (&codec.DeviceInfo{ArgSz: codec.DeviceInfoSize}).Append(nil))
	if l.r.shape.flags&codec.DeviceFlagReset != 0 {
		c.call(codec.CmdReset, nil)
	}
	m := codec.RegionInfo{ArgSz: 1024, Index: codec.RegionConfig}
	c.call(codec.CmdGetRegionInfo, m.AppendRequest(nil))
	a := codec.RegionAccess{Region: codec.RegionConfig, Count: 64}
	c.call(codec.CmdRegionRead, a.AppendHead(nil))
	l.refused = ""
	c.settle()
	if l.refused != "" {
		l.fail("the next client is refused %s", l.refused)
	}
	l.disconnect()
}

// explore asks a device what it is.
func (l *life) explore() {
	l.connect()
	c := l.c
	c.settle()
	var info codec.DeviceInfo
	l.answer(codec.CmdGetInfo, (&codec.DeviceInfo{ArgSz: codec.DeviceInfoSize}).Append(nil), info.Decode)
	found := shape{flags: info.Flags}
	for i := range info.NumRegions {
		var region codec.RegionInfo
		l.answer(codec.CmdGetRegionInfo, (&codec.RegionInfo{ArgSz: 64 << 10, Index: i}).AppendRequest(nil), region.DecodeReply)
		found.regions = append(found.regions, region)
	}
	for i := range info.NumIRQs {
		var irq codec.IRQInfo
		l.answer(codec.CmdGetIRQInfo, (&codec.IRQInfo{ArgSz: codec.IRQInfoSize, Index: codec.IRQIndex(i)}).Append(nil), irq.Decode)
		found.irqs = append(found.irqs, irq)
	}
	l.r.shape = found
	l.r.know()
	l.disconnect()
}

// answer sends a command that has to succeed, and decodes the reply.
func (l *life) answer(command codec.Command, payload []byte, decode func([]byte) error) {
	got := false
	l.heard = func(m *incoming) {
		got = true
		if err := decode(m.payload); err != nil || m.IsError() {
			l.fail("%v: %v, %v", command, m.Err(), err)
		}
	}
	l.c.call(command, payload)
	l.c.settle()
	l.heard = nil
	if !got {
		l.fail("%v is not answered", command)
	}
}

// know takes the device's shape as places to access.
func (r *rig) know() {
	for _, region := range r.shape.regions {
		if region.Size > 0 {
			r.present = append(r.present, region)
		}
	}
	for off := uint64(0); off < 64; off += 4 {
		r.registers = append(r.registers, place{codec.RegionConfig, off})
	}
	for _, region := range r.present {
		for off := uint64(0); off < min(region.Size, 64); off += 4 {
			r.registers = append(r.registers, place{region.Index, off})
		}
	}
	r.registers = append(r.registers, r.config.registers...)
	// A byte chooses one of them.
	if len(r.registers) > 256 {
		r.registers = r.registers[len(r.registers)-256:]
	}
}
