package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vfiouser/test/qmp"
	"vfiouser/test/transcript"
)

// Memory is the kind of memory that the guest runs in.
type Memory string

const (
	// MemoryShared is a memfd: QEMU passes descriptors of it and the server maps it.
	MemoryShared Memory = "memory-backend-memfd,share=on"
	// MemoryAnonymous has no descriptor: the server reaches it by messages only.
	MemoryAnonymous Memory = "memory-backend-ram"
)

// Config is what a guest has. The zero value is a machine with one processor, 512 MiB of
// shared memory, no device, and the tools for disks.
type Config struct {
	Sockets []string // vfio-user servers; each is a device vfu0, vfu1, ... at PCI 0000:00:04.0, 05.0, ... 1e.0, 04.1, ...
	CPUs    int      // 0: one
	Memory  Memory   // "": MemoryShared
	Network bool     // the guest has the drivers and tools for networks, instead of those for disks
	Args    []string // more arguments for QEMU
	Kernel  []string // more arguments for the kernel
	// Start starts QEMU, if it is to run in some special place; nil: exec.Cmd.Start.
	Start func(*exec.Cmd) error
}

const (
	memorySize  = "512M"
	firstSlot   = 4                // the PCI slot of the first device
	slots       = 0x1f - firstSlot // (the last one holds QEMU's own functions)
	killedDelay = 5 * time.Second
)

// processor is an old one, so that little is probed at boot, but with random numbers of its
// own: without them mkfs waits for seconds until the kernel has gathered some.
const processor = "Nehalem,+rdrand"

// kernelArgs make the emulated boot shorter (no self-tests of the crypto code, no keys,
// no mitigations), print warnings and worse on the console, and make a panic end QEMU.
var kernelArgs = []string{
	"console=ttyS0", "loglevel=5", "panic=-1",
	"cryptomgr.notests", "initcall_blacklist=crypto_kdf108_init,jent_mod_init,load_system_certificate_list",
	"mitigations=off", "random.trust_cpu=on", "audit=0", "lsm=", "no_timer_check", "tsc=reliable",
	"rcupdate.rcu_expedited=1", "rodata=off", "init_on_alloc=0",
}

// Guest is a running virtual machine. Run, PowerOff, Reboot and Monitor are for one
// goroutine at a time, the other methods for any.
type Guest struct {
	cmd     *exec.Cmd
	agent   *agent
	monitor *qmp.Monitor
	console *transcript.Buffer // first serial line and QEMU's own messages
	exited  chan struct{}      // closed when QEMU has ended
	waitErr error              // how; read after exited
}

// Boot starts a guest and returns when it takes scripts. When it fails to come up, the
// error ends with what its console shows.
func (l *Lab) Boot(ctx context.Context, cfg Config) (*Guest, error) {
	agentConn, agentFile, err := qmp.SocketPair("agent")
	if err != nil {
		return nil, err
	}
	monitorConn, monitorFile, err := qmp.SocketPair("monitor")
	if err != nil {
		agentConn.Close()
		agentFile.Close()
		return nil, err
	}

	g := &Guest{
		agent:   newAgent(agentConn),
		monitor: qmp.New(monitorConn),
		console: new(transcript.Buffer),
		exited:  make(chan struct{}),
	}
	g.cmd = l.command(cfg, nil,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=agent,fd=3", "-serial", "chardev:agent",
		"-chardev", "socket,id=monitor,fd=4", "-object", "monitor-qmp,id=qmp,chardev=monitor")
	g.cmd.ExtraFiles = []*os.File{agentFile, monitorFile}
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	// (the guest must not outlive a test process that is killed)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	g.cmd.WaitDelay = killedDelay
	start := cfg.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	err = start(g.cmd)
	agentFile.Close() // (so that the end of QEMU is the end of its connections)
	monitorFile.Close()
	if err != nil {
		agentConn.Close()
		monitorConn.Close()
		return nil, err
	}
	go func() {
		g.waitErr = g.cmd.Wait()
		close(g.exited)
	}()
	err = g.monitor.Negotiate(ctx)
	if err == nil {
		err = g.agent.ready(ctx)
	}
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("%w\nconsole:\n%s", err, g.Console())
	}
	return g, nil
}

// Command returns the QEMU command that boots the guest with its console, a shell and
// QEMU's monitor (Ctrl-A C) on the terminal of this process. The guest goes off when the
// shell ends.
func (l *Lab) Command(cfg Config) *exec.Cmd {
	cmd := l.command(cfg, []string{"guest.shell"}, "-serial", "mon:stdio")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// slot is the PCI slot and function of device number i. Functions other than 0 are used when
// the slots are.
func slot(i int) string { return fmt.Sprintf("%x.%x", firstSlot+i%slots, i/slots) }

func (l *Lab) command(cfg Config, kernel []string, lines ...string) *exec.Cmd {
	if cfg.Memory == "" {
		cfg.Memory = MemoryShared
	}
	initramfs := "disk.cpio"
	if cfg.Network {
		initramfs = "network.cpio"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-nographic",
		"-action", "reboot=shutdown", // (a panic of the guest's kernel is a reboot)
		"-machine", "q35,memory-backend=ram", "-object", string(cfg.Memory) + ",id=ram,size=" + memorySize,
		"-accel", "tcg,thread=multi", "-cpu", processor, "-smp", strconv.Itoa(max(1, cfg.CPUs)), "-m", memorySize,
		"-kernel", l.path("vmlinux"), "-initrd", l.path(initramfs),
		"-append", strings.Join(slices.Concat(kernel, kernelArgs, cfg.Kernel), " "),
	}
	args = append(args, lines...)
	for i, socket := range cfg.Sockets {
		device, err := json.Marshal(map[string]any{
			"driver": "vfio-user-pci", "id": fmt.Sprintf("vfu%d", i),
			"bus": "pcie.0", "addr": slot(i), "multifunction": len(cfg.Sockets) > slots,
			"socket": map[string]string{"type": "unix", "path": socket},
		})
		if err != nil {
			panic(err) // strings always have a JSON form
		}
		args = append(args, "-device", string(device))
	}
	return exec.Command(l.QEMU(), append(args, cfg.Args...)...)
}

// Run runs a shell script in the guest, as root, and returns what it prints. A status
// other than 0 is an [*ExitError]. What the script leaves running must have outputs of its
// own. After ctx has ended in the middle of a script the guest takes no more scripts.
func (g *Guest) Run(ctx context.Context, script string) (string, error) {
	return g.agent.run(ctx, script)
}

// Monitor runs a QMP command of QEMU's and decodes what it returns into result, unless
// that is nil.
func (g *Guest) Monitor(ctx context.Context, command string, arguments, result any) error {
	return g.monitor.Execute(ctx, command, arguments, result)
}

// Unplug asks for the removal of a device and waits until the guest has let go of it.
func (g *Guest) Unplug(ctx context.Context, id string) error {
	if err := g.Monitor(ctx, "device_del", map[string]string{"id": id}, nil); err != nil {
		return err
	}
	_, err := g.monitor.Wait(ctx, qmp.Unplugged(id))
	return err
}

// PowerOff has the guest's kernel shut its devices down and switch the machine off, and
// waits until QEMU has ended.
func (g *Guest) PowerOff(ctx context.Context) error {
	if err := g.agent.send(ctx, "poweroff -f"); err != nil {
		return err
	}
	select {
	case <-g.exited:
		return g.waitErr
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest to power off: %w", context.Cause(ctx))
	}
}

// Reboot has the guest's kernel reboot the machine, a warm reset with the same QEMU, and
// returns when it takes scripts again.
func (g *Guest) Reboot(ctx context.Context) error {
	if err := g.Monitor(ctx, "set-action", map[string]string{"reboot": "reset"}, nil); err != nil {
		return err
	}
	if err := g.agent.send(ctx, "reboot -f"); err != nil {
		return err
	}
	if err := g.agent.ready(ctx); err != nil {
		return err
	}
	return g.Monitor(ctx, "set-action", map[string]string{"reboot": "shutdown"}, nil)
}

// Kexec has the guest's kernel start the kernel that a script loaded (kexec -l), without
// the firmware and without a reset of the machine, and returns when that takes scripts.
func (g *Guest) Kexec(ctx context.Context) error {
	if err := g.agent.send(ctx, "kexec -e"); err != nil {
		return err
	}
	return g.agent.ready(ctx)
}

// Kill ends QEMU with SIGKILL and waits for its end.
func (g *Guest) Kill() {
	g.cmd.Process.Kill() // (fails only if QEMU has ended already)
	<-g.exited
}

// Close ends the guest if it still runs and releases what belongs to it. It may be called
// again.
func (g *Guest) Close() {
	g.Kill()
	g.agent.conn.Close()
	g.monitor.Close()
}

// Running tells whether QEMU has not ended yet.
func (g *Guest) Running() bool {
	select {
	case <-g.exited:
		return false
	default:
		return true
	}
}

// Console returns what the guest has printed on its console so far, the firmware's and
// the kernel's messages (warnings and worse), and QEMU's own messages.
func (g *Guest) Console() string { return g.console.String() }
