package guest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

//go:embed debian.sh setup.sh init suites.sh
var sources embed.FS

// ErrUnavailable says that this machine cannot have the test guest; the error that wraps
// it says why.
var ErrUnavailable = errors.New("the test guest is not available here")

// setupCannot is the exit status with which setup.sh says that it is the machine.
const setupCannot = 3

// Lab is the folder with the machine's files: QEMU, kernel, initramfs, programs for networks.
type Lab struct {
	dir string
}

// Open returns the lab, and makes it first if need be: that downloads some 120 MB from the
// machine's Debian mirror and takes 15 seconds. It is kept in the folder VFIOUSER_CACHE
// names, else in the user's cache folder, under a name that changes with its sources.
// Several processes may call Open at once. What setup prints goes to progress. Errors that
// lie with the machine wrap [ErrUnavailable].
func Open(ctx context.Context, progress io.Writer) (*Lab, error) {
	if platform := runtime.GOOS + "/" + runtime.GOARCH; platform != "linux/amd64" {
		return nil, fmt.Errorf("%w: it is for linux/amd64, this is %s", ErrUnavailable, platform)
	}
	for _, tool := range []string{"bash", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: it is made of Debian packages: %v", ErrUnavailable, err)
		}
	}
	dir, err := cached(ctx, progress, "guest", []string{"debian.sh", "setup.sh", "init"}, "setup.sh")
	if err != nil {
		return nil, err
	}
	return &Lab{dir}, nil
}

// cached returns a folder that a script makes if it is not there yet. Its name is kind and
// the content of the sources.
func cached(ctx context.Context, progress io.Writer, kind string, names []string, script string, args ...string) (string, error) {
	dir, err := cacheDir(kind, names)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, setup(ctx, dir, progress, script, args)
}

// cacheDir names a folder in the cache after the content of its sources.
func cacheDir(kind string, names []string) (string, error) {
	cache := os.Getenv("VFIOUSER_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w: no folder for its files (set VFIOUSER_CACHE): %v", ErrUnavailable, err)
		}
		cache = filepath.Join(user, "vfiouser")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	for _, name := range names {
		content, err := fs.ReadFile(sources, name)
		if err != nil {
			return "", err
		}
		hash.Write(content)
	}
	return filepath.Join(cache, kind+"-"+hex.EncodeToString(hash.Sum(nil)[:6])), nil
}

// lock takes an exclusive lock on the file at path, which it makes, and returns what
// releases it. The kernel releases it too if this process dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another process to make the test guest: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// setup has a script make a folder beside its place and moves it there when it is complete.
func setup(ctx context.Context, dir string, progress io.Writer, script string, args []string) error {
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil { // of a run that was killed
		return err
	}
	defer os.RemoveAll(part)
	from := filepath.Join(part, "sources")
	if err := os.MkdirAll(from, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(from, sources); err != nil {
		return err
	}
	var last lastLine
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(from, script), part}, args...)...)
	cmd.Stdout = io.MultiWriter(progress, &last)
	cmd.Stderr = cmd.Stdout
	// (a group of its own, so that what the script started ends with it)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		switch {
		case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == setupCannot:
			return fmt.Errorf("%w: %s", ErrUnavailable, last.String())
		case os.Geteuid() != 0: // apt's configuration decides whether it serves other users
			return fmt.Errorf("%w: making it without root failed: %v: %s", ErrUnavailable, err, last.String())
		}
		return fmt.Errorf("setup of the test guest: %w: %s", err, last.String())
	}
	return os.Rename(part, dir)
}

// lastLine keeps the last line written to it that is not empty.
type lastLine struct {
	line, partial string
}

func (l *lastLine) Write(p []byte) (int, error) {
	lines := strings.Split(l.partial+string(p), "\n")
	l.partial = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		if line != "" {
			l.line = line
		}
	}
	return len(p), nil
}

func (l *lastLine) String() string {
	if l.partial != "" {
		return l.partial
	}
	return l.line
}

// Versions returns the versions of the packages that matter, for the log.
func (l *Lab) Versions() string {
	content, err := os.ReadFile(l.path("VERSIONS"))
	if err != nil {
		return err.Error()
	}
	var wanted []string
	for line := range strings.Lines(string(content)) {
		for _, name := range []string{"qemu-system-x86 ", "linux-image-", "nvme-cli ", "fio ", "iperf3 ", "passt "} {
			if strings.HasPrefix(line, name) {
				wanted = append(wanted, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(wanted, ", ")
}

// QEMU is the path of the emulator.
func (l *Lab) QEMU() string { return l.path("bin/qemu-system-x86_64") }

// Program is the path of a program for the host's end of a guest's network: ip, iperf3, passt
// or busybox.
func (l *Lab) Program(name string) string { return l.path(filepath.Join("bin", name)) }

// Kernel is the path of the guest's kernel, compressed, for kexec.
func (l *Lab) Kernel() string { return l.path("vmlinuz") }

func (l *Lab) path(name string) string { return filepath.Join(l.dir, name) }
