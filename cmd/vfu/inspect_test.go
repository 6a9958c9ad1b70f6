package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
	"vfiouser/test/lspci"
)

var update = flag.Bool("update", false, "write the golden files anew")

// exhibit is a device that has one of everything which can be shown. It counts what it is
// asked to do.
type exhibit struct {
	engine.BaseDevice
	memory  int // memfd
	touched atomic.Int32
}

func newExhibit(t *testing.T) *exhibit {
	t.Helper()
	var x exhibit
	var err error
	if x.memory, err = unix.MemfdCreate("exhibit", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err = unix.Ftruncate(x.memory, 16<<10); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(x.memory) })
	return &x
}

func (x *exhibit) touch(uint64, []byte) error                  { x.touched.Add(1); return nil }
func (x *exhibit) UpdateStatus(*engine.Session, engine.Update) { x.touched.Add(1) }
func (x *exhibit) ResetDevice(*engine.Session)                 { x.touched.Add(1) }

// registers are those of an NVMe controller that is enabled and ready.
func (x *exhibit) registers(off uint64, p []byte) error {
	var b [16 << 10]byte
	le := binary.LittleEndian
	le.PutUint64(b[spec.RegCAP:], uint64(spec.NewCap(1023, 40, 0, 0, 4, spec.CapCQR|spec.CapCSSNVM|spec.CapCSSAll|spec.CapNSSRS)))
	le.PutUint32(b[spec.RegVS:], spec.Version2_0)
	le.PutUint32(b[spec.RegCC:], uint32(spec.NewCC(true, 1, 6, 4)))
	le.PutUint32(b[spec.RegCSTS:], uint32(spec.CSTSReady))
	le.PutUint32(b[spec.RegAQA:], uint32(spec.NewAQA(31, 63)))
	le.PutUint64(b[spec.RegASQ:], 0x1_0000_0000)
	le.PutUint64(b[spec.RegACQ:], 0x1_0000_1000)
	copy(p, b[off:])
	return nil
}

func (x *exhibit) Describe() (engine.Description, error) {
	var failed error
	add := func(_ int, err error) { failed = errors.Join(failed, err) }
	s, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x10, SubVendor: 0x1af4, SubDevice: 0x1100, Class: 0x010802, Revision: 2, InterruptPin: 2,
		Express: true, ROMSize: 4096,
		BARs: [pci.NumBARs]pci.BAR{{Size: 16 << 10, Type: pci.Mem64}, {}, {Size: 32, Type: pci.IO}, {}, {Size: 4096}},
	})
	if err != nil {
		return engine.Description{}, err
	}
	add(s.AddPM(pci.PM{}))
	add(s.AddMSIX(pci.MSIX{Vectors: 9, TableBAR: 4, PBABAR: 4, PBAOffset: 0x800}))
	add(s.AddExpress(pci.Express{FLR: true}))
	add(s.AddRaw(pci.RawCapability{ID: 0x33, Data: []byte{1, 2}}))
	add(s.AddSerial(0x0011_22ff_ff33_4455))
	bell := engine.IOEvent{Handler: func(*engine.Session) { x.touched.Add(1) }}
	d := engine.Description{Config: s, ROM: []byte{0x55, 0xaa}}
	d.MSIX, err = pci.NewMSIXTable(9)
	d.IRQs = [irq.NumIndexes]int{irq.INTx: 1, irq.Err: 1}
	d.Regions[engine.RegionBAR0] = engine.Region{
		Size: 16 << 10, Read: x.registers, Write: x.touch, FD: x.memory,
		Areas: []engine.Area{{Offset: 4096, Size: 4096}, {Offset: 12288, Size: 4096}},
		IOEventfds: []engine.IOEventfd{
			{Offset: 0x1000, Size: 4, Match: true, Data: 0x21, Event: &bell}, {Offset: 0x1008, Event: &bell},
		},
	}
	d.Regions[engine.RegionBAR2] = engine.Region{Size: 32, Write: x.touch}
	d.Extra = []engine.Region{{Type: engine.RegionType{Type: 0x10de, Subtype: 2}, Size: 8192, Read: x.touch, FD: x.memory,
		Areas: []engine.Area{{Size: 8192}}}}
	return d, errors.Join(failed, err)
}

// exhibited serves a device in this process.
func exhibited(t *testing.T, d engine.Device) (socket string) {
	t.Helper()
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	socket = filepath.Join(t.TempDir(), "s")
	ep, err := e.Register(socket, d)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return socket
}

// inspected runs the command in this process.
func inspected(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"inspect"}, args...))
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

// exhibition is what examine finds of a device. What the server negotiates is not of this
// package, so it is replaced by values that stay.
func exhibition(t *testing.T, d engine.Device, socket string) *inspection {
	t.Helper()
	ctx := context.Background()
	dev, err := client.Attach(ctx, exhibited(t, d))
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	r, err := examine(ctx, dev)
	if err != nil {
		t.Fatal(err)
	}
	r.Socket = socket
	r.Protocol = protocolReport{Version: "0.1", MaxMsgFDs: 16, MaxDataXferSize: 1 << 20, MaxDMAMaps: 65535, PgSizes: 4096,
		WriteMultiple: true, Migration: &migrationReport{4096, 1 << 20}}
	return r
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update writes it anew):\n%s", file, got)
	}
}

func TestInspectText(t *testing.T) {
	x := newExhibit(t)
	var out bytes.Buffer
	if err := exhibition(t, x, "/run/disk0.sock").print(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "inspect.txt", out.String())
	if n := x.touched.Load(); n != 0 {
		t.Errorf("the device was touched %d times", n)
	}
}

func TestInspectJSON(t *testing.T) {
	r := exhibition(t, newExhibit(t), "/run/disk0.sock")
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "inspect.json", string(text)+"\n")
}

// Every member that JSON can have is in the documentation.
func TestInspectJSONIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/inspect.md")
	if err != nil {
		t.Fatal(err)
	}
	var check func(v reflect.Type)
	check = func(v reflect.Type) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice:
			check(v.Elem())
		case reflect.Struct:
			for f := range v.NumField() {
				name, _, _ := strings.Cut(v.Field(f).Tag.Get("json"), ",")
				if name != "" && !bytes.Contains(text, []byte("`"+name+"`")) {
					t.Errorf("docs/inspect.md does not have %q of %v", name, v)
				}
				if v.Field(f).IsExported() || v.Field(f).Anonymous {
					check(v.Field(f).Type)
				}
			}
		}
	}
	check(reflect.TypeFor[inspection]())
}

func TestInspectCommand(t *testing.T) {
	x := newExhibit(t)
	socket := exhibited(t, x)
	text, err := inspected(t, socket)
	if err != nil || !strings.Contains(text, "id         1b36:0010") || !strings.Contains(text, "\n  version             0.1\n") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = inspected(t, "--json", socket)
	var r inspection
	if err != nil || json.Unmarshal([]byte(text), &r) != nil || r.Socket != socket || r.Format != 1 || len(r.ConfigSpace) != 8192 {
		t.Errorf("%v\n%s", err, text)
	}
	if p := r.Protocol; p.Version != "0.1" || p.MaxMsgFDs == 0 || p.MaxDataXferSize == 0 || p.MaxDMAMaps == 0 || p.PgSizes == 0 {
		t.Errorf("protocol %+v", p)
	}
	text, err = inspected(t, "--lspci", socket)
	if err != nil || !strings.HasPrefix(text, "00:00.0 Non-Volatile") || !strings.HasSuffix(text, "ff0:"+strings.Repeat(" 00", 16)+"\n\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if n := x.touched.Load(); n != 0 {
		t.Errorf("the device was touched %d times", n)
	}
}

func TestInspectNVMeController(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop, err := serveDemoDisk(socket, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for range 2 {
		text, err := inspected(t, socket)
		for _, want := range []string{"NVM Express", "mappable at 0x1000, 4KiB", "\n  enabled       no\n", "\n  state         not ready\n"} {
			if err != nil || !strings.Contains(text, want) {
				t.Errorf("%v, want %q in\n%s", err, want, text)
			}
		}
	}
	_, detach := disk(t, socket)
	_, err = inspected(t, socket)
	if err == nil || !strings.Contains(err.Error(), "one client at a time") {
		t.Errorf("a device in use: %v", err)
	}
	detach()
}

func TestLspciDecodesTheNVMeController(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop, err := serveDemoDisk(socket, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	dump, err := inspected(t, "--lspci", socket)
	if err != nil {
		t.Fatal(err)
	}
	lspci.Compare(t, "testdata/nvme.decoded", lspci.Decode(t, []byte(dump)))
}

func TestNVMeRegistersInWords(t *testing.T) {
	for _, tt := range []struct {
		name string
		cc   spec.CC
		csts spec.CSTS
		says []string
	}{
		{"disabled", 0, 0, []string{"enabled       no", "state         not ready"}},
		{"starting", spec.CCEnable, 0, []string{"enabled       yes", "state         not ready", "32 entries at 0x1000, 64 at 0x2000"}},
		{"running", spec.CCEnable, spec.CSTSReady, []string{"state         ready\n"}},
		{"failed", spec.CCEnable, spec.CSTSReady | spec.CSTSFatal, []string{"state         failed\n"}},
		{"shutting down", spec.CCEnable, spec.CSTSReady.WithSHST(spec.ShutOccurring), []string{"state         ready, shutdown occurring\n"}},
		{"shut down", 0, spec.CSTS(0).WithSHST(spec.ShutComplete), []string{"state         not ready, shutdown complete\n"}},
		{"reserved bits", 0xffffffff, 0xffffffff, []string{"state         failed, shutdown reserved\n", "CC 0xffffffff, CSTS 0xffffffff"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var regs [nvmeRegisters]byte
			le := binary.LittleEndian
			le.PutUint64(regs[spec.RegCAP:], uint64(spec.NewCap(4095, 2, 1, 0, 15, spec.CapCSSNone)))
			le.PutUint32(regs[spec.RegVS:], 0x00010402)
			le.PutUint32(regs[spec.RegCC:], uint32(tt.cc))
			le.PutUint32(regs[spec.RegCSTS:], uint32(tt.csts))
			le.PutUint32(regs[spec.RegAQA:], uint32(spec.NewAQA(31, 63)))
			le.PutUint64(regs[spec.RegASQ:], 0x1000)
			le.PutUint64(regs[spec.RegACQ:], 0x2000)
			r := inspection{NVMe: describeNVMe(regs[:])}
			var out bytes.Buffer
			if err := r.print(&out); err != nil {
				t.Fatal(err)
			}
			for _, want := range append(tt.says, "1.4.2", "up to 4096 entries, doorbells 8 bytes apart", "4KiB to 128MiB", "admin only", "1000 ms") {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, &out)
				}
			}
		})
	}
}

func TestInspectSaysWhatStandsInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("stale")})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path("datagrams")})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	// answering listens and has every connection answered.
	answering := func(name string, answer func(net.Conn)) {
		l, err := net.Listen("unix", path(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				answer(c)
			}
		}()
	}
	silent := make(chan struct{})
	defer close(silent)
	answering("silent", func(c net.Conn) { <-silent; c.Close() })
	answering("busy", func(c net.Conn) { c.Close() })
	answering("web", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		c.Close()
	})
	answering("refusing", script{}.serve)

	for _, tt := range []struct {
		name   string
		args   []string
		says   string
		status int
	}{
		{"no socket", []string{path("none")}, "no such socket", 1},
		{"a file", []string{path("file")}, "is no socket", 1},
		{"nobody listens", []string{path("stale")}, "the server that left the socket has ended", 1},
		{"datagrams", []string{path("datagrams")}, "is not a stream socket", 1},
		{"a path that is too long", []string{path(strings.Repeat("x", 120))}, "longer than 107 bytes", 1},
		{"no answer", []string{path("silent"), "--timeout", "50ms"}, "no answer within 50ms", 1},
		{"another client", []string{path("busy")}, "one client at a time", 1},
		{"another protocol", []string{path("web")}, "no vfio-user server", 1},
		{"refused", []string{path("refusing")}, "the server refuses", 1},
		{"no argument", nil, "needs one socket", 2},
		{"two arguments", []string{"a", "b"}, "needs one socket, 2", 2},
		{"no time", []string{"a", "--timeout", "0s"}, "must be positive", 2},
		{"two formats", []string{"a", "--json", "--lspci"}, "one or the other", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			out, err := inspected(t, tt.args...)
			var usage usageError
			switch {
			case err == nil || !strings.Contains(err.Error(), tt.says):
				t.Errorf("says %v, want %q", err, tt.says)
			case errors.As(err, &usage) != (tt.status == exitUsage):
				t.Errorf("another status than %d: %v", tt.status, err)
			case out != "":
				t.Errorf("prints %q", out)
			case time.Since(begin) > 30*time.Second:
				t.Error("took longer than it may")
			}
		})
	}
}
