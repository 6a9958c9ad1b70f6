package block

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSize(t *testing.T) {
	tests := []struct {
		text string
		want int64  // 0 if it is refused
		says string // part of the refusal
	}{
		{"512", 512, ""},
		{"1k", 1 << 10, ""},
		{"3M", 3 << 20, ""},
		{"1G", 1 << 30, ""},
		{"1g", 1 << 30, ""},
		{"2T", 2 << 40, ""},
		{"8388607T", 8388607 << 40, ""},
		{"", 0, "no size"},
		{"G", 0, `"G": it does not begin with a digit`},
		{"-1G", 0, `"-1G": it does not begin with a digit`},
		{"1X", 0, `unknown suffix "X"`},
		{"1.5G", 0, `unknown suffix ".5G"`},
		{"1GB", 0, `unknown suffix "GB"`},
		{"1 G", 0, `unknown suffix " G"`},
		{"0", 0, "at least 512 bytes"},
		{"0G", 0, "at least 512 bytes"},
		{"1000", 0, "not a multiple of 512; 1024 would be"},
		{"8388608T", 0, "more than 8E"},
		{"9223372036854775808", 0, "more than 8E"},
		{"99999999999999999999999999", 0, "more than 8E"},
		{"9223372036854775807", 0, "not a multiple of 512"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := parseSize(tt.text)
			if got != tt.want || (err == nil) != (tt.want != 0) {
				t.Fatalf("got %d, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.says) || !errors.Is(err, ErrSpec)) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

func TestOpenKinds(t *testing.T) {
	path := newPath(t, 1<<20)
	for spec, want := range map[string]Info{
		"mem:1M":       {Kind: "mem", Private: true, CanDiscard: true},
		"null:1T":      {Kind: "null", CanDiscard: true},
		"file:" + path: {Kind: "file", Async: true, VolatileCache: true, CanDiscard: true},
	} {
		b, err := Open(spec)
		must(t, err)
		got := b.Info()
		if want.Kind == "file" {
			want.CanDiscard = got.CanDiscard // the file system decides
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", spec, got, want)
		}
		must(t, b.Close())
	}
	if n := descriptors(t, path); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
}

func TestOpenErrorsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	tests := []struct {
		name, spec string
		is         error
		says       string
	}{
		{"no colon", "1G", ErrSpec, "for example mem:1G"},
		{"empty", "", ErrSpec, "for example mem:1G"},
		{"unknown kind", "ram:1G", ErrSpec, `unknown kind of backend "ram"`},
		{"bad size", "mem:1X", ErrSpec, `mem:1X: bad size "1X"`},
		{"zero size", "null:0", ErrSpec, "at least 512"},
		{"more than the address space", "mem:4096T", syscall.ENOMEM, "cannot reserve"},
		{"more than an address", "mem:9223372036854775296", syscall.ENOMEM, "cannot reserve"},
		{"no path", "file:", ErrSpec, "no path"},
		{"missing file", "file:" + dir + "/none", fs.ErrNotExist, "no such file; create it first"},
		{"file as directory", "file:" + file("plain", 512) + "/x", syscall.ENOTDIR, "not a directory"},
		{"directory", "file:" + dir, syscall.EISDIR, "is a directory"},
		{"named pipe", "file:" + fifo, ErrSpec, "is a named pipe"},
		{"character device", "file:/dev/null", ErrSpec, "is a character device"},
		{"empty file", "file:" + file("empty", 0), ErrSpec, "truncate -s 1G"},
		{"odd size", "file:" + file("odd", 1000), ErrSpec, "1000 bytes, is not a multiple of 512; 1024 would be"},
		{"name too long", "file:" + strings.Repeat("x", 300), syscall.ENAMETOOLONG, "cannot open"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Open(tt.spec)
			if err == nil {
				b.Close()
				t.Fatal("opened")
			}
			var open *OpenError
			if !errors.As(err, &open) || !errors.Is(err, tt.is) {
				t.Errorf("got %#v, want an OpenError that is %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "block: ") {
				t.Errorf("%q does not say %q", err, tt.says)
			}
		})
	}
	if n := descriptors(t, dir); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
}

func TestOpenWithoutPermission(t *testing.T) {
	for _, tt := range []struct {
		mode os.FileMode
		says string
	}{
		{0o444, "can be read but not written"},
		{0o000, "no permission to open it"},
	} {
		path := newPath(t, 1<<20)
		must(t, os.Chmod(path, tt.mode))
		must(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755)) // made by testing for its user alone
		_, err := asNobody(t, func() (Backend, error) { return File(path, FileOptions{}) })
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("mode %v: got %v, want one that says %q", tt.mode, err, tt.says)
		}
	}
}

// asNobody opens without root's rights to files, which it drops for one thread.
func asNobody(t *testing.T, open func() (Backend, error)) (Backend, error) {
	if os.Geteuid() != 0 {
		return open()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsuid(65534))
	b, err := open()
	must(t, unix.Setfsuid(0))
	return b, err
}

func TestReadOnlyFile(t *testing.T) {
	path := newPath(t, 1<<20)
	must(t, os.WriteFile(path, []byte(strings.Repeat("data", 128)), 0o600))
	b, err := File(path, FileOptions{ReadOnly: true})
	closing(t, b, err)
	if i := b.Info(); !i.ReadOnly || i.VolatileCache || i.CanDiscard {
		t.Errorf("%+v", i)
	}
	buf := make([]byte, 4)
	must(t, read(b, 4, buf))
	if string(buf) != "data" {
		t.Errorf("read %q", buf)
	}
	must(t, do(b, &Request{Op: Flush}))
	for _, r := range []Request{
		{Op: Write, Length: 4, Buffers: [][]byte{buf}}, {Op: WriteZeroes, Length: 512}, {Op: Discard, Length: 512},
	} {
		if err := do(b, &r); err != ErrReadOnly {
			t.Errorf("%v: %v, want ErrReadOnly", r.Op, err)
		}
	}
}

func TestFileHasOneWriter(t *testing.T) {
	path := newPath(t, 1<<20)
	for _, tt := range []struct {
		name          string
		first, second FileOptions
		want          error
	}{
		{"two writers", FileOptions{}, FileOptions{}, ErrInUse},
		{"a reader beside a writer", FileOptions{}, FileOptions{ReadOnly: true}, ErrInUse},
		{"a writer beside a reader", FileOptions{ReadOnly: true}, FileOptions{}, ErrInUse},
		{"two readers", FileOptions{ReadOnly: true}, FileOptions{ReadOnly: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := File(path, tt.first)
			must(t, err)
			b, err := File(path, tt.second)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err == nil {
				must(t, b.Close())
			}
			must(t, a.Close())
			if n := descriptors(t, path); n != 0 {
				t.Errorf("%d descriptors left", n)
			}
		})
	}
}

// Check says what Open says of a text, and does not look at what it names.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		spec string
		says string // "": nothing is wrong
	}{
		{"mem:1G", ""},
		{"null:512", ""},
		{"file:/nowhere/at/all", ""},
		{"nbd://nowhere.invalid/disk", ""},
		{"nbd:nbd+unix:///?socket=/nowhere", ""},
		{"stats,delay:2ms,volatile:keep=30%,file:/nowhere", ""},
		{"foo:1G", "unknown kind of backend"},
		{"1G", "no kind of backend"},
		{"mem:1X", "bad size"},
		{"mem:1000", "not a multiple of 512"},
		{"file:", "no path"},
		{"nbd:nowhere", "unknown scheme"},
		{"nbds://nowhere", "TLS is not known"},
		{"nbd+unix:///disk", "no socket"},
		{"delay:2ms", "a filter without a backend"},
		{"volatile", "no kind of backend"},
		{"volatile:keep=30%", "a filter without a backend"},
		{"delay:soon,mem:1G", "no time"},
		{"stats:often,mem:1G", `what is "often"`},
		{"volatile:keep=300%,mem:1G", "a cache that keeps 300%; it is 0% to 100%"},
		{"volatile:size=512,mem:1G", "it is 1M or more"},
		{"stats,volatile,mem:1X", "bad size"},
	} {
		err := Check(tt.spec)
		var open *OpenError
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.spec, err)
		case tt.says != "" && (!errors.As(err, &open) || !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want an *OpenError with ErrSpec that says %q", tt.spec, err, tt.says)
		case tt.says != "":
			if b, failed := Open(tt.spec); failed == nil || failed.Error() != err.Error() {
				t.Errorf("%s: Open says %v, Check %v", tt.spec, failed, err)
				if failed == nil {
					b.Close()
				}
			}
		}
	}
}
