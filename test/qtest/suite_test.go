package qtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vfiouser/engine"
	"vfiouser/test/card"
	"vfiouser/test/guest"
)

const (
	setupTimeout = 10 * time.Minute
	testTimeout  = 30 * time.Second
)

// The kinds of guest memory.
const (
	shared    = "memory-backend-memfd,share=on" // mapped by the server
	anonymous = "memory-backend-ram"            // by message
)

// Where the tests put the BARs of the first device.
const (
	slot        = 4
	registersAt = 0xe000_0000
	portsAt     = 0xc000
	memoryAt    = 0x8_0000_0000 // above 4 GiB
	tableAt     = 0xe001_0000
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// emulator returns QEMU's path. Where there can be none the test is skipped, unless it is
// demanded by CI=true or VFIOUSER_GUEST=require.
func emulator(t *testing.T) string {
	t.Helper()
	unavailable := t.Skipf
	if os.Getenv("CI") == "true" || os.Getenv("VFIOUSER_GUEST") == "require" {
		unavailable = t.Fatalf
	}
	if testing.Short() {
		unavailable("QEMU is downloaded first, if need be: not with -short")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), setupTimeout, fmt.Errorf("not done after %v", setupTimeout))
	defer cancel()
	var progress bytes.Buffer
	lab, err := guest.Open(ctx, &progress)
	if errors.Is(err, guest.ErrUnavailable) {
		unavailable("%v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	return lab.QEMU()
}

// rig is a machine whose first vfio-user device, if any, is served in this process. Its
// methods fail the test.
type rig struct {
	*testing.T
	ctx context.Context
	m   *Machine
	f   Function
}

// serve registers a device and returns its socket.
func serve(t *testing.T, device engine.Device) string {
	t.Helper()
	return endpoint(t, engine.Config{}, device).Path()
}

// endpoint registers a device with an engine of its own and starts it.
func endpoint(t *testing.T, cfg engine.Config, device engine.Device) *engine.Endpoint {
	t.Helper()
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	ep, err := e.Register(filepath.Join(t.TempDir(), "d"), device)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	return ep
}

// start starts a machine with one device, or none if the socket is "". At the end QEMU
// must not have complained.
func start(t *testing.T, chipset, memory, socket string) *rig {
	t.Helper()
	cfg := Config{QEMU: emulator(t), Chipset: chipset, Memory: memory}
	if socket != "" {
		cfg.Args = []string{"-device", DeviceArg("vfu0", socket, slot)}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), testTimeout, fmt.Errorf("not done after %v", testTimeout))
	t.Cleanup(cancel)
	m, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if output := m.Output(); output != "" {
			t.Errorf("QEMU complains:\n%s", output)
		}
	})
	return &rig{t, ctx, m, m.Function(slot)}
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// program gives a card's BARs their addresses and enables it.
func (r *rig) program(msix bool) {
	r.Helper()
	r.check(r.f.SetBAR(r.ctx, card.RegistersBAR, registersAt, false))
	r.check(r.f.SetBAR(r.ctx, card.PortsBAR, portsAt, false))
	r.check(r.f.SetBAR(r.ctx, card.MemoryBAR, memoryAt, true))
	if msix {
		r.check(r.f.SetBAR(r.ctx, card.TableBAR, tableAt, false))
	}
	r.check(r.f.Enable(r.ctx))
	if id := r.load(Memory, registersAt+card.RegID, 4); id != card.ID {
		r.Fatalf("the card's id reads %#x, want %#x", id, card.ID)
	}
}

func (r *rig) load(s Space, addr uint64, size int) uint64 {
	r.Helper()
	v, err := r.m.Load(r.ctx, s, addr, size)
	r.check(err)
	return v
}

func (r *rig) store(s Space, addr, v uint64, size int) {
	r.Helper()
	r.check(r.m.Store(r.ctx, s, addr, v, size))
}

// register reads a register of the card.
func (r *rig) register(off uint64) uint32 {
	r.Helper()
	return uint32(r.load(Memory, registersAt+off, 4))
}

// setRegister writes one.
func (r *rig) setRegister(off, v uint64, size int) {
	r.Helper()
	r.store(Memory, registersAt+off, v, size)
}

func (r *rig) config(off, size int) uint32 {
	r.Helper()
	v, err := r.f.Config(r.ctx, off, size)
	r.check(err)
	return v
}

// until polls until ok says so.
func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	for !ok() {
		if r.ctx.Err() != nil {
			r.Fatalf("%s: %v", what, context.Cause(r.ctx))
		}
	}
}
