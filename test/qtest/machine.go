package qtest

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"vfiouser/test/qmp"
	"vfiouser/test/transcript"
)

// Config is what a machine has.
type Config struct {
	QEMU    string // path of the emulator
	Chipset string // "q35" or "pc"
	Memory  string // memory backend, as on QEMU's command line
	Args    []string
}

// memorySize is the machine's RAM, at address 0.
const memorySize = "64M"

// Machine is a running QEMU. Its methods are for one goroutine at a time, but for Output.
type Machine struct {
	cmd     *exec.Cmd
	conn    net.Conn
	in      *bufio.Reader
	monitor *qmp.Monitor
	output  *transcript.Buffer
	lines   map[int]bool // interrupt lines of the intercepted controller that are up
	changes int          // how often any of them has changed
	exited  chan struct{}
	waitErr error
}

// Start starts QEMU and returns when it takes commands.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	conn, file, err := qmp.SocketPair("qtest")
	if err != nil {
		return nil, err
	}
	monitorConn, monitorFile, err := qmp.SocketPair("monitor")
	if err != nil {
		conn.Close()
		file.Close()
		return nil, err
	}
	m := &Machine{
		conn: conn, in: bufio.NewReader(conn), monitor: qmp.New(monitorConn),
		output: new(transcript.Buffer), lines: map[int]bool{}, exited: make(chan struct{}),
	}
	m.cmd = exec.Command(cfg.QEMU, append([]string{
		"-nodefaults", "-no-user-config", "-nographic",
		"-machine", cfg.Chipset + ",memory-backend=ram", "-object", cfg.Memory + ",id=ram,size=" + memorySize,
		"-m", memorySize, "-accel", "qtest",
		"-chardev", "socket,id=qtest,fd=3", "-qtest", "chardev:qtest", "-qtest-log", "none",
		"-chardev", "socket,id=monitor,fd=4", "-object", "monitor-qmp,id=qmp,chardev=monitor",
	}, cfg.Args...)...)
	m.cmd.ExtraFiles = []*os.File{file, monitorFile}
	m.cmd.Stdout, m.cmd.Stderr = m.output, m.output
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = m.cmd.Start()
	file.Close() // (so that the end of QEMU is the end of its connections)
	monitorFile.Close()
	if err != nil {
		conn.Close()
		monitorConn.Close()
		return nil, err
	}
	go func() {
		m.waitErr = m.cmd.Wait()
		close(m.exited)
	}()
	if err := m.monitor.Negotiate(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("%w\nQEMU: %s", err, m.Output())
	}
	return m, nil
}

// Output is what QEMU has printed so far: its warnings and errors.
func (m *Machine) Output() string {
	return m.output.String()
}

// Close ends QEMU. It may be called again.
func (m *Machine) Close() {
	m.cmd.Process.Kill() // (fails only if it has ended already)
	<-m.exited
	m.conn.Close()
	m.monitor.Close()
}

// Monitor runs a QMP command of QEMU's and decodes what it returns into result, unless
// that is nil.
func (m *Machine) Monitor(ctx context.Context, command string, arguments, result any) error {
	return m.monitor.Execute(ctx, command, arguments, result)
}

// Plug adds a vfio-user device to the running machine.
func (m *Machine) Plug(ctx context.Context, id, socket string, slot int) error {
	return m.Monitor(ctx, "device_add", deviceArgs(id, socket, slot), nil)
}

// deviceArgs describes a vfio-user device, for the command line or the monitor.
func deviceArgs(id, socket string, slot int) map[string]any {
	return map[string]any{
		"driver": "vfio-user-pci", "id": id, "addr": fmt.Sprintf("%x.0", slot),
		"socket": map[string]string{"type": "unix", "path": socket},
	}
}

// DeviceArg is the argument of -device for a vfio-user device.
func DeviceArg(id, socket string, slot int) string {
	arg, err := json.Marshal(deviceArgs(id, socket, slot))
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(arg)
}

// Unplugged waits until a device that was asked to go is gone.
func (m *Machine) Unplugged(ctx context.Context, id string) error {
	_, err := m.monitor.Wait(ctx, qmp.Unplugged(id))
	return err
}

// do runs a qtest command and returns what follows OK in its answer.
func (m *Machine) do(ctx context.Context, format string, args ...any) (string, error) {
	defer qmp.Deadline(ctx, m.conn)()
	command := fmt.Sprintf(format, args...)
	if _, err := m.conn.Write([]byte(command + "\n")); err != nil {
		return "", fmt.Errorf("qtest %.40s: %w", command, err)
	}
	answer, err := m.answer()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return "", fmt.Errorf("qtest %.40s: %w\nQEMU: %s", command, err, m.Output())
	}
	return answer, nil
}

// answer reads lines until one answers a command; "IRQ raise 16" may come at any time.
func (m *Machine) answer() (string, error) {
	for {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSpace(line)
		if m.interrupt(line) {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word != "OK" {
			return "", errors.New(line)
		}
		return rest, nil
	}
}

// interrupt takes down a change of an interrupt line.
func (m *Machine) interrupt(line string) bool {
	var level string
	var number int
	if _, err := fmt.Sscanf(line, "IRQ %s %d", &level, &number); err != nil {
		return false
	}
	m.lines[number] = level == "raise"
	m.changes++
	return true
}

// Intercept has changes of the I/O APIC's inputs told to [Machine.WaitLine] instead of it.
func (m *Machine) Intercept(ctx context.Context) error {
	_, err := m.do(ctx, "irq_intercept_in ioapic")
	return err
}

// WaitLine waits until any line of the intercepted controller is up, or none is, and
// returns the number of changes so far.
func (m *Machine) WaitLine(ctx context.Context, up bool) (changes int, err error) {
	defer qmp.Deadline(ctx, m.conn)()
	for m.anyLine() != up {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return m.changes, fmt.Errorf("wait for the interrupt line: %w (lines %v)", errors.Join(context.Cause(ctx), err), m.lines)
		}
		if !m.interrupt(strings.TrimSpace(line)) {
			return m.changes, fmt.Errorf("qtest: unexpected %q", line)
		}
	}
	return m.changes, nil
}

func (m *Machine) anyLine() bool {
	for _, up := range m.lines {
		if up {
			return true
		}
	}
	return false
}

// letters are the qtest commands' endings by size in bytes.
var letters = map[int]string{1: "b", 2: "w", 4: "l", 8: "q"}

// Space is what an access goes to.
type Space string

const (
	Ports  Space = "ports"  // 1, 2 or 4 bytes
	Memory Space = "memory" // 1, 2, 4 or 8 bytes
)

// Load reads size bytes, little-endian, in one access.
func (m *Machine) Load(ctx context.Context, s Space, addr uint64, size int) (uint64, error) {
	command := "read"
	if s == Ports {
		command = "in"
	}
	answer, err := m.do(ctx, "%s%s %#x", command, letters[size], addr)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(answer, 0, 64)
}

// Store writes size bytes, little-endian, in one access.
func (m *Machine) Store(ctx context.Context, s Space, addr, value uint64, size int) error {
	command := "write"
	if s == Ports {
		command = "out"
	}
	_, err := m.do(ctx, "%s%s %#x %#x", command, letters[size], addr, value)
	return err
}

// Read reads bytes of memory, in accesses of QEMU's choice.
func (m *Machine) Read(ctx context.Context, addr uint64, size int) ([]byte, error) {
	answer, err := m.do(ctx, "read %#x %#x", addr, size)
	if err != nil {
		return nil, err
	}
	return hex.DecodeString(strings.TrimPrefix(answer, "0x"))
}

// Write writes bytes to memory, in accesses of QEMU's choice.
func (m *Machine) Write(ctx context.Context, addr uint64, data []byte) error {
	_, err := m.do(ctx, "write %#x %#x 0x%x", addr, len(data), data)
	return err
}
